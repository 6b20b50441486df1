/** Verifications: both sides of a cohort compared in the background, and copied again where an operator says so. */
import { z } from 'zod';
import { verificationAnswer, verificationsAnswer } from './findings.ts';
import { noSuchCohort } from './cohorts.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { reason } from './terms.ts';

const startBody = z
  .strictObject({
    cohort: z.string().min(1).max(100),
    sample: z.int().min(1).optional().describe('Compare only so many partitions, picked at random.'),
    seed: z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .optional()
      .describe('Draws the same sample again.'),
    values: z.literal(true).optional().describe('Examples show the values that differ, not only the names.'),
    repair: z
      .literal(true)
      .optional()
      .describe('Rings for what differs, so that it is copied again; needs a reason.'),
    reason: reason.optional(),
  })
  .refine(({ repair, reason: why }) => repair === undefined || why !== undefined, {
    path: ['reason'],
    error: 'must say why something is repaired; it goes to the audit log',
  });

export function verificationOperations(parts: AdminParts): Operation[] {
  const { verifications } = parts;
  return [
    operation({
      method: 'post',
      path: '/verifications',
      role: 'operator',
      summary: 'Compares both sides of a cohort in the background. Changes nothing, unless it is to repair.',
      body: startBody,
      status: 202,
      answer: verificationAnswer,
      run: async ({ actor, body }) => {
        const partitions = await parts.flips.partitionsOf(body.cohort);
        if (partitions === undefined) return noSuchCohort(parts, body.cohort);
        const { reason: why, ...order } = body;
        const started = await verifications.start({ ...order, partitions, by: actor.name });
        if (started === 'too-many') {
          const detail = 'Four verifications are running; wait until one has ended.';
          return { problem: { code: 'too-many-verifications', detail } };
        }
        if (body.repair === undefined) return { answer: started };
        const after = { cohort: body.cohort, partitions: started.partitions };
        const target = started.id;
        const change = { action: 'verification.repair', target, reason: why ?? '', before: null, after };
        return { answer: started, change };
      },
    }),
    operation({
      method: 'get',
      path: '/verifications',
      role: 'viewer',
      summary: 'The verifications of late, newest first.',
      answer: verificationsAnswer,
      run: async () => ({ answer: { verifications: await verifications.list() } }),
    }),
    operation({
      method: 'get',
      path: '/verifications/:id',
      role: 'viewer',
      summary: 'How far a verification is, and what it found.',
      answer: verificationAnswer,
      run: async ({ parameters }) => {
        const verification = await verifications.get(parameters['id'] ?? '');
        return verification === undefined ? noSuchVerification() : { answer: verification };
      },
    }),
    operation({
      method: 'post',
      path: '/verifications/:id/cancel',
      role: 'operator',
      summary: 'Ends a verification; what it has found until then stays readable.',
      changes: true,
      body: z.strictObject({ reason }),
      answer: verificationAnswer,
      run: async ({ parameters, body }) => {
        const id = parameters['id'] ?? '';
        const before = await verifications.get(id);
        const after = await verifications.cancel(id);
        if (before === undefined || after === undefined) return noSuchVerification();
        const change = { before: { state: before.state }, after: { state: after.state } };
        return {
          answer: after,
          change: { action: 'verification.cancel', target: id, reason: body.reason, ...change },
        };
      },
    }),
  ];
}

function noSuchVerification(): Reply {
  const detail =
    'No verification has this id; the last 100 that ended are kept. GET /v1/verifications lists them.';
  return { problem: { code: 'no-such-verification', detail } };
}
