/** Calls that plan, order and steer flips. What may be done is the desk's decision; this only speaks for it. */
import { z } from 'zod';
import { flipSchema } from '../config/schema.ts';
import type { FlipStatus, OrderRefusal } from '../core/flip.ts';
import { flipAnswer, flipPartitionsAnswer, flipsAnswer, planAnswer } from './answers.ts';
import { type Call, type Operation, operation, type Reply } from './operation.ts';
import { pageOfNames, pageQuery } from './pages.ts';
import { reason } from './terms.ts';
import type { AdminParts } from './parts.ts';
import { problemOfRefusal } from './problems.ts';

const waves = flipSchema.shape.waves.unwrap().max(100).optional();
const cohort = z.string().min(1).max(100);
const planId = z.string().min(1).max(200).optional();
const order = { cohort, to: z.enum(['legacy', 'app']), waves };
const steering = ['pause', 'resume', 'abort'] as const;

const summaries = {
  pause: 'Starts no further handoff of the flip; those under way end.',
  resume: 'Goes on with a paused flip.',
  abort: 'Ends the flip: handoffs under way reopen at the old owner, what has committed stays.',
};

export function flipOperations(parts: AdminParts): Operation[] {
  const { flips } = parts;
  return [
    operation({
      method: 'post',
      path: '/plans',
      role: 'operator',
      summary: 'What a flip would do, with everything that stands in its way. Changes nothing.',
      body: z.strictObject(order),
      answer: planAnswer,
      run: async ({ actor, body }) => {
        const plan = await flips.plan({ ...body, by: actor.name });
        return 'refused' in plan ? { problem: problemOfRefusal(plan) } : { answer: plan };
      },
    }),
    operation({
      method: 'post',
      path: '/flips',
      role: 'operator',
      summary: 'Starts a flip, and answers at once with its id.',
      changes: true,
      body: z.strictObject({ ...order, reason, planId }),
      status: 202,
      answer: flipAnswer,
      run: async ({ actor, body }) =>
        replyOf(await flips.start({ ...body, by: actor.name }), 'flip.start', body.reason, null),
    }),
    operation({
      method: 'post',
      path: '/rollbacks',
      role: 'operator',
      summary:
        'Hands the partitions of a cohort that took no write since their move back to legacy, as a flip.',
      changes: true,
      body: z.strictObject({
        cohort,
        waves,
        reason,
        confirm: z.string().max(100).optional().describe('The name of the cohort once more.'),
        planId,
      }),
      status: 202,
      answer: flipAnswer,
      run: async ({ actor, body: { confirm, ...body } }) => {
        if (confirm !== undefined && confirm !== body.cohort) return notConfirmed(body.cohort);
        const started = await flips.start({ ...body, to: 'legacy', by: actor.name });
        return replyOf(started, 'rollback.start', body.reason, null);
      },
    }),
    operation({
      method: 'get',
      path: '/flips',
      role: 'viewer',
      summary: 'All flips, newest first.',
      answer: flipsAnswer,
      run: async () => ({ answer: { flips: newestFirst(await flips.flips()) } }),
    }),
    operation({
      method: 'get',
      path: '/flips/:id',
      role: 'viewer',
      summary: 'How far a flip is.',
      answer: flipAnswer,
      run: async ({ parameters }) => {
        const flip = await flips.flip(parameters['id'] ?? '');
        return flip === undefined ? noSuchFlip() : { answer: flip };
      },
    }),
    operation({
      method: 'get',
      path: '/flips/:id/partitions',
      role: 'viewer',
      summary: 'What each partition of a flip went through: attempts, last failure, pause, steps, proof.',
      query: pageQuery,
      answer: flipPartitionsAnswer,
      run: async ({ parameters, query }) => {
        const id = parameters['id'] ?? '';
        const partitions = await flips.flipPartitions(id);
        if (partitions === undefined) return noSuchFlip();
        const { names, ...next } = pageOfNames(partitions, query.cursor, query.limit);
        return { answer: { partitions: await flips.flipReports(id, names), ...next } };
      },
    }),
    ...steering.map((action) =>
      operation({
        method: 'post',
        path: `/flips/:id/${action}`,
        role: 'operator',
        summary: summaries[action],
        changes: true,
        body: z.strictObject({ reason }),
        answer: flipAnswer,
        run: (call) => steer(parts, action, call),
      }),
    ),
  ];
}

export function newestFirst(flips: readonly FlipStatus[]): FlipStatus[] {
  return flips.toSorted((left, right) => right.createdAtMs - left.createdAtMs);
}

async function steer(
  { flips }: AdminParts,
  action: (typeof steering)[number],
  { parameters, actor, body }: Call<unknown, { reason: string }>,
): Promise<Reply> {
  const id = parameters['id'] ?? '';
  const before = await flips.flip(id);
  if (before === undefined) return noSuchFlip();
  return replyOf(await flips[action](id, actor.name, body.reason), `flip.${action}`, body.reason, before);
}

function replyOf(
  outcome: FlipStatus | OrderRefusal,
  action: string,
  why: string,
  before: FlipStatus | null,
): Reply {
  if ('refused' in outcome) return { problem: problemOfRefusal(outcome) };
  const change = {
    action,
    target: outcome.id,
    reason: why,
    before: before === null ? null : brief(before),
    after: brief(outcome),
  };
  return { answer: outcome, change };
}

/** What the audit log keeps of a flip: the numbers, not the names of all partitions. */
function brief({ cohort, to, state, total, committed, aborted, pending, blocked }: FlipStatus) {
  return { cohort, to, state, total, committed, aborted, pending, blocked: blocked.length };
}

function notConfirmed(cohort: string): Reply {
  const detail = `Nothing was done: "confirm" is not the name of the cohort, ${cohort}. Check which one you mean.`;
  return { problem: { code: 'not-confirmed', detail } };
}

function noSuchFlip(): Reply {
  return {
    problem: {
      code: 'no-such-flip',
      detail: 'No flip has this id; "onewriter status" (GET /v1/flips) lists them.',
    },
  };
}
