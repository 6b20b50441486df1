/** Whether copies of a partition may be made now, and which way: the ledger says it, and nothing else does (I3). */
import { otherStore, type StoreName } from '../core/ownership.ts';
import type { Ledger } from '../core/ports.ts';
import { type CopyHand, decideCopy } from '../core/records.ts';
import { leftStore, type RollbackWindow } from './rollback-window.ts';
import type { Writers } from './writers.ts';

export interface DirectionParts {
  readonly ledger: Pick<Ledger, 'read' | 'readMany'>;
  /** What the ledger has lost, asked at that moment; undefined while it is sound. */
  readonly lost: () => Promise<string | undefined>;
  readonly writers: Writers;
  /** Only where copies go back to the store that users have left. */
  readonly window?: Pick<RollbackWindow, 'isClosed' | 'closed'> | undefined;
}

export type CopyRefused = {
  readonly copied: 'no';
  readonly because: string;
  /** `later`: look again soon; `never`: not while the partition stays where it is. */
  readonly when: 'later' | 'never';
  /** It was only the copy lock that another hand had. */
  readonly lockTaken?: boolean;
};

/** Thrown inside a session and turned into a refusal at its edge. */
export class SessionOver extends Error {
  readonly refused: CopyRefused;
  constructor(refused: CopyRefused) {
    super(refused.because);
    this.refused = refused;
  }
}

export type SessionResult<T> = { readonly copied: 'yes'; readonly result: T } | CopyRefused;

export interface Direction {
  readonly from: StoreName;
  readonly to: StoreName;
  readonly epoch: number;
}

export async function mayCopy(
  parts: DirectionParts,
  partition: string,
  hand: CopyHand,
): Promise<SessionResult<Direction>> {
  // The second question stands behind the first, so that no loss can come between them unseen.
  const [{ ownership }, lost, closed] = await Promise.all([
    parts.ledger.read(partition),
    parts.lost(),
    parts.window?.isClosed(partition) ?? false,
  ]);
  if (lost !== undefined) return { copied: 'no', because: `the ledger lost data: ${lost}`, when: 'later' };
  const writable = [...parts.writers.keys()].filter((store) => !(closed && store === leftStore));
  const decision = decideCopy(ownership, hand, writable);
  if (decision.copy === 'yes') return { copied: 'yes', result: decision };
  const when = ownership.phase === 'open' ? 'never' : 'later';
  return { copied: 'no', because: decision.because, when };
}

/** Do copies of the partition go on, or have they ended with its rollback window? */
export async function areCopied(
  { writers, window }: Pick<DirectionParts, 'writers' | 'window'>,
  partition: string,
  owner: StoreName,
): Promise<boolean> {
  const target = otherStore(owner);
  if (!writers.has(target)) return false;
  return target !== leftStore || (await window?.isClosed(partition)) !== true;
}
