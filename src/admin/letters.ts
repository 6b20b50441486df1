/** Calls about records that could not be copied. */
import { z } from 'zod';
import { roleCovers } from './access.ts';
import { deadLetterAnswer, deadLettersAnswer } from './answers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts, DeadLetterEntry } from './parts.ts';
import { reason } from './terms.ts';

export function letterOperations({ letters }: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/dead-letters',
      role: 'viewer',
      summary:
        'Records that could not be copied after all attempts, oldest first; of one partition or of all.',
      query: z.strictObject({ partition: z.string().min(1).optional() }),
      answer: deadLettersAnswer,
      run: async ({ query: { partition }, actor }) => {
        const all = (await letters?.list()) ?? [];
        const listed = all
          .filter((one) => partition === undefined || one.partition === partition)
          .map((one) => (roleCovers(actor.role, 'operator') ? one : withoutSaid(one)));
        return { answer: { deadLetters: listed } };
      },
    }),
    operation({
      method: 'post',
      path: '/dead-letters/:id/retry',
      role: 'operator',
      summary: 'Looks at the record again, under the epoch of now. Copies nothing against the ledger.',
      changes: true,
      body: z.strictObject({ reason }),
      answer: deadLetterAnswer,
      run: async ({ parameters: { id = '' }, body }) =>
        replyOf(await letters?.retry(id), id, {
          action: 'dead-letter.retry',
          why: body.reason,
          after: 'rung',
        }),
    }),
    operation({
      method: 'post',
      path: '/dead-letters/:id/discard',
      role: 'admin',
      summary:
        'Forgets the letter without copying the record, so that it blocks no handoff. A full pass that finds the record different makes it a letter again.',
      changes: true,
      body: z.strictObject({ reason }),
      answer: deadLetterAnswer,
      run: async ({ parameters: { id = '' }, body }) =>
        replyOf(await letters?.discard(id), id, {
          action: 'dead-letter.discard',
          why: body.reason,
          after: null,
        }),
    }),
  ];
}

function withoutSaid(letter: DeadLetterEntry): DeadLetterEntry {
  const { said: _, ...told } = letter;
  return told;
}

function replyOf(
  found: DeadLetterEntry | undefined,
  letter: string,
  { action, why, after }: { readonly action: string; readonly why: string; readonly after: unknown },
): Reply {
  if (found === undefined) {
    const detail = `There is no dead letter ${letter}; "onewriter sync status" (GET /v1/dead-letters) lists them. Nothing was done.`;
    return { problem: { code: 'no-such-dead-letter', detail } };
  }
  const target = `${found.partition} ${found.kind} ${found.id}`;
  // Not its reason: that can be a store's own words about the record, and the log is kept for ever.
  return { answer: found, change: { action, target, reason: why, before: { times: found.times }, after } };
}
