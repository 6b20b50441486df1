/** What the client is told when its request is not admitted. */
import type { Failure } from '../core/failure.ts';
import { LinkShareSpent } from '../core/links.ts';
import type { Access } from '../core/route.ts';
import type { HoldReason, PartitionOwner } from '../core/ticket.ts';

export const retryAfterSeconds = 1;
/** Partitions named in a sentence; the document lists all of them. */
const namedMax = 5;

const heldTooLong: Readonly<Record<HoldReason, Failure>> = {
  fenced: {
    code: 'fenced',
    detail:
      'The account is being moved and the move took longer than a write may wait. Nothing was sent; try again shortly.',
  },
  committed: notDurable(),
  'not-yet-durable': notDurable(),
  'rules-not-active': {
    code: 'rules-not-active',
    detail:
      'This proxy runs newer or older rules than the others and waits until all run the same. Nothing was sent; try again shortly.',
  },
  unclaimed: {
    code: 'unclaimed',
    detail:
      'Where the new account is kept could not be settled in time. Nothing was sent; try again shortly.',
  },
};

function notDurable(): Failure {
  return {
    code: 'commit-not-durable',
    detail:
      'The record of who owns the account is not confirmed everywhere yet. Nothing was sent; try again shortly.',
  };
}

export function heldFailure(because: HoldReason): Failure {
  return { ...heldTooLong[because], sent: 'no', retryAfterSeconds };
}

/** A write that would have to wait longer than this process lives. */
export const shuttingDown: Failure = {
  code: 'shutting-down',
  detail:
    'This proxy is shutting down and cannot wait for the account any longer. Nothing was sent; try again shortly.',
  sent: 'no',
  retryAfterSeconds,
};

const leaseLapsed: Failure = {
  code: 'lease-lapsed',
  detail:
    'This proxy has lost touch with the ledger and cannot know who owns the record. Nothing was sent; try again shortly.',
  sent: 'no',
  retryAfterSeconds,
};

const ledgerLost: Failure = {
  code: 'lease-lapsed',
  detail:
    'The record of who owns the account has lost data, and writes are refused until an operator has restored it. Nothing was sent; reads go on. Try again later.',
  sent: 'no',
  retryAfterSeconds: 30,
};

/** `trouble`: what the gate says of itself. */
export function leaseFailure(trouble: string | undefined): Failure {
  return trouble?.startsWith('ledger-regressed') === true ? ledgerLost : leaseLapsed;
}

export const directoryUnavailable: Failure = {
  code: 'directory-unavailable',
  detail:
    'The directory that says which partition the user belongs to could not be asked. Nothing was forwarded; try again shortly.',
  retryAfterSeconds,
};

export const holdFull: Failure = {
  code: 'hold-full',
  detail: 'The account is being moved and too many writes wait already. Nothing was sent; try again shortly.',
  sent: 'no',
  retryAfterSeconds,
};

export const nobodyKnowsIt: Failure = {
  code: 'no-partition',
  detail:
    'Nobody knows a partition that the request names, and a request without an identity begins none. Nothing was forwarded and nothing was changed.',
  sent: 'no',
};

export const linkUnavailable: Failure = {
  code: 'link-unavailable',
  detail:
    'The write joins accounts that have not been written together before, and that could not be noted, so a later move could part them. Nothing was sent; try again shortly.',
  sent: 'no',
  retryAfterSeconds,
};

export function linkFailure(error: unknown): Failure {
  if (!(error instanceof LinkShareSpent)) return linkUnavailable;
  return {
    code: 'link-share-spent',
    detail:
      'The write joins accounts that have not been written together before, and the user has joined too many of them within an hour. Nothing was sent; write to each account by itself, or try again later.',
    sent: 'no',
    retryAfterSeconds: error.againAfterSeconds,
  };
}

/** Only names that the request itself holds are in it. */
export function splitFailure(access: Access, partitions: readonly PartitionOwner[]): Failure {
  const named = partitions.slice(0, namedMax).map(({ partition, owner }) => `"${partition}" in ${owner}`);
  const more = partitions.length > namedMax ? ` and ${partitions.length - namedMax} more` : '';
  const live = `live in different stores (${named.join(', ')}${more})`;
  const members = { partitions };
  return access === 'write'
    ? {
        code: 'cross-partition-write',
        detail: `The partitions that the write touches ${live}, and no store can take all of it. Nothing was sent and nothing was changed. Send what belongs to each store by itself, or try again when all of them have moved.`,
        sent: 'no',
        members,
      }
    : {
        code: 'cross-partition-read',
        detail: `The partitions that the request asks for ${live}, and no store has all of them for certain. Nothing was forwarded. Ask for each store's by itself, or try again when all of them have moved.`,
        members,
      };
}
