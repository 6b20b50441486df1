/** What the sync keeps in Redis. All of it can be lost: it is rebuilt from the ledger and the stores. */
import { keyPrefix } from '../ledger/connection.ts';
import type { StoreName } from '../core/ownership.ts';

export const syncKeys = {
  /** Records rung and not yet looked at, by time of the ring. */
  dirty: `${keyPrefix}:sync:dirty`,
  /** Since when the copies of these may be old. */
  owedSince: `${keyPrefix}:sync:dirty:since`,
  /** Where the polls are, and when one last reached the end. */
  progress: `${keyPrefix}:sync:progress`,
  /** Records named by webhooks and not rung for yet; those whose partition must be found first. */
  inbox: `${keyPrefix}:sync:inbox`,
  unplaced: `${keyPrefix}:sync:inbox:unplaced`,
  /** Deliveries of webhooks that were taken, by time. */
  deliveries: `${keyPrefix}:sync:deliveries`,
  deliveryCounts: `${keyPrefix}:sync:deliveries:counts`,
  /** Records that writes through the proxy touched, by time; partitions whose deletes are held back. */
  receipts: `${keyPrefix}:sync:receipts`,
  brakes: `${keyPrefix}:sync:brakes`,
  /** The brake on deletes over all partitions, and what it goes by. */
  brakeOnAll: `${keyPrefix}:sync:brake-on-all`,
  deletesByMinute: `${keyPrefix}:sync:deletes-by-minute`,
  deletesRefused: `${keyPrefix}:sync:deletes-refused`,
  copiesCounted: `${keyPrefix}:sync:copies-counted`,
  deadLetters: `${keyPrefix}:sync:dead-letters`,
  deadLetterOrder: `${keyPrefix}:sync:dead-letters:order`,
  deadLetterCounts: `${keyPrefix}:sync:dead-letters:counts`,
} as const;

/** Pauses that operators have ordered. */
export const haltsKey = `${keyPrefix}:sync:halts`;

/** First copies under way: which run of each may write. */
export const backfillKey = `${keyPrefix}:sync:backfill`;
/** How far each first copy is, or was when it ended. */
export const backfillProgressKey = `${keyPrefix}:sync:backfill:progress`;

/** There is one for each kind of record and store that owns them. */
export function backfillName(owner: StoreName, kind: string): string {
  return `${owner} ${kind}`;
}

/** Ids that the target of a first copy may hold already. */
export function knownKey(backfill: string): string {
  return `${keyPrefix}:sync:known:${backfill}`;
}

/** Fields that the records of an owner have. */
export function knownFieldsKey(owner: StoreName): string {
  return `${keyPrefix}:sync:fields:${owner}`;
}

/** Which single deletes of the partition there were lately. */
export function deletesKey(partition: string): string {
  return `${keyPrefix}:sync:deleted:${partition}`;
}

/** Copies that passes over single partitions have seen in that week. */
export function copiesSeenKey(week: number): string {
  return `${keyPrefix}:sync:copies-seen:${week}`;
}

/** One of many small hashes: partitions by record, as far as they are known. */
export function whereKey(store: StoreName, bucket: number): string {
  return `${keyPrefix}:sync:where:${store}:${bucket}`;
}

/** With a partition: of the calls that concern it, where the platform counts them by themselves. */
export function budgetKey(store: StoreName, partition?: string): string {
  return `${keyPrefix}:budget:${store}${partition === undefined ? '' : `:${partition}`}`;
}

export function copyLockKey(partition: string): string {
  return `${keyPrefix}:copying:${partition}`;
}
