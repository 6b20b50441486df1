/** Reads what a list shows of changes since a version, and tells what it had not shown before. */
import type { Page, RecordKey, StoreReader } from '../core/ports.ts';
import type { StoreRecord } from '../core/records.ts';
import { digestOf } from './digest.ts';
import { newlyGone } from './gone.ts';
import { patientPages } from './patience.ts';
import { lessOverlap, NewestVersion } from './versions.ts';

/** How far behind the newest version a feed is read again, beside its own delay. */
export const overlapMs = 2_000;

export interface FeedFrom {
  readonly kind: string;
  readonly owner: StoreReader;
  readonly copy: StoreReader;
  readonly proven: string;
  readonly nowMs: number;
}

/** Of one that is gone the version is not known. */
export type FeedChange = RecordKey & Pick<StoreRecord, 'version'>;

export class Feeds {
  /** What the last reading of each feed showed of each record, so that its overlap is not told again each time. */
  readonly #recent = new Map<string, ReadonlyMap<string, string>>();

  /**
   * Everything from the proven version less the overlap, with the records that are new, not as they were, or gone.
   * Returns the newest version seen that is not ahead of now. Throws as patientPages does.
   */
  async read(
    { kind, owner, copy, proven, nowMs }: FeedFrom,
    onPage: (page: Page, fresh: readonly FeedChange[]) => Promise<void>,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const since = lessOverlap(proven, overlapMs + owner.feedDelayMs, nowMs);
    const feed = `${owner.store} ${kind}`;
    const toldBefore = this.#recent.get(feed);
    const toldNow = new Map<string, string>();
    const seen = new NewestVersion(nowMs);
    for await (const page of patientPages(owner, kind, { since }, signal)) {
      const fresh = page.records.filter((record) => {
        const shown = contentOf(record);
        // Two partitions can have records of one id.
        const place = `${record.partition}\n${record.id}`;
        toldNow.set(place, shown);
        return toldBefore?.get(place) !== shown;
      });
      const gone = await newlyGone(page, kind, copy, { before: toldBefore, now: toldNow }, signal);
      await onPage(page, [...fresh, ...gone]);
      for (const { version } of page.records) seen.see(version);
    }
    this.#recent.set(feed, toldNow);
    return seen.version;
  }
}

/** With the content, because two changes in one second may have one version, and some platforms give none at first. */
function contentOf({ version = '', fields }: StoreRecord): string {
  return `${version} ${digestOf(fields, Object.keys(fields))}`;
}
