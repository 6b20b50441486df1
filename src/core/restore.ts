/**
 * What a restored ledger says of one partition, worked out from everything that is still known of it: the
 * record with the highest epoch decides who owns it, and the new epoch is above all of them. Two sources that
 * name different owners under the same epoch are a conflict, which only a person can decide.
 */
import { firstEpoch, type Ownership, type StoreName } from './ownership.ts';

export const sourceKinds = ['member', 'kept-view', 'export', 'ledger', 'guard'] as const;
export type SourceKind = (typeof sourceKinds)[number];

/** What one source knows of one partition. */
export interface Evidence {
  /** For people: which member, which file. */
  readonly source: string;
  readonly kind: SourceKind;
  readonly epoch: number;
  /** Undefined where the source knows of the epoch only. */
  readonly owner: StoreName | undefined;
  /** It decides only where nothing else is as new. */
  readonly weak?: boolean;
}

export type Restored =
  /** As if no transition had ever touched it; nothing has to be written. */
  | { readonly restored: 'untouched' }
  | {
      readonly restored: 'open';
      readonly owner: StoreName;
      readonly epoch: number;
      readonly because: Evidence;
    }
  | { readonly restored: 'conflict'; readonly detail: string };

/** Somebody may know of a few transitions that no source has. */
export const epochsAbove = 10;

/**
 * Epochs and versions are counted one by one, so nothing true comes near it; what is above was spoilt. Scripts in
 * Redis write numbers with 14 digits: above those a ledger that takes such a number can never be changed again.
 */
export const countedMax = 10_000_000_000_000;

/** A fence that has not committed leaves the partition where it was. */
export function evidenceOf(ownership: Ownership, source: string, kind: SourceKind): Evidence {
  const { epoch, owner } = ownership;
  return { source, kind, epoch, owner };
}

/** What the guard of the app knows. Guards of other make may say less. */
export function evidenceOfGuard(row: {
  readonly epoch?: number | undefined;
  readonly owner?: StoreName | undefined;
  readonly closed?: boolean | undefined;
  readonly written?: boolean | undefined;
}): Evidence | undefined {
  const { epoch, owner, closed, written } = row;
  if (epoch === undefined || epoch === 0) return undefined;
  const evidence = { source: 'the guard of the app', kind: 'guard', epoch } as const;
  // Open: it accepted a user's write, or a copy from legacy, under just this epoch.
  if (closed === false && owner !== undefined) return { ...evidence, owner };
  // Sealed, or advanced since, and no write accepted: going back to legacy loses nothing, whatever came next.
  if (owner === 'app' && written === false) return { ...evidence, owner: 'legacy', weak: true };
  return { ...evidence, owner: undefined };
}

/** `prefer`: the kind of source that decides a conflict, where it has something to say. */
export function restorePartition(
  evidence: readonly Evidence[],
  defaultOwner: StoreName,
  prefer: SourceKind | undefined,
): Restored {
  const highest = Math.max(firstEpoch, ...evidence.map(({ epoch }) => epoch));
  const beyond = evidence.find(({ epoch }) => !(epoch >= 0 && epoch <= countedMax - epochsAbove));
  // No preference decides it: the new epoch must be above this one.
  if (beyond !== undefined) {
    const { source, epoch } = beyond;
    return {
      restored: 'conflict',
      detail: `${source} says epoch ${epoch}, which no ledger can have counted`,
    };
  }
  const top = evidence.filter(({ epoch, weak }) => epoch === highest && weak !== true);
  const weak = evidence.filter((entry) => entry.epoch === highest && entry.weak === true);
  const strong = top.filter(({ owner }) => owner !== undefined);
  const deciding = strong.length > 0 ? strong : weak;
  const owners = new Set(deciding.map(({ owner }) => owner));
  const [only] = deciding;
  if (owners.size === 1 && only?.owner !== undefined) {
    return decided(only, only.owner, highest, defaultOwner);
  }
  if (owners.size === 0 && highest <= firstEpoch) return { restored: 'untouched' };
  const preferred = evidence
    .filter(({ kind, owner }) => kind === prefer && owner !== undefined)
    .toSorted((a, b) => b.epoch - a.epoch)[0];
  if (preferred?.owner !== undefined) return decided(preferred, preferred.owner, highest, defaultOwner);
  if (owners.size > 1) {
    const said = strong.map(({ source, owner }) => `${source} says ${owner}`).join(', ');
    return { restored: 'conflict', detail: `under the same epoch ${highest} ${said}` };
  }
  const who = top[0]?.source ?? 'a source';
  const named = evidence.filter(({ owner }) => owner !== undefined).toSorted((a, b) => b.epoch - a.epoch)[0];
  const known =
    named === undefined
      ? 'nobody knows the owner'
      : `the newest that names an owner is ${named.source} with ${named.owner}, epoch ${named.epoch}`;
  return { restored: 'conflict', detail: `${who} has seen epoch ${highest}, and ${known}` };
}

function decided(because: Evidence, owner: StoreName, highest: number, defaultOwner: StoreName): Restored {
  // A guard that was sealed for a partition that never moved takes its copies only under a higher epoch.
  const asEver = highest <= firstEpoch && owner === defaultOwner && because.weak !== true;
  if (asEver) return { restored: 'untouched' };
  return { restored: 'open', owner, epoch: highest + epochsAbove, because };
}
