/** Erasures: one partition removed from both stores and from what onewriter keeps, with a receipt. */
import { z } from 'zod';
import type { Erasure, ErasureRefusal } from '../core/erasure.ts';
import type { Log } from '../log.ts';
import { count, milliseconds, store } from './answers.ts';
import type { AuditLog } from './audit.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { name, reason } from './terms.ts';

const records = z.array(z.object({ store, kind: z.string(), records: count }));
const places = z.array(z.object({ place: z.string(), entries: count }));

export const erasurePlanAnswer = z.object({
  look: z.object({
    records: records.describe('Would be deleted.'),
    tombstones: records.describe('Shown as deleted already.'),
    unreadable: records.describe('In lists, but without an id or a partition.'),
    undeletable: records.describe('Of these the connector does not say how they are deleted.'),
    unseen: z.array(store).describe('Stores that have no connector with records.'),
    tookMs: z.number(),
  }),
  forgets: places.describe('What onewriter itself keeps, and would forget.'),
});
export const receiptAnswer = z.object({
  erasure: z.string(),
  partition: z.string(),
  orders: z.array(z.object({ by: z.string(), reason: z.string(), at: z.string() })),
  endedAt: z.string(),
  removed: records,
  forgotten: places,
  kept: z.array(z.object({ place: z.string(), what: z.string() })),
  warnings: z.array(z.string()),
  sha256: z
    .string()
    .describe('Of the other members as JSON, with sorted names and without white space; in hex.'),
});
export const erasureAnswer = z.object({
  id: z.string(),
  partition: z.string().describe('`sha256:` and the SHA-256, in hex, of the id, a line feed, and the name.'),
  state: z.enum(['running', 'done', 'failed']),
  step: z.enum(['erasing', 'looking-again', 'ended']),
  orders: z.array(z.object({ by: z.string(), reason: z.string(), atMs: milliseconds })),
  turns: count.describe('How often the partition was fenced for it.'),
  removed: records,
  forgotten: places,
  trouble: z
    .object({ code: z.string(), detail: z.string() })
    .optional()
    .describe('Why it does not get on, or has failed.'),
  endedAtMs: milliseconds.optional(),
  receipt: receiptAnswer.optional().describe('Once it is done.'),
});
export const erasuresAnswer = z.object({ erasures: z.array(erasureAnswer) });
export type ErasureAnswer = z.output<typeof erasureAnswer>;
export type ErasurePlanAnswer = z.output<typeof erasurePlanAnswer>;

export function erasureOperations({ erasures }: AdminParts): Operation[] {
  if (erasures === undefined) return [];
  return [
    operation({
      method: 'post',
      path: '/erasures/plan',
      role: 'admin',
      summary: 'Counts what an erasure of the partition would remove. Changes nothing.',
      body: z.strictObject({ partition: name }),
      answer: erasurePlanAnswer,
      run: async ({ body }) => {
        const plan = await erasures.plan(body.partition);
        return 'refused' in plan ? refused(plan) : { answer: erasurePlanAnswer.parse(plan) };
      },
    }),
    operation({
      method: 'post',
      path: '/erasures',
      role: 'admin',
      summary:
        'Removes the partition from both stores and from what onewriter keeps, in the background; it cannot be undone. ' +
        'One that is under way is answered, one that has failed is gone on with.',
      changes: true,
      body: z.strictObject({
        partition: name,
        confirm: z.string().describe("The partition's name once more."),
        reason,
      }),
      status: 202,
      answer: erasureAnswer,
      run: async ({ actor, body }) => {
        if (body.confirm !== body.partition) {
          const detail =
            "Nothing was done. Confirm with the partition's name; what is erased cannot be brought back.";
          return { problem: { code: 'not-confirmed', detail } };
        }
        const begun = await erasures.start(body.partition, actor.name, body.reason);
        if ('refused' in begun) return refused(begun);
        const change = { target: begun.partition, before: null, after: { id: begun.id } };
        return {
          answer: erasureAnswer.parse(begun),
          change: { action: 'erasure.order', reason: body.reason, ...change },
        };
      },
    }),
    operation({
      method: 'get',
      path: '/erasures',
      role: 'operator',
      summary: 'The erasures, newest first; with `partition` those of one name.',
      query: z.strictObject({ partition: name.optional() }),
      answer: erasuresAnswer,
      run: async ({ query }) => ({
        answer: erasuresAnswer.parse({ erasures: await erasures.list(query.partition) }),
      }),
    }),
    operation({
      method: 'get',
      path: '/erasures/:id',
      role: 'operator',
      summary: 'How far an erasure is; once it is done, its receipt.',
      answer: erasureAnswer,
      run: async ({ parameters }) => {
        const erasure = await erasures.get(parameters['id'] ?? '');
        if (erasure !== undefined) return { answer: erasureAnswer.parse(erasure) };
        const detail = 'No erasure has this id; "onewriter erase list" (GET /v1/erasures) lists them.';
        return { problem: { code: 'no-such-erasure', detail } };
      },
    }),
  ];
}

/** Whoever ordered it is in the log already; this says what came of it. Names nobody. */
export async function auditErasure(audit: AuditLog, erasure: Erasure, log: Log): Promise<void> {
  const { id, partition, state, trouble, receipt } = erasure;
  const reason = state === 'done' ? 'done' : `${trouble?.code}: it can be ordered again`;
  const entry = { actor: 'erasure', action: `erasure.${state}`, target: partition, reason, before: null };
  await audit.append({ ...entry, after: { id, sha256: receipt?.sha256 } }).catch((error: unknown) => {
    log('warn', 'audit-failed', { action: entry.action, target: partition, cause: String(error) });
  });
}

function refused({ refused: code, detail }: ErasureRefusal): Reply {
  return { problem: { code, detail } };
}
