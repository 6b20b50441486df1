/** Strays: changes in the store that does not own a partition, and that no copy of ours made. */
import type { DoubtfulWrite } from './doubt.ts';
import type { StoreName } from './ownership.ts';

export type StrayChange = 'created' | 'changed' | 'deleted';
export const strayResolutions = ['ignored', 'repaired', 'moved'] as const;
export type StrayResolution = (typeof strayResolutions)[number];

export interface NewStray {
  readonly store: StoreName;
  readonly partition: string;
  readonly kind: string;
  readonly record: string;
  readonly change: StrayChange;
  /** Of the content that the copy rule takes; absent where the record is gone. */
  readonly digest?: string | undefined;
  /** JSON of the record as the store holds it, cut; absent where it is gone. */
  readonly holds?: string | undefined;
  /** The same as the owner holds it, to compare with. */
  readonly ownerHolds?: string | undefined;
  readonly owner: StoreName;
  readonly epoch: number;
  /** A write in doubt that took effect late: what was sent, and when. */
  readonly lateWrite?: Pick<DoubtfulWrite, 'id' | 'method' | 'path' | 'atMs'> | undefined;
  /** When the record was read, Redis's clock. */
  readonly foundAtMs: number;
}

export interface Stray extends NewStray {
  readonly id: string;
  readonly state: 'open' | 'resolved';
  readonly resolved?:
    | { readonly how: StrayResolution; readonly by: string; readonly reason: string; readonly atMs: number }
    | undefined;
}

/** The book of strays, for operators and for plans. Open ones are never forgotten. */
export interface StrayDesk {
  /** Oldest first. */
  list(state?: Stray['state']): Promise<readonly Stray[]>;
  get(id: string): Promise<Stray | undefined>;
  /** Undefined where there is none; one that is resolved already stays as it is. */
  resolve(id: string, how: StrayResolution, by: string, reason: string): Promise<Stray | undefined>;
  /** Open ones by partition. */
  open(): Promise<ReadonlyMap<string, number>>;
}

/** The write in doubt that explains the change, if there is one: it was sent to that store and fits. */
export function lateWriteOf(
  stray: Pick<NewStray, 'store' | 'record' | 'change'>,
  doubts: readonly DoubtfulWrite[],
): DoubtfulWrite | undefined {
  const sent = doubts.filter(({ store }) => store === stray.store);
  const named = sent.find(
    ({ method, path }) =>
      namesRecord(path, stray.record) && (method === 'DELETE') === (stray.change === 'deleted'),
  );
  // What creates a record does not name it.
  return named ?? (stray.change === 'created' ? sent.find(({ method }) => method === 'POST') : undefined);
}

function namesRecord(path: string, record: string): boolean {
  return path.split('/').some((segment) => {
    try {
      return decodeURIComponent(segment) === record;
    } catch {
      return segment === record;
    }
  });
}
