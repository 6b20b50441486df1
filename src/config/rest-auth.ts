/** Credentials of a rest connector that are more than a header. */
import { z } from 'zod';
import { headerName, positiveMilliseconds, url } from './terms.ts';

const apiKey = z
  .strictObject({
    header: headerName.optional().describe('Header that carries the key.'),
    query: z.string().min(1).optional().describe('Query parameter that carries the key.'),
    value: z.string().min(1).describe('The key, with what the platform wants before it.'),
  })
  .refine(({ header, query }) => (header === undefined) !== (query === undefined), {
    error: 'needs exactly one of header and query',
  });

const oauth2 = z.strictObject({
  tokenUrl: url.describe('Address of the token endpoint.'),
  clientId: z.string().min(1).describe('Id of the client.'),
  clientSecret: z.string().min(1).describe('Secret of the client.'),
  scope: z.string().optional().describe('Scopes, separated by spaces.'),
  audience: z.string().optional().describe('Audience, where the endpoint wants one.'),
  send: z
    .enum(['basic', 'body'])
    .default('basic')
    .describe('Where id and secret stand: in the Authorization header, or in the body.'),
  more: z.record(z.string(), z.string()).default({}).describe('Further fields of the token request.'),
  timeoutMs: positiveMilliseconds.default(5_000).describe('Time of one token request.'),
});

export const authSchema = z.union([
  z.strictObject({
    basic: z
      .strictObject({
        user: z.string().describe('Name of the user.'),
        password: z.string().describe('Password.'),
      })
      .describe('HTTP Basic authentication (RFC 7617).'),
  }),
  z.strictObject({ bearer: z.string().min(1).describe('A token that does not change (RFC 6750).') }),
  z.strictObject({ apiKey: apiKey.describe('A key in a header or in the query.') }),
  z.strictObject({
    oauth2: oauth2.describe(
      'Tokens by client credentials (RFC 6749, 4.4): kept in memory, renewed before their end, and once after a 401.',
    ),
  }),
]);

export type AuthConfig = z.output<typeof authSchema>;
export type OAuth2Config = z.output<typeof oauth2>;
