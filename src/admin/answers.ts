/** What the admin API answers, as schemas: the CLI parses answers with them, OpenAPI is made from them. */
import { z } from 'zod';
import { cohortSchema } from '../config/schema.ts';
import { flipStates, partitionOutcomes } from '../core/flip.ts';
import { sourceKinds } from '../core/restore.ts';
import { attributesSchema } from '../ledger/records.ts';
import { failing } from './failing-answer.ts';

export const store = z.enum(['legacy', 'app']);
const phase = z.enum(['open', 'fenced', 'committed']);
export const count = z.int().min(0);
export const milliseconds = z.number();
export const next = z.string().optional().describe('Cursor of the next page; absent on the last.');

const blocker = z.object({ code: z.string(), detail: z.string() });
const blockedPartition = blocker.extend({ partition: z.string() });

export const countsAnswer = z.object({
  total: count,
  byOwner: z.object({ legacy: count, app: count }),
  byPhase: z.object({ open: count, fenced: count, committed: count }),
  writes: z.object({ app: count, fenced: count, legacy: count }).describe('Where writes go now.'),
  longestFenceMs: milliseconds,
});

export const partitionAnswer = z.object({
  partition: z.string(),
  owner: store,
  phase,
  epoch: z.int(),
  changedAtMs: milliseconds.describe('Of the last transition, by the Redis clock; 0 where there was none.'),
  attributes: attributesSchema,
});
export const registryAnswer = z.object({
  known: count,
  complete: z.boolean().describe('It names everybody who lives in legacy; only then is anybody else new.'),
  newPartitions: store.describe('Where new partitions should begin.'),
  detail: z.string(),
});
export const partitionsAnswer = z.object({
  partitions: z.array(partitionAnswer),
  registry: registryAnswer,
  next,
});
export const importAnswer = z.object({
  imported: count,
  known: count,
  complete: z.boolean(),
  users: z
    .object({
      added: count,
      unchanged: count,
      others: z.array(z.string()).describe('Users who belong elsewhere already, and were left there.'),
    })
    .optional(),
});

export const directoryAnswer = z.object({ user: z.string(), partition: z.string() });
export const directorySetAnswer = directoryAnswer.extend({
  before: z.string().optional().describe('The entry of before.'),
  pauseMs: milliseconds.describe('How long the partitions took no write.'),
});

export const doubtAnswer = z.object({
  id: z.string(),
  partition: z.string(),
  member: z.string(),
  store,
  epoch: z.int(),
  method: z.string(),
  path: z.string(),
  why: z.string(),
  atMs: milliseconds,
  settlesAtMs: milliseconds.describe('Until then it may still take effect, by the Redis clock.'),
  resolved: z.object({ by: z.string(), reason: z.string(), atMs: milliseconds }).optional(),
});
export const resolveAnswer = z.object({
  partition: z.string(),
  resolved: z.array(doubtAnswer),
  keysFreed: count,
});

const linkAnswer = z.object({
  partitions: z.tuple([z.string(), z.string()]),
  atMs: milliseconds.describe('When it was first noted, by the Redis clock.'),
  route: z.string().describe('Path of the route whose request joined them; empty where none matched.'),
});
export const linksAnswer = z.object({ links: z.array(linkAnswer), next });
export const forgetLinkAnswer = z.object({ forgotten: linkAnswer });

export const explainAnswer = partitionAnswer.extend({
  user: z.string().optional(),
  known: z.boolean().describe('In the registry, or touched by a transition.'),
  cohorts: z.array(z.string()),
  why: z.object({
    sentence: z.string(),
    version: z.int(),
    transitionId: z.string(),
    atMs: milliseconds,
    by: z.string().optional(),
    reason: z.string().optional(),
  }),
  linkedWith: z
    .array(z.string())
    .describe('Partitions that it is written together with, the first ones; no handoff parts them.'),
  inDoubt: z.array(doubtAnswer).describe('Writes that may still take effect; no flip moves it meanwhile.'),
  openStrays: count.describe('Changes in the store that does not own it; no flip moves it meanwhile.'),
});

export const cohortAnswer = z.object({
  name: z.string(),
  source: z.enum(['file', 'api']),
  selection: cohortSchema,
  counts: countsAnswer,
});
export const cohortsAnswer = z.object({ cohorts: z.array(cohortAnswer) });
export const newcomersAnswer = z
  .object({
    flip: z.string().describe('The last completed flip of the cohort.'),
    to: store,
    count,
    partitions: z.array(z.string()).describe('The first ones.'),
    command: z.string().optional().describe('Plans their move.'),
  })
  .describe('What the cohort selects and is not where its last flip went. Nothing moves them by itself.');
export const cohortPageAnswer = cohortAnswer.extend({
  members: z.array(partitionAnswer),
  newcomers: newcomersAnswer.optional(),
  next,
});
export const cohortPutAnswer = z.object({ name: z.string(), selection: cohortSchema });

export const planAnswer = z.object({
  id: z.string(),
  cohort: z.string(),
  to: store,
  by: z.string(),
  createdAtMs: milliseconds,
  flip: z.array(z.string()),
  unchanged: z.array(z.string()),
  blocked: z.array(blockedPartition),
  blockers: z.array(blocker).describe('Nothing can move while one of these stands.'),
  epochs: z.record(z.string(), z.int()),
  membershipHash: z.string(),
  selection: cohortSchema,
  waveSizes: z.array(z.int()),
  pinnedRoutes: z.array(z.string()).describe('Each with its methods and host, where it has any.'),
  wayBack: z
    .object({ until: z.enum(['always', 'window-closed', 'first-write', 'never']), detail: z.string() })
    .describe('Whether what moves can come back afterwards, and until when.'),
});
export type PlanAnswer = z.output<typeof planAnswer>;

export const flipAnswer = z.object({
  id: z.string(),
  cohort: z.string(),
  to: store,
  state: z.enum(flipStates),
  detail: z.string(),
  by: z.string(),
  reason: z.string(),
  createdAtMs: milliseconds,
  endedAtMs: milliseconds.optional(),
  total: count,
  committed: count,
  aborted: count,
  pending: count,
  blocked: z.array(blockedPartition),
  pauseMs: z.object({ p50: milliseconds, p99: milliseconds, max: milliseconds }).optional(),
});
export type FlipAnswer = z.output<typeof flipAnswer>;
export const flipsAnswer = z.object({ flips: z.array(flipAnswer) });

export const flipPartitionAnswer = z.object({
  partition: z.string(),
  outcome: z.enum(partitionOutcomes),
  attempts: count.describe('Those that count: none is spent on a stale member or on a write in doubt.'),
  pauseMs: milliseconds.optional().describe('From the fence to the release of the attempt that moved it.'),
  stepsMs: z.record(z.string(), milliseconds).optional().describe('How long each step of that attempt took.'),
  proof: z
    .object({
      recordsCompared: count,
      recordsCopied: count,
      passes: count,
      unwritten: z.literal(true).optional(),
    })
    .optional()
    .describe('Why nothing was lost: what the last comparison under the fence saw.'),
  lastFailure: blocker.optional(),
});
export type FlipPartitionAnswer = z.output<typeof flipPartitionAnswer>;
export const flipPartitionsAnswer = z.object({ partitions: z.array(flipPartitionAnswer), next });

export const deadLetterAnswer = z.object({
  letter: z.string().describe('Names it for a retry.'),
  partition: z.string(),
  kind: z.string(),
  id: z.string(),
  reason: z.string(),
  said: z
    .string()
    .optional()
    .describe('The beginning of what the store answered, for operators only: it can hold what users wrote.'),
  atMs: milliseconds.describe('When it last could not be copied.'),
  firstMs: milliseconds.optional().describe('When it first could not.'),
  times: count.describe('How often all attempts were used up.'),
});
export type DeadLetterAnswer = z.output<typeof deadLetterAnswer>;
export const deadLettersAnswer = z.object({ deadLetters: z.array(deadLetterAnswer) });

export const pausesAnswer = z.object({
  pauses: z.array(
    z.object({
      to: store.nullable().describe('Copies to this store; null: all.'),
      by: z.string(),
      reason: z.string(),
      sinceMs: milliseconds,
    }),
  ),
});
export type PausesAnswer = z.output<typeof pausesAnswer>;

export const backfillAnswer = z.object({
  owner: store,
  kind: z.string(),
  phase: z.enum(['looking', 'copying', 'done', 'given-up']),
  records: count.describe("Records of the owner's list that are settled."),
  total: count.nullable().describe('Null where nobody knows how long the list is.'),
  written: count.describe(
    'Of the settled ones, written by this first copy; the others were there, or the live sync has them.',
  ),
  perSecond: z.number().nullable(),
  startedMs: milliseconds,
  endsMs: milliseconds
    .nullable()
    .describe("When it ended, or is expected to, by Redis's clock; null where nobody can tell."),
  restarts: count,
});
export type BackfillAnswer = z.output<typeof backfillAnswer>;

const openStrays = count.describe(
  'Changes in the store that does not own the partition; they stop its flips until somebody says what became of them.',
);
const regression = z
  .object({ detail: z.string(), atMs: milliseconds, by: z.string() })
  .nullable()
  .describe(
    'What the ledger has lost: nothing is admitted, copied or moved until it is restored, and what is counted here is not to be trusted.',
  );
const troubles = {
  unreachable: z
    .array(z.object({ store, detail: z.string() }))
    .describe('Stores to which the admin process cannot open a connection now.'),
  pollFailure: z
    .object({ sinceMs: milliseconds, atMs: milliseconds, detail: z.string() })
    .nullable()
    .describe('Why the last poll did not reach its end, and since when none did, by the Redis clock.'),
};
export const syncAnswer = z.object({
  regression,
  lagMs: milliseconds.nullable().describe('Null before the first poll that reached the end.'),
  ...troubles,
  deadLetters: count,
  deleteBrakes: count.describe('Partitions whose deletes are held back.'),
  deletesHeld: z.boolean().describe('Too much was to be deleted over all partitions: no copy is deleted.'),
  openStrays,
  ...pausesAnswer.shape,
  failing,
  backfills: z
    .array(backfillAnswer)
    .describe('First copies under way, and the last that ended of each kind.'),
  webhooks: z.object({
    waiting: count.describe('Records that deliveries named and that nobody has rung for yet.'),
    deliveries: z
      .array(z.object({ store: z.string(), outcome: z.string(), deliveries: count }))
      .describe('Since Redis has counted: stored, double, ignored, full, or why they were refused.'),
  }),
  capabilities: z.array(
    z.object({
      store,
      kind: z.string(),
      byPartition: z.boolean(),
      since: z.boolean(),
      tombstones: z.boolean(),
      versions: z.enum(['field', 'etag', 'none']),
      notWritable: z.string().optional(),
    }),
  ),
});
export type SyncAnswer = z.output<typeof syncAnswer>;

export const memberAnswer = z.object({
  id: z.string(),
  host: z.string(),
  pid: z.int(),
  sequence: z.int(),
  appliedVersion: z.int(),
  configHash: z.string(),
  writeTimeoutMs: milliseconds,
  settleMs: milliseconds,
  inFlight: count,
  inDoubt: count,
  unexpirable: z.boolean().optional().describe('Goes on without the ledger, and is never taken for gone.'),
  silentMs: milliseconds.optional().describe('Since its last heartbeat was seen by this process.'),
});
export const memberRemoveAnswer = z.object({
  id: z.string(),
  host: z.string(),
  pid: z.int(),
  silentMs: milliseconds,
});
export const observerAnswer = z.object({
  id: z.string(),
  host: z.string(),
  pid: z.int(),
  settleMs: milliseconds,
  seenAtMs: milliseconds.describe('By the Redis clock.'),
  silentMs: milliseconds,
});
export const membersAnswer = z.object({
  members: z.array(memberAnswer),
  observers: z
    .array(observerAnswer)
    .describe('Proxies that only observe; while there is one, nothing moves.'),
});

export const statusAnswer = z.object({
  counts: countsAnswer,
  flips: z.array(flipAnswer).describe('Newest first; of one cohort where one was asked for.'),
  lagMs: milliseconds.nullable(),
  ...troubles,
  ...pausesAnswer.shape,
  failing,
  deadLetters: count,
  openStrays,
  inDoubt: z.object({ writes: count, partitions: z.array(z.string()).describe('The first ones.') }),
  members: count,
  registry: registryAnswer,
  newcomers: newcomersAnswer.optional(),
  durabilityGaps: z.array(z.string()),
  windowsClosedByRestore: count.describe(
    'Partitions in the app of which nothing is copied back since a restore.',
  ),
  regression,
});
export type StatusAnswer = z.output<typeof statusAnswer>;

export const restoreAnswer = z.object({
  restored: z.boolean().describe('False for a plan.'),
  from: z.enum(['member', 'export', 'empty']),
  version: z.int().describe('At which the ledger goes on.'),
  partitions: z.object({ legacy: count, app: count, untouched: count }),
  sources: z.array(
    z.object({
      source: z.string(),
      kind: z.enum(sourceKinds),
      version: z.int(),
      partitions: count,
      decided: count.describe('Of how many it was the word that counted.'),
    }),
  ),
  guard: z.object({ asked: count, answered: count }).nullable(),
  conflicts: z.array(z.object({ partition: z.string(), detail: z.string() })).describe('The first ones.'),
  conflictCount: count,
  rollbackWindow: z
    .enum(['on', 'off'])
    .describe('Where it is on, a restore closes it for every partition in the app.'),
  durable: z.boolean(),
});
export type RestoreAnswer = z.output<typeof restoreAnswer>;

export const auditEntryAnswer = z.object({
  id: z.string(),
  atMs: milliseconds,
  actor: z.string(),
  action: z.string(),
  target: z.string(),
  reason: z.string(),
  before: z.unknown(),
  after: z.unknown(),
});
export const auditAnswer = z.object({ entries: z.array(auditEntryAnswer), next });

export const problemAnswer = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  problems: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
  blockers: z.array(blocker).optional(),
  blocked: z.array(blockedPartition).optional(),
});
export type ProblemAnswer = z.output<typeof problemAnswer>;
