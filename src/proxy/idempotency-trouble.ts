/** What the client of a keyed write is told when it was not sent because of its key. */
import type { Failure } from '../core/failure.ts';
import type { FirstWrite, KeyVerdict } from '../core/idempotency.ts';

const sent = 'no' as const;
const retryAfterSeconds = 1;
const notSent = 'This repetition was not sent.';

export type KeyRefusal = Exclude<KeyVerdict, { readonly verdict: 'claimed' | 'answered' }>;

export function refusalOf(verdict: KeyRefusal): Failure {
  switch (verdict.verdict) {
    case 'reused':
      return {
        code: 'idempotency-key-reused',
        detail:
          'Another write was sent with this key: method, target, content type or body differ. This one was not sent and nothing was changed; send it with a key of its own.',
        sent,
      };
    case 'unavailable':
      return unavailable('The memory of keys does not answer');
    case 'pending':
      return {
        code: 'idempotency-pending',
        detail: `The first write with this key is under way at ${verdict.first.owner}. ${notSent} Ask again shortly: you get the answer of the first one.`,
        sent,
        retryAfterSeconds,
        members: membersOf(verdict.first),
      };
    case 'in-doubt':
      return {
        code: 'idempotency-in-doubt',
        detail: `The first write with this key was sent to ${verdict.first.owner}, and whether it took effect is unknown. ${notSent} Look at the record: only if the write is missing, send it with a new key.`,
        sent,
        members: membersOf(verdict.first),
      };
    case 'not-kept':
      return {
        code: 'idempotency-answer-not-kept',
        detail: `The first write with this key was answered with status ${verdict.status} by ${verdict.first.owner}; the answer was too large to keep. ${notSent} Read the record to see what the write made of it.`,
        sent,
        members: { ...membersOf(verdict.first), firstStatus: verdict.status },
      };
    case 'too-many-keys':
      return {
        code: 'idempotency-too-many-keys',
        detail:
          'The account has used as many keys as are remembered at a time. The write was not sent and nothing was changed; wait, or send it without a key.',
        sent,
        retryAfterSeconds: Math.max(1, Math.ceil(verdict.retryAfterMs / 1000)),
      };
  }
}

export function invalidKey(why: string): Failure {
  return {
    code: 'idempotency-key-invalid',
    detail: `The Idempotency-Key was refused: ${why}. The write was not sent and nothing was changed; send it with a key of 1 to 255 bytes, once.`,
    sent,
  };
}

/** `why`: the beginning of a sentence that goes on with "so the write was not sent". */
export function unavailable(why: string): Failure {
  return {
    code: 'idempotency-unavailable',
    detail: `${why}, so the write was not sent and nothing was changed. Try again shortly with the same key.`,
    sent,
    retryAfterSeconds,
  };
}

function membersOf({ owner, epoch, atMs }: FirstWrite): Record<string, unknown> {
  return { store: owner, epoch, firstSentAt: new Date(atMs).toISOString() };
}
