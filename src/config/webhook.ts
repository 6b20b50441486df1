/** The part of the configuration that says how a store's webhooks are proven and what in them names a record. */
import { z } from 'zod';
import { headerName, port, positiveMilliseconds, scalar } from './terms.ts';

const secrets = z
  .array(z.string().min(8, 'must have at least 8 characters'))
  .min(1)
  .max(5)
  .describe('Any of them will do, so that a new one can be added before the old one goes.');
const toleranceMs = positiveMilliseconds
  .default(300_000)
  .describe('How far the time in a delivery may be from ours, either way.');

export const webhookSignature = z.discriminatedUnion('scheme', [
  z.strictObject({
    scheme: z
      .literal('github')
      .describe('HMAC-SHA256 of the body in hex behind "sha256=", as GitHub and many others sign.'),
    secrets,
    header: headerName.default('x-hub-signature-256').describe('Header of the signature.'),
  }),
  z.strictObject({
    scheme: z.literal('stripe').describe('One header with t=TIME,v1=HMAC of "TIME.BODY", as Stripe signs.'),
    secrets,
    header: headerName.default('stripe-signature').describe('Header of the signature.'),
    toleranceMs,
  }),
  z.strictObject({
    scheme: z
      .literal('standard')
      .describe('Standard Webhooks: webhook-id, webhook-timestamp and webhook-signature.'),
    secrets,
    toleranceMs,
  }),
  z.strictObject({
    scheme: z.literal('hmac').describe('An HMAC of another make.'),
    secrets,
    header: headerName.describe('Header of the signature.'),
    prefix: z.string().default('').describe('What stands before the signature in its header.'),
    algorithm: z.enum(['sha1', 'sha256', 'sha384', 'sha512']).default('sha256').describe('Hash of the HMAC.'),
    encoding: z.enum(['hex', 'base64']).default('hex').describe('How the signature is written.'),
    content: z
      .string()
      .refine((text) => text.split('{body}').length === 2, { error: 'must contain {body} once' })
      .default('{body}')
      .describe('What is signed: {body}, {timestamp} and {id} (of idHeader) are filled in.'),
    timestampHeader: headerName
      .optional()
      .describe('Header of the time. Left out: an old delivery counts as much as a new one.'),
    timestampUnit: z.enum(['s', 'ms']).default('s').describe('Unit of the time, since 1970.'),
    idHeader: headerName.optional().describe('Header that {id} stands for.'),
    toleranceMs,
  }),
  z.strictObject({
    scheme: z.literal('secret').describe('The secret itself stands in a header.'),
    secrets,
    header: headerName.describe('Header of the secret.'),
    prefix: z.string().default('').describe('What stands before the secret, for example "Bearer ".'),
  }),
  z.strictObject({
    scheme: z.literal('basic').describe('HTTP Basic authentication; the secrets are passwords.'),
    secrets,
    user: z.string().min(1).describe('Name of the user.'),
  }),
]);

const eventRule = z.strictObject({
  each: z
    .string()
    .regex(/\[\*\]/, 'must contain [*]')
    .optional()
    .describe(
      'Where several events stand in one body: a path with [*] for each entry of an array (`events[*]`; `[*]` where the body is the array). The other paths count from there. Left out: the body is the event.',
    ),
  where: z
    .record(z.string().min(1), z.union([scalar, z.array(scalar).min(1)]))
    .default({})
    .describe('Fields of the event, by their path, that must have this value, or one of these.'),
  kind: z.string().min(1).describe('Kind of the record, as named under records.'),
  id: z.string().min(1).describe("Path to the record's id in the event."),
  partition: z
    .string()
    .min(1)
    .optional()
    .describe('Path to its partition. Left out, or missing in an event: it is looked up.'),
});

export const webhookSchema = z.strictObject({
  signatures: z.array(webhookSignature).min(1).max(5).describe('How a delivery is proven; one must hold.'),
  eventId: z
    .string()
    .regex(/^(header|body)\../, 'must be header.NAME or body.PATH')
    .optional()
    .describe(
      'Where a delivery says who it is, so that one that comes twice counts once: header.NAME or body.PATH. Left out: what the scheme of the first signature has for it.',
    ),
  events: z.array(eventRule).min(1).max(100).describe('What names a record; each rule that fits counts.'),
});

export const webhooksSchema = z.strictObject({
  host: z.string().default('127.0.0.1').describe('Address on which deliveries are taken.'),
  port: port.describe('Port for POST /webhooks/legacy and /webhooks/app; 0 takes a free one.'),
  bodyBytes: z
    .int()
    .min(1_024)
    .max(16_777_216)
    .default(1_048_576)
    .describe('Longest body of a delivery; beyond it 413.'),
});

export type WebhookConfig = z.output<typeof webhookSchema>;
export type WebhookSignature = z.output<typeof webhookSignature>;
