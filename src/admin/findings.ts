/** What the calls answer that tell how the stores differ: verifications and strays. */
import { z } from 'zod';
import { strayResolutions } from '../core/stray.ts';
import { count, milliseconds, next, store } from './answers.ts';

export const verificationAnswer = z.object({
  id: z.string(),
  state: z.enum(['running', 'done', 'failed', 'cancelled']),
  cohort: z.string(),
  by: z.string(),
  startedAtMs: milliseconds,
  endedAtMs: milliseconds.optional(),
  partitions: count,
  sampledFrom: count.describe('Size of the cohort; larger than `partitions` where a sample was asked for.'),
  seed: count.optional().describe('Of the sample: the same seed draws the same partitions.'),
  compared: count.describe('Partitions compared; where all are read together, 0 until the end.'),
  notCopied: count.describe('Partitions whose owner is not copied from any more; nothing to compare.'),
  records: count,
  progress: z.object({ done: count, total: count }).describe('Steps; the total can grow.'),
  differences: z.object({
    missing: count,
    extra: count,
    changed: count,
    unconfirmed: count.describe('Beside these: too many to read each again; the lists show them.'),
    examples: z.array(
      z.object({
        partition: z.string(),
        difference: z.enum(['missing', 'extra', 'changed']),
        kind: z.string(),
        id: z.string(),
        fields: z.array(z.string()).optional(),
        values: z
          .array(z.object({ field: z.string(), owner: z.string(), copy: z.string() }))
          .optional()
          .describe('Only where asked for: values can be personal. Each is cut to 200 characters.'),
        repaired: z.boolean().optional(),
      }),
    ),
  }),
  repair: z
    .object({ rung: count, repaired: count })
    .optional()
    .describe('What was repaired is not counted as a difference.'),
  problems: z.array(z.object({ partition: z.string(), detail: z.string() })),
  confidence: z
    .object({ level: z.number(), compared: count, differing: count, atMost: z.number() })
    .optional()
    .describe(
      'Of a sample: with that confidence at most the share `atMost` of all partitions differed (Clopper-Pearson).',
    ),
});
export const verificationsAnswer = z.object({ verifications: z.array(verificationAnswer) });
export type VerificationAnswer = z.output<typeof verificationAnswer>;

export const strayAnswer = z.object({
  id: z.string(),
  state: z.enum(['open', 'resolved']),
  store: store.describe('Where the change was made, which does not own the partition.'),
  partition: z.string(),
  kind: z.string(),
  record: z.string(),
  change: z.enum(['created', 'changed', 'deleted']),
  owner: store,
  epoch: z.int(),
  foundAtMs: milliseconds,
  lateWrite: z
    .object({ id: z.string(), method: z.string(), path: z.string(), atMs: milliseconds })
    .optional()
    .describe('The write in doubt that took effect late; absent where nobody of ours sent it.'),
  holds: z
    .string()
    .optional()
    .describe('What the store holds, cut. Only of a single stray, and in the export.'),
  ownerHolds: z.string().optional().describe('The same of the owner, to compare with.'),
  writtenOver: z
    .boolean()
    .optional()
    .describe(
      "Only of a single stray: the rollback window is open, so once it is resolved what the store holds becomes like the owner's record again.",
    ),
  resolved: z
    .object({ how: z.enum(strayResolutions), by: z.string(), reason: z.string(), atMs: milliseconds })
    .optional(),
});
export type StrayAnswer = z.output<typeof strayAnswer>;
export const straysAnswer = z.object({ strays: z.array(strayAnswer), next });
