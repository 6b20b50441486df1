/** What the admin API answers, as schemas: the CLI parses answers with them, OpenAPI is made from them. */
import { z } from 'zod';
import { cohortSchema } from '../config/schema.ts';

const store = z.enum(['legacy', 'app']);
const phase = z.enum(['open', 'fenced', 'committed']);
const count = z.int().min(0);
const milliseconds = z.number();
const scalar = z.union([z.string(), z.number(), z.boolean(), z.null()]);
const next = z.string().optional().describe('Cursor of the next page; absent on the last.');

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
  attributes: z.record(z.string(), scalar),
});
export const partitionsAnswer = z.object({ partitions: z.array(partitionAnswer), next });
export const importAnswer = z.object({ imported: count, known: count });

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
  inDoubt: count.describe(
    'Writes in doubt on all members together; members do not count them per partition.',
  ),
});

export const cohortAnswer = z.object({
  name: z.string(),
  source: z.enum(['file', 'api']),
  selection: cohortSchema,
  counts: countsAnswer,
});
export const cohortsAnswer = z.object({ cohorts: z.array(cohortAnswer) });
export const cohortPageAnswer = cohortAnswer.extend({ members: z.array(partitionAnswer), next });
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
  waves: z.array(z.int()),
  pinnedRoutes: z.array(z.string()),
});
export type PlanAnswer = z.output<typeof planAnswer>;

export const flipAnswer = z.object({
  id: z.string(),
  cohort: z.string(),
  to: store,
  state: z.enum([
    'planned',
    'awaiting-approval',
    'scheduled',
    'running',
    'paused',
    'completed',
    'aborted',
    'failed',
  ]),
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

export const deadLetterAnswer = z.object({
  letter: z.string().describe('Names it for a retry.'),
  partition: z.string(),
  kind: z.string(),
  id: z.string(),
  reason: z.string(),
  atMs: milliseconds,
});
export type DeadLetterAnswer = z.output<typeof deadLetterAnswer>;
export const deadLettersAnswer = z.object({ deadLetters: z.array(deadLetterAnswer) });

export const verificationAnswer = z.object({
  id: z.string(),
  state: z.enum(['running', 'done', 'failed']),
  cohort: z.string(),
  by: z.string(),
  startedAtMs: milliseconds,
  endedAtMs: milliseconds.optional(),
  partitions: count,
  sampledFrom: count.describe('Size of the cohort; larger than `partitions` where a sample was asked for.'),
  compared: count,
  notCopied: count.describe('Partitions whose owner is not copied from any more; nothing to compare.'),
  records: count,
  differences: z.object({
    missing: count,
    extra: count,
    changed: count,
    examples: z.array(
      z.object({
        partition: z.string(),
        difference: z.enum(['missing', 'extra', 'changed']),
        kind: z.string(),
        id: z.string(),
        fields: z.array(z.string()).optional().describe('Names only: values can be personal.'),
      }),
    ),
  }),
  problems: z.array(z.object({ partition: z.string(), detail: z.string() })),
});
export type VerificationAnswer = z.output<typeof verificationAnswer>;

export const syncAnswer = z.object({
  lagMs: milliseconds.nullable().describe('Null before the first poll that reached the end.'),
  deadLetters: count,
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
});
export const membersAnswer = z.object({ members: z.array(memberAnswer) });

export const statusAnswer = z.object({
  counts: countsAnswer,
  flips: z.array(flipAnswer).describe('Newest first; of one cohort where one was asked for.'),
  lagMs: milliseconds.nullable(),
  deadLetters: count,
  members: count,
  durabilityGaps: z.array(z.string()),
});
export type StatusAnswer = z.output<typeof statusAnswer>;
export type CountsAnswer = z.output<typeof countsAnswer>;

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
