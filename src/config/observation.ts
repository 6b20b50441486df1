/** Lines of an observing proxy's records, read back: what src/core/observation.ts describes, as schemas. */
import { z } from 'zod';
import { failureKinds, type FailureCode } from '../core/failure.ts';
import {
  endings,
  forwardReasons,
  identityKinds,
  type ObservationLine,
  type ObservedRow,
} from '../core/observation.ts';
import { accessReasons } from '../core/route.ts';

const count = z.int().min(0);
const at = z.iso.datetime();
const store = z.enum(['legacy', 'app']);
const access = z.enum(['read', 'write']);
const failureCode = z.enum(Object.keys(failureKinds) as [FailureCode, ...FailureCode[]]);
const route = z.object({ index: count, path: z.string() }).nullable();

const would = z.discriminatedUnion('do', [
  z.object({ do: z.literal('forward'), store, because: z.enum(forwardReasons) }),
  z.object({ do: z.literal('refuse'), code: failureCode }),
  z.object({ do: z.literal('look-up') }),
  z.object({ do: z.literal('answer') }),
  z.object({ do: z.literal('unknown') }),
]);

export const observedRow = z.object({
  route,
  method: z.string().nullable(),
  path: z.string().nullable(),
  requests: count,
  reads: count,
  writes: count,
  refused: z.record(z.string(), count),
  withoutIdentity: count,
  withoutPartition: count,
  severalPartitions: count,
  partitions: count,
  toApp: count,
  lookUps: count,
  tooSlow: count,
  unanswered: count,
}) satisfies z.ZodType<ObservedRow>;

/** One line. Keys that a later version has added are left out. */
export const observationLine = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('request'),
    at,
    rules: z.string().optional(),
    method: z.string(),
    path: z.string(),
    route,
    identity: z.enum(identityKinds),
    user: z.string().nullable(),
    partitions: z.array(z.string()),
    partitionBy: z.string().nullable(),
    access: access.nullable(),
    accessBy: z.enum(accessReasons).nullable(),
    would,
    tooSlow: z.boolean(),
    status: z.int().nullable(),
    ended: z.enum(endings),
    requestBytes: count,
    answerBytes: count,
    durationMs: z.number().min(0),
  }),
  z.object({
    type: z.literal('start'),
    format: z.int(),
    run: z.string(),
    at,
    host: z.string(),
    pid: z.int(),
    users: z.enum(['hash', 'plain']),
  }),
  z.object({ type: z.literal('dropped'), at, count, because: z.string() }),
  z.object({
    type: z.literal('summary'),
    run: z.string(),
    at,
    since: at,
    requests: count,
    dropped: count,
    notHttp: count,
    rows: z.array(observedRow),
  }),
]) satisfies z.ZodType<ObservationLine>;
