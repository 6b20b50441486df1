/**
 * The configuration, in one schema. What an operator writes is parsed here once; the rest of the program
 * sees only the frozen result. Parts of the grammar that are not built yet are parsed too, so that
 * src/config/availability.ts can say "not available yet" instead of "unknown key".
 */
import { z } from 'zod';

const milliseconds = z.int().min(0).max(86_400_000);
const positiveMilliseconds = z.int().min(1).max(86_400_000);
const port = z.int().min(0).max(65_535);
const url = z.url({ protocol: /^https?$/, error: 'must be an http or https URL' });
const headerName = z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, 'must be a header name');
const headerMap = z.record(headerName, z.string());
const path = z.string().startsWith('/', 'must start with "/"');
const store = z.enum(['legacy', 'app']);
const method = z.string().regex(/^[A-Za-z]+$/, 'must be an HTTP method');
const scalar = z.union([z.string(), z.number(), z.boolean(), z.null()]);

export const proxySchema = z.strictObject({
  host: z.string().default('127.0.0.1').describe('Address the proxy listens on.'),
  port: port.default(8080).describe('Port the proxy listens on; 0 takes a free one.'),
  processes: z.int().min(1).max(64).default(1).describe('Members on one port.'),
  mode: z.enum(['enforce', 'observe']).default('enforce'),
  trustedProxies: z
    .array(z.string())
    .default([])
    .describe('CIDR ranges whose X-Forwarded-* headers are believed.'),
  debugHeaders: z.boolean().default(false).describe('Answers carry Onewriter-Store and Onewriter-Epoch.'),
});

const token = z
  .strictObject({
    name: z.string().min(1),
    role: z.enum(['viewer', 'operator', 'approver', 'admin']),
    token: z.string().min(8, 'must have at least 8 characters').optional(),
    sha256: z
      .string()
      .regex(/^[0-9a-fA-F]{64}$/, 'must be 64 hex digits')
      .optional(),
  })
  .refine((entry) => (entry.token === undefined) !== (entry.sha256 === undefined), {
    error: 'needs exactly one of token and sha256',
  });

export const adminSchema = z.strictObject({
  host: z.string().default('127.0.0.1'),
  port: port.default(8081),
  tokens: z
    .array(token)
    .default([])
    .describe('Bearer tokens with their roles; without any, every call is refused.'),
});

const listSchema = z.strictObject({
  path,
  query: z.record(z.string(), z.string()).default({}),
  items: z.string().default('').describe('Path to the array in the answer; "" when the body is the array.'),
  next: z.string().optional().describe('Path to the cursor of the next page.'),
  paging: z
    .union([
      z.strictObject({ page: z.strictObject({ from: z.int().default(1), size: z.int().min(1) }) }),
      z.strictObject({ offset: z.strictObject({ size: z.int().min(1) }) }),
      z.literal('link'),
    ])
    .optional(),
});

const call = z.strictObject({
  method: method.optional(),
  path,
  body: z.record(z.string(), z.unknown()).optional(),
});

const mapRule = z.union([
  z.string(),
  z.strictObject({ const: scalar }),
  z.strictObject({ template: z.string() }),
  z.strictObject({ drop: z.literal(true) }),
]);

export const recordSchema = z.strictObject({
  list: listSchema,
  get: z.strictObject({ path }).describe('Reads one record; 404 or 410 mean that it is gone.'),
  create: call.extend({ id: z.string().optional() }).optional(),
  put: call.optional(),
  delete: call.optional(),
  bulk: call.extend({ max: z.int().min(1).max(10_000) }).optional(),
  id: z.string().min(1),
  partition: z.string().min(1),
  version: z.string().optional(),
  deleted: z.string().optional(),
  writers: z.string().optional(),
  map: z.record(z.string(), mapRule).optional(),
});

export const restConnectorSchema = z.strictObject({
  kind: z.literal('rest'),
  headers: headerMap.default({}),
  auth: z.unknown().optional(),
  rateLimit: z
    .strictObject({
      requests: z.int().min(1),
      perMs: positiveMilliseconds,
      reserveForUsers: z.number().min(0).max(0.99).default(0.5),
    })
    .optional(),
  feedDelayMs: milliseconds.default(0).describe('How late the list shows a finished write.'),
  timeoutMs: positiveMilliseconds.default(10_000).describe('Per call of the connector.'),
  records: z.record(z.string().regex(/^[A-Za-z0-9_-]+$/), recordSchema),
  freeze: z.array(call).optional(),
  unfreeze: z.array(call).optional(),
});

const otherConnector = z.looseObject({ kind: z.enum(['postgres', 'caldav']) });

const storeFields = {
  url,
  writeTimeoutMs: positiveMilliseconds
    .default(10_000)
    .describe('Total time of a write, from its first byte.'),
  readTimeoutMs: positiveMilliseconds
    .default(30_000)
    .describe('Time until the headers of the answer to a read.'),
  connectTimeoutMs: positiveMilliseconds.default(3_000),
  connections: z.int().min(1).max(10_000).default(256).describe('Upstream connections per proxy process.'),
  connector: z.union([restConnectorSchema, otherConnector]).optional(),
};

export const storesSchema = z.strictObject({
  legacy: z.strictObject({
    ...storeFields,
    settleMs: milliseconds.default(30_000).describe('How long a timed-out write may still take effect.'),
    guard: z.boolean().default(false),
  }),
  app: z.strictObject({
    ...storeFields,
    settleMs: milliseconds.default(0),
    guard: z.boolean().default(true),
  }),
});

const jwt = z
  .strictObject({
    secret: z.string().min(1).optional(),
    jwksUrl: url.optional(),
    issuer: z.string().optional(),
    audience: z.string().optional(),
    claim: z.string().default('sub'),
    clockSkewMs: milliseconds.default(5_000),
  })
  .refine((rule) => (rule.secret === undefined) !== (rule.jwksUrl === undefined), {
    error: 'needs exactly one of secret and jwksUrl',
  });

const introspect = z.strictObject({ url, user: z.string() }).optional();
const identityRule = z.union([
  z.strictObject({ header: headerName, from: z.array(z.string()).min(1) }),
  z.strictObject({ jwt, introspect }),
  z.strictObject({ cookie: z.unknown(), introspect }),
  z.strictObject({ basic: z.literal(true), introspect }),
  z.strictObject({ body: z.string(), introspect }),
  z.strictObject({ bearer: z.literal(true), introspect }),
]);

const partitionRule = z.union([
  z.strictObject({ by: z.literal('user') }),
  z.strictObject({ header: headerName }),
  z.strictObject({ claim: z.string().min(1) }),
  z.strictObject({
    path: z.string().min(1).describe('A path template with :partition, or a parameter name.'),
  }),
  z.strictObject({ query: z.string().min(1) }),
  z.strictObject({ body: z.string().min(1) }),
  z.strictObject({ directory: z.literal(true) }),
]);

export const routeSchema = z.strictObject({
  path,
  methods: z.array(method).min(1).optional(),
  host: z.string().optional(),
  query: z.record(z.string(), z.string()).optional(),
  headers: headerMap.optional(),
  body: z.record(z.string(), z.unknown()).optional(),
  access: z.enum(['read', 'write']).optional(),
  store: store.optional(),
  anonymous: z.boolean().optional(),
  partition: z.string().optional(),
  partitions: z.string().optional(),
  record: z.strictObject({ kind: z.string(), id: z.string() }).optional(),
  graphql: z.literal(true).optional(),
  reads: z.enum(['owner', 'copy', 'app']).optional(),
  maxStalenessMs: milliseconds.optional(),
});

const condition = z.union([
  scalar,
  z.strictObject({
    eq: scalar.optional(),
    ne: scalar.optional(),
    in: z.array(scalar).optional(),
    gt: z.number().optional(),
    gte: z.number().optional(),
    lt: z.number().optional(),
    lte: z.number().optional(),
  }),
]);

export const cohortSchema = z.union([
  z.strictObject({ partitions: z.array(z.string().min(1)) }),
  z.strictObject({ percent: z.number().min(0).max(100), salt: z.string() }),
  z.strictObject({ where: z.record(z.string(), condition) }),
]);

export const flipSchema = z.strictObject({
  holdMs: positiveMilliseconds.default(5_000).describe('Longest time that a write is held.'),
  fenceMs: positiveMilliseconds.default(3_000).describe('Fence deadline.'),
  drainMs: positiveMilliseconds.default(2_000),
  maxLagMs: positiveMilliseconds.default(2_000),
  batch: z.int().min(1).max(1_000).default(100),
  attempts: z.int().min(1).max(20).default(3),
  waves: z
    .array(
      z.string().regex(/^([1-9]\d*|(100|[1-9]\d?)%)$/, 'must be a number or a percentage, like "1" or "10%"'),
    )
    .min(1)
    .default(['1', '10%', '100%']),
});

export const configSchema = z.strictObject({
  proxy: proxySchema.prefault({}),
  admin: adminSchema.prefault({}),
  redis: z.strictObject({ url: z.string().default('embedded') }).prefault({}),
  dataDir: z.string().min(1).default('.onewriter'),
  secret: z.string().min(16, 'must have at least 16 characters').describe('Signs the guard headers.'),
  ledger: z
    .strictObject({
      leaseMs: z.int().min(300).max(600_000).default(10_000),
      onLedgerLoss: z.enum(['refuse', 'serve-last-known']).default('refuse'),
      minReplicas: z.int().min(0).max(16).default(0),
      acceptLoss: z.boolean().default(false),
    })
    .prefault({}),
  stores: storesSchema,
  identity: z.array(identityRule).min(1),
  partition: z
    .array(partitionRule)
    .min(1)
    .default([{ by: 'user' }]),
  anonymousReads: z.enum(['legacy', 'app', 'refuse']).default('legacy'),
  newPartitions: store.default('legacy'),
  routes: z.array(routeSchema).default([]),
  cohorts: z.record(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]*$/), cohortSchema).default({}),
  flip: flipSchema.prefault({}),
  sync: z
    .strictObject({
      pollMs: positiveMilliseconds.default(1_000),
      rollbackWindow: z.union([z.literal('off'), z.literal('on'), z.boolean()]).default('off'),
      attempts: z.int().min(1).max(50).default(5).describe('Tries before a record becomes a dead letter.'),
    })
    .prefault({}),
});

export type ParsedConfig = z.output<typeof configSchema>;
export type RestConnectorConfig = z.output<typeof restConnectorSchema>;
export type RecordConfig = z.output<typeof recordSchema>;
export type IdentityRule = z.output<typeof identityRule>;
export type PartitionRule = z.output<typeof partitionRule>;
export type CohortConfig = z.output<typeof cohortSchema>;

type DeepReadonly<T> = T extends (infer Item)[]
  ? readonly DeepReadonly<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
    : T;

/** What the program runs on: parsed, completed with defaults, and frozen. */
export type Config = DeepReadonly<ParsedConfig>;
