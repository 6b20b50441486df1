/**
 * The configuration, in one schema. What an operator writes is parsed here once; the rest of the program
 * sees only the frozen result. Parts of the grammar that are not built yet are parsed too, so that
 * src/config/availability.ts can say "not available yet" instead of "unknown key".
 *
 * Every key has a description: docs/configuration.md and config/schema.json are made from them.
 */
import { z } from 'zod';
import { otherConnector, restConnectorSchema } from './connector.ts';
import { identityRule } from './identity.ts';
import { proxyLimits } from './limits.ts';
import { postgresConnectorSchema } from './postgres.ts';
import { partitionNames, partitionRule, pathEndings } from './partition.ts';
import { readsOfRoute } from './reads.ts';
import { listeningTls, storeShaping } from './shaping.ts';
import { syncSchema } from './sync.ts';
import {
  headerMap,
  method,
  milliseconds,
  path,
  port,
  positiveMilliseconds,
  scalar,
  store,
  url,
} from './terms.ts';
import { webhooksSchema } from './webhook.ts';

export { recordSchema, restConnectorSchema } from './connector.ts';
export type { RecordConfig, RestConnectorConfig } from './connector.ts';
export type { PostgresConnectorConfig, TableConfig } from './postgres.ts';
export { identityRule } from './identity.ts';
export { partitionRule } from './partition.ts';
export type { WebhookConfig, WebhookSignature } from './webhook.ts';

export const proxySchema = z.strictObject({
  host: z.string().default('127.0.0.1').describe('Address the proxy listens on.'),
  port: port.default(8080).describe('Port the proxy listens on; 0 takes a free one.'),
  processes: z
    .int()
    .min(1)
    .max(64)
    .default(1)
    .describe(
      'Processes that take traffic on the one port, each a member of its own: at most one per core. What is limited per process (connections to the stores, connections of clients, held writes) is limited in each of them.',
    ),
  mode: z
    .enum(['enforce', 'observe'])
    .default('enforce')
    .describe(
      'With observe, everything goes to legacy as it came, and what enforcing would do is written down (docs/observe.md). Then stores.app, secret and identity may be left out.',
    ),
  observe: z
    .strictObject({
      users: z
        .enum(['hash', 'plain'])
        .default('hash')
        .describe('How users and partitions stand in the records: as keyed hashes, or as they are.'),
      totalBytes: z
        .int()
        .min(1_048_576)
        .default(1_073_741_824)
        .describe('Size of all records together; the oldest make room for new ones.'),
    })
    .prefault({})
    .describe('The records of an observing proxy, in observe/ below dataDir.'),
  trustedProxies: z
    .array(z.string())
    .default([])
    .describe('Addresses or CIDR ranges of peers whose X-Forwarded-* headers are believed.'),
  forwarded: z
    .boolean()
    .default(false)
    .describe('Requests to stores carry Forwarded (RFC 7239), too; X-Forwarded-* they always carry.'),
  via: z
    .string()
    .regex(/^[A-Za-z0-9._-]+(:\d{1,5})?$/, 'must be a name, like onewriter or edge.example:8080')
    .optional()
    .describe(
      'Name under which the proxy adds itself to the Via header of requests. Left out: it adds nothing.',
    ),
  tls: listeningTls,
  debugHeaders: z.boolean().default(false).describe('Answers carry Onewriter-Store and Onewriter-Epoch.'),
  limits: proxyLimits,
  idempotency: z
    .strictObject({
      enabled: z.boolean().default(true).describe('With false, an Idempotency-Key is only passed on.'),
      keepMs: positiveMilliseconds.default(86_400_000).describe('How long a key and its answer are kept.'),
      keysPerPartition: z
        .int()
        .min(1)
        .max(1_000_000)
        .default(10_000)
        .describe('Keys of one partition that are kept at a time; a write with one more gets 429.'),
    })
    .prefault({})
    .describe('Writes that carry an Idempotency-Key are sent once per key, also over a handoff.'),
});

const token = z
  .strictObject({
    name: z.string().min(1).describe('Who holds the token; the name stands in the audit log.'),
    role: z.enum(['viewer', 'operator', 'approver', 'admin']).describe('What the token may do.'),
    token: z
      .string()
      .min(8, 'must have at least 8 characters')
      .optional()
      .describe('The token itself; give this or sha256.'),
    sha256: z
      .string()
      .regex(/^[0-9a-fA-F]{64}$/, 'must be 64 hex digits')
      .optional()
      .describe('SHA-256 of the token, in hex.'),
  })
  .refine((entry) => (entry.token === undefined) !== (entry.sha256 === undefined), {
    error: 'needs exactly one of token and sha256',
  });

export const adminSchema = z.strictObject({
  host: z.string().default('127.0.0.1').describe('Address the admin API listens on.'),
  port: port.default(8081).describe('Port the admin API listens on; 0 takes a free one.'),
  tokens: z
    .array(token)
    .default([])
    .describe('Bearer tokens with their roles; without any, every call is refused.'),
});

const storeFields = {
  url: url.describe("The store's base URL; a path in it is put before every path."),
  writeTimeoutMs: positiveMilliseconds
    .default(10_000)
    .describe('Total time of a write, from its first byte.'),
  readTimeoutMs: positiveMilliseconds
    .default(30_000)
    .describe('Time until the headers of the answer to a read.'),
  connectTimeoutMs: positiveMilliseconds.default(3_000).describe('Time to open a connection.'),
  connections: z.int().min(1).max(10_000).default(256).describe('Upstream connections per proxy process.'),
  streams: z
    .int()
    .min(0)
    .max(100_000)
    .default(10_000)
    .describe(
      'Upstream connections per proxy process that carry event streams (text/event-stream) as answers to reads. They are not counted among connections; a stream beyond them gets 503.',
    ),
  connector: z
    .discriminatedUnion('kind', [restConnectorSchema, postgresConnectorSchema, otherConnector])
    .optional()
    .describe('How the sync reaches the records of this store.'),
  ...storeShaping,
};

const settleDescription = 'How long a timed-out write may still take effect.';
const guardDescription = 'The store checks the guard headers; they are sent to it.';

export const storesSchema = z.strictObject({
  legacy: z
    .strictObject({
      ...storeFields,
      settleMs: milliseconds.default(30_000).describe(settleDescription),
      guard: z.boolean().default(false).describe(guardDescription),
    })
    .describe('The platform that users move away from.'),
  app: z
    .strictObject({
      ...storeFields,
      settleMs: milliseconds.default(0).describe(settleDescription),
      guard: z.boolean().default(true).describe(guardDescription),
    })
    .describe('The application that users move to.'),
});

export const routeSchema = z.strictObject({
  path: path.describe('Path template: ":name" stands for one segment, "/*" at the end for everything below.'),
  methods: z.array(method).min(1).optional().describe('Methods that match. Left out: all.'),
  host: z
    .string()
    .optional()
    .describe('Host that matches, without a port: a name, or "*.example.org" for every name below it.'),
  query: z
    .record(z.string().min(1), z.string())
    .optional()
    .describe('Query parameters that must have this value; "*" for any.'),
  headers: headerMap.optional().describe('Headers that must have this value; "*" for any.'),
  body: z
    .record(z.string().min(1), scalar)
    .optional()
    .describe(
      'Fields of a JSON body, by their path (a.b), that must have this value; "*" for any. Bodies are read up to 1 MiB; a larger one, and one that is no JSON, does not match, and its request counts as a write.',
    ),
  access: z
    .enum(['read', 'write'])
    .optional()
    .describe('Whether it changes records. Left out: by the method.'),
  store: store.optional().describe('Always goes to this store and belongs to no partition.'),
  anonymous: z.boolean().optional().describe('Needs no identity.'),
  partition: z
    .string()
    .optional()
    .describe(
      'Where the partition stands: user, path.NAME, header.NAME, claim.NAME, query.NAME or body.FIELD.',
    ),
  partitions: z
    .union([z.string(), z.array(z.string()).min(1).max(20)])
    .optional()
    .describe(
      'Where the partitions stand that a request touches together, one place or a list of places: `body.FIELD` with `[*]` for each entry of an array (`body.requests[*].owner`; `body[*].owner` where the body is the array), `query.NAME[*]` (repeated), `query.NAME[,]` (one list), `header.NAME[*]`, or a place as under partition. All of them, and the one under partition, if it is given, must live in one store.',
    ),
  record: z
    .strictObject({
      kind: z.string().describe('Kind of the record, as named under records of the connectors.'),
      id: z.string().describe('Where its id stands: path.NAME, or response.FIELD of the answer.'),
    })
    .optional()
    .describe('What a successful write has changed, so that it is copied at once.'),
  graphql: z
    .literal(true)
    .optional()
    .describe(
      'Requests are GraphQL: one that certainly only queries is a read; a mutation, and what cannot be parsed, is a write.',
    ),
  ...readsOfRoute,
});

const condition = z.union([
  scalar,
  z.strictObject({
    eq: scalar.optional().describe('Equal to.'),
    ne: scalar.optional().describe('Not equal to.'),
    in: z.array(scalar).optional().describe('One of.'),
    gt: z.number().optional().describe('Greater than.'),
    gte: z.number().optional().describe('Greater than or equal to.'),
    lt: z.number().optional().describe('Less than.'),
    lte: z.number().optional().describe('Less than or equal to.'),
  }),
]);

export const cohortSchema = z.union([
  z.strictObject({ partitions: z.array(z.string().min(1)).describe('These partitions.') }),
  z.strictObject({
    percent: z.number().min(0).max(100).describe('This share of the known partitions.'),
    salt: z.string().describe('Another salt selects others.'),
  }),
  z.strictObject({
    where: z
      .record(z.string(), condition)
      .describe('Partitions whose attributes have these values or meet these conditions.'),
  }),
]);

/** Numbers and shares can only be compared among themselves. */
function wavesGrow(waves: readonly string[]): boolean {
  // What is no size has been reported at its own place.
  if (waves.some((wave) => !/^\d+%?$/.test(wave))) return true;
  const grows = (sizes: readonly number[]): boolean =>
    sizes.every((size, at) => at === 0 || size > (sizes[at - 1] ?? 0));
  const shares = waves.filter((wave) => wave.endsWith('%'));
  const numbers = waves.filter((wave) => !wave.endsWith('%'));
  return grows(numbers.map(Number)) && grows(shares.map((share) => Number(share.slice(0, -1))));
}

export const flipSchema = z.strictObject({
  holdMs: positiveMilliseconds.default(5_000).describe('Longest time that a write is held.'),
  fenceMs: positiveMilliseconds.default(3_000).describe('Fence deadline; then the old owner reopens.'),
  drainMs: positiveMilliseconds.default(2_000).describe('Time for running writes to end inside the fence.'),
  maxLagMs: positiveMilliseconds
    .default(2_000)
    .describe(
      'No fence where comparing both sides of the partition takes longer than this (`slow-comparison`): the catch-up inside the fence takes about as long. How far copies are behind does not count.',
    ),
  batch: z.int().min(1).max(1_000).default(100).describe('Partitions that move at the same time.'),
  attempts: z.int().min(1).max(20).default(3).describe('Tries for each partition.'),
  waves: z
    .array(
      z.string().regex(/^([1-9]\d*|(100|[1-9]\d?)%)$/, 'must be a number or a percentage, like "1" or "10%"'),
    )
    .min(1)
    .refine(wavesGrow, { error: 'must grow: each wave counts from the beginning, like "1", "10%", "100%"' })
    .default(['1', '10%', '100%'])
    .describe(
      'Cumulative sizes of the waves: a number of partitions or a share of the cohort. Whatever the last one leaves follows it.',
    ),
});

const ledgerSchema = z.strictObject({
  leaseMs: z.int().min(300).max(600_000).default(10_000).describe('Length of a lease to admit writes.'),
  onLedgerLoss: z
    .enum(['refuse', 'serve-last-known'])
    .default('refuse')
    .describe(
      'What a proxy does with writes when its lease has lapsed: refuse them, or go on by what it knows last. ' +
        'With serve-last-known a proxy that dies must be taken off the list by hand before anything moves.',
    ),
  minReplicas: z
    .int()
    .min(0)
    .max(16)
    .default(0)
    .describe('Replicas that must confirm each transition; cover every one that can be promoted.'),
  acceptLoss: z
    .boolean()
    .default(false)
    .describe('Flips although a failover of Redis could lose a transition.'),
});

export const configSchema = z.strictObject({
  proxy: proxySchema.prefault({}).describe('The proxy, which takes user traffic.'),
  admin: adminSchema.prefault({}).describe('The admin API.'),
  redis: z
    .strictObject({
      url: z
        .string()
        .default('embedded')
        .describe('redis:// or rediss:// URL, or "embedded": a private redis-server under dataDir.'),
    })
    .prefault({})
    .describe(
      'The Redis of the ledger and the queues: Redis 7.0 or later, or Valkey 7.2 or later; tried with Redis 7.0.15.',
    ),
  dataDir: z
    .string()
    .min(1)
    .default('.onewriter')
    .describe('Directory for state; relative to the directory the process was started in.'),
  secret: z.string().min(16, 'must have at least 16 characters').describe('Signs the guard headers.'),
  ledger: ledgerSchema.prefault({}).describe('The map of which store takes whose writes.'),
  stores: storesSchema.describe('The two stores.'),
  identity: z
    .array(identityRule)
    .min(1)
    .describe('How users are recognised; the first rule that applies decides.'),
  partition: z
    .array(partitionRule)
    .min(1)
    .default([{ by: 'user' }])
    .describe('How the partition of a request is found; the first rule that yields one decides.'),
  partitionNames,
  anonymousReads: z
    .enum(['legacy', 'app', 'refuse'])
    .default('legacy')
    .describe('Where reads without an identity go.'),
  newPartitions: store
    .default('legacy')
    .describe(
      'Where partitions that nobody has seen begin. With app, the first write of one makes the app its owner, once `partitions import --complete` has said who lives in legacy; until then they begin in legacy.',
    ),
  routes: z
    .array(routeSchema)
    .default([])
    .describe('Rules for kinds of requests; the first that matches wins.'),
  pathEndings,
  cohorts: z
    .record(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]*$/), cohortSchema)
    .default({})
    .describe(
      'Selections of partitions that move together, by name. A change here needs a restart; more are made while it runs by PUT /v1/cohorts/NAME (role admin, docs/admin-api.md).',
    ),
  flip: flipSchema.prefault({}).describe('How cohorts move.'),
  sync: syncSchema.prefault({}).describe('How the copy is kept up to date.'),
  webhooks: webhooksSchema
    .optional()
    .describe('Where the workers take webhooks of the stores. Left out: nowhere.'),
});

export type ParsedConfig = z.output<typeof configSchema>;
export type PartitionRule = z.output<typeof partitionRule>;

type DeepReadonly<T> = T extends (infer Item)[]
  ? readonly DeepReadonly<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
    : T;

/** What the program runs on: parsed, completed with defaults, and frozen. */
export type Config = DeepReadonly<ParsedConfig>;
