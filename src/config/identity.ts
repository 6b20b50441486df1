/** How users are recognised: the rules of `identity`, one form for each place where a credential may stand. */
import { z } from 'zod';
import { headerMap, headerName, milliseconds, positiveMilliseconds, url } from './terms.ts';

const jwt = z
  .strictObject({
    secret: z.string().min(1).optional().describe('Shared secret of HS256 tokens; give this or jwksUrl.'),
    jwksUrl: url
      .optional()
      .describe(
        'Where the public keys are (RFC 7517). They are kept, and asked for again when a key is new.',
      ),
    issuer: z.string().optional().describe('Value that the claim iss must have.'),
    audience: z.string().optional().describe('Value that the claim aud must have.'),
    claim: z.string().default('sub').describe('Claim that names the user.'),
    clockSkewMs: milliseconds.default(5_000).describe('Tolerance for the times in a token.'),
  })
  .refine((rule) => (rule.secret === undefined) !== (rule.jwksUrl === undefined), {
    error: 'needs exactly one of secret and jwksUrl',
  });

const introspect = z.strictObject({
  url: url.describe(
    'Address that answers who a credential belongs to. 2xx with a user: verified; 401, 403, 404 or "active": false: wrong; anything else: 503 identity-unavailable.',
  ),
  user: z
    .string()
    .min(1)
    .describe('Path to the user in the JSON answer, like data.id; a text or a whole number stands there.'),
  method: z
    .enum(['GET', 'POST'])
    .optional()
    .describe('Left out: GET, or POST where the question has a body.'),
  headers: headerMap.optional().describe('Sent with every question, for example the key of this proxy.'),
  header: headerName
    .optional()
    .describe('Header that carries the bare credential. Left out: it stands where the client had it.'),
  form: z
    .literal(true)
    .optional()
    .describe('Asks as RFC 7662 says: POST of a form with token, answered with "active": true.'),
  cacheMs: milliseconds
    .default(60_000)
    .describe('How long an answer counts; a revoked credential goes on that long. 0 asks every time.'),
  timeoutMs: positiveMilliseconds.default(2_000).describe('Total time of a question.'),
  connections: z
    .int()
    .min(1)
    .max(10_000)
    .default(100)
    .describe('Questions under way at a time, per proxy process; a credential beyond them gets 503.'),
});

const from = z
  .array(z.string())
  .min(1)
  .optional()
  .describe('Addresses or CIDR ranges of peers who have verified it; its value is then the user.');
const asked = introspect.optional().describe('Asks a service who the credential belongs to.');

export const identityRule = z.union([
  z.strictObject({
    header: headerName.describe('Header that names the user.'),
    from: z.array(z.string()).min(1).describe('Addresses or CIDR ranges of the peers that may set it.'),
  }),
  z.strictObject({ jwt: jwt.describe('A signed token in Authorization: Bearer.') }),
  z.strictObject({
    cookie: headerName.describe('Name of a session cookie; needs one of introspect, jwt and from.'),
    introspect: asked,
    jwt: jwt.optional().describe('The value is a signed token.'),
    from,
  }),
  z.strictObject({
    basic: z.literal(true).describe('Authorization: Basic; needs one of introspect and from.'),
    introspect: asked,
    from,
  }),
  z.strictObject({
    bearer: z.literal(true).describe('An opaque token in Authorization: Bearer.'),
    introspect: introspect.describe('Asks a service who the credential belongs to.'),
  }),
  z.strictObject({
    body: z
      .string()
      .min(1)
      .describe('Path to the session in a JSON body; needs one of introspect, jwt and from.'),
    introspect: asked,
    jwt: jwt.optional().describe('The value is a signed token.'),
    from,
    bodyBytesMax: z
      .int()
      .min(1)
      .max(16_777_216)
      .default(1_048_576)
      .describe('JSON bodies are read up to this size before anything is decided; a larger one gets 413.'),
  }),
]);
