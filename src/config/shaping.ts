/** The part of the configuration that says in which form requests reach a store and its answers leave it. */
import { z } from 'zod';
import { headerMap, headerName, positiveMilliseconds } from './terms.ts';

const cookiePath = z
  .string()
  .regex(/^\/[\u0020-\u003a\u003c-\u007e]*$/, 'must start with "/" and be a path without ";"');
const file = z.string().min(1);
const minVersion = z
  .enum(['TLSv1.2', 'TLSv1.3'])
  .optional()
  .describe('Oldest version of TLS that is spoken. Left out: TLSv1.2.');

function headerChanges(side: string): z.ZodOptional<typeof changes> {
  return changes.optional().describe(`Changes to the headers of ${side}; all others stay as they are.`);
}

const changes = z.strictObject({
  set: headerMap
    .default({})
    .describe('Headers with their values; each replaces all of its name that were there.'),
  remove: z.array(headerName).default([]).describe('Names of headers that end here.'),
});

/** `host`, `host:port`, also with an IPv6 address in brackets. */
const hostName = /^(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?$/;

export const storeShaping = {
  headers: headerChanges('requests to the store'),
  answerHeaders: headerChanges("the store's answers"),
  host: z
    .string()
    .regex(hostName, 'must be store, preserve or a host name, like platform.example or platform.example:8443')
    .default('store')
    .describe(
      'What the store sees as Host: store is the host of its url, preserve what the client sent, anything else this name.',
    ),
  rewrite: z
    .strictObject({
      location: z
        .boolean()
        .optional()
        .describe(
          "With true, Location, Content-Location and Refresh that name the store's address or path are turned into the client's. Left out: true where the store's url has a path.",
        ),
      cookieDomain: z
        .record(z.string().min(1), z.string().regex(/^[A-Za-z0-9.-]*$/, 'must be a domain, or empty'))
        .default({})
        .describe(
          'Domain of cookies: from the name to the value; "*" is any other, and "" drops the Domain.',
        ),
      cookiePath: z
        .record(cookiePath, cookiePath)
        .default({})
        .describe('Path of cookies: from the beginning to the value; the longest that fits counts.'),
    })
    .prefault({})
    .describe("What in the store's answers is turned into the client's view."),
  hook: z
    .strictObject({
      file: file.describe('The module; relative to the directory the process was started in.'),
      bodyBytes: z
        .int()
        .min(1)
        .max(67_108_864)
        .default(1_048_576)
        .describe('Longest body that is read for the hook, of a request or an answer.'),
      timeoutMs: positiveMilliseconds
        .default(1_000)
        .describe('Time that the hook may take for a request, and again for its answer.'),
    })
    .optional()
    .describe(
      'A module of your own that gives requests the form which this store understands, and its answers the form which clients expect. It is read at the start.',
    ),
  tls: z
    .strictObject({
      ca: file
        .optional()
        .describe(
          'PEM file of the authorities that are believed, instead of the well-known ones. The certificate is always verified.',
        ),
      cert: file.optional().describe('PEM file of the certificate that is shown to the store, with key.'),
      key: file.optional().describe('PEM file of its private key.'),
      servername: z
        .string()
        .regex(/^[A-Za-z0-9._-]+$/, 'must be a host name')
        .optional()
        .describe("Name that the certificate must have. Left out: the host of the store's url."),
      minVersion,
    })
    .optional()
    .describe('TLS to the store, where its url is https. Files are read at the start.'),
};

export const listeningTls = z
  .strictObject({
    cert: file.describe('PEM file of the certificate and its chain.'),
    key: file.describe('PEM file of its private key.'),
    minVersion,
  })
  .optional()
  .describe(
    'TLS towards clients. When the files change, or at a SIGHUP, they are read again; files that cannot be used are reported, and the certificate of before stays.',
  );

export type HeaderChanges = z.output<typeof changes>;
