/**
 * One look at everything that may have changed in the stores that copies are made from. It only rings;
 * workers copy. Changes come from a feed where there is one, from a survey of all records where not, and
 * from going round the partitions where a list exists only by partition.
 */
import { isBeingErased } from '../core/erasure.ts';
import { otherStore, type Ownership, type StoreName } from '../core/ownership.ts';
import {
  type KindCapabilities,
  type Ledger,
  type Page,
  type RecordKey,
  type Registry,
  type StoreReader,
} from '../core/ports.ts';
import type { Backfills } from './backfill.ts';
import type { Backlog } from './backlog.ts';
import { wholePartition } from './backlog.ts';
import type { Brakes } from './brakes.ts';
import type { DeadLetters } from './dead-letters.ts';
import { letterOf } from './dead-letters.ts';
import type { HiddenRecords } from './hidden-records.ts';
import { type FeedFrom, Feeds } from './feeds.ts';
import type { Log } from '../log.ts';
import { patientPages } from './patience.ts';
import type { Progress, Proof } from './progress.ts';
import { leftStore, type RollbackWindow, type WindowView } from './rollback-window.ts';
import { type Survey, type SurveyHooks, surveyKind } from './survey.ts';
import { isInstant, newest, NewestVersion, owedSince } from './versions.ts';

export interface PollParts {
  readonly ledger: Pick<Ledger, 'nowMs'>;
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  readonly targets: readonly StoreName[];
  readonly registry: Pick<Registry, 'note' | 'all' | 'count'>;
  readonly backlog: Backlog;
  readonly backfills: Pick<Backfills, 'begin' | 'mayBegin' | 'isUnderWay'>;
  readonly letters: DeadLetters;
  readonly hidden: Pick<HiddenRecords, 'listed'>;
  /** Where copies go back to the store that partitions have left. */
  readonly window?: Pick<RollbackWindow, 'view'> | undefined;
  readonly brakes: Pick<Brakes, 'list' | 'onAll'>;
  readonly progress: Progress;
  readonly log: Log;
  /** As far as this process has heard; undefined for a partition that no transition touched. */
  readonly ownershipOf: (partition: string) => Ownership | undefined;
  /** Feeds without tombstones show no deletes, so now and then everything is surveyed, ms. */
  readonly surveyEveryMs: number;
}

interface Sides {
  readonly owner: StoreReader;
  readonly copy: StoreReader;
}

/** What is found by a look that began at `nowMs` was not yet to be seen at `unseenSinceMs`. */
interface Unseen {
  readonly unseenSinceMs: number;
  readonly nowMs: number;
}

/** Marks older than this belong to jobs that may have been lost. */
const forgottenMs = 30_000;
const partitionsPerSweep = 50;
const notedPartitionsMax = 200_000;
/** With more missing copies than these a full pass gives way to a first copy. */
const missingMax = 2_000;

export class Poller {
  readonly #parts: PollParts;
  readonly #feeds = new Feeds();
  /** What is found now was not yet to be seen then; undefined before a poll has reached the end. */
  #unseenSinceMs: number | undefined;
  #noted = new Set<string>();
  /** Partitions in the registry at the last poll; nothing ever takes one out. */
  #known = 0;
  #brakesAtMs = 0;
  /** Of the poll under way. */
  #proof: Proof = { seenMs: 0, wholeMs: 0 };
  #window: WindowView | undefined;

  constructor(parts: PollParts) {
    this.#parts = parts;
  }

  /**
   * Throws StoreFailure; what was rung until then stays rung, and no position moves past what was seen. What is
   * `wanted` nowhere, because copies there are halted, is not looked for.
   */
  async poll(signal: AbortSignal, wanted: (to: StoreName) => boolean = () => true): Promise<void> {
    const { backlog, ledger, progress, readers, targets, log } = this.#parts;
    const startedMs = await ledger.nowMs();
    await this.#missLost();
    this.#unseenSinceMs = await progress.reachedMs();
    await backlog.ringForgotten(startedMs, forgottenMs);
    await this.#ringBraked(startedMs);
    if (await backlog.isFull()) {
      log('warn', 'sync.backlog-full', { waiting: await backlog.count() });
      return;
    }
    this.#window = await this.#parts.window?.view();
    let reachedMs: number | undefined = startedMs;
    this.#proof = { seenMs: startedMs, wholeMs: startedMs };
    for (const target of targets) {
      if (target === leftStore && this.#window?.anyOpen !== true) continue;
      if (!wanted(target)) {
        reachedMs = undefined;
        continue;
      }
      const sides = { owner: readers[otherStore(target)], copy: readers[target] };
      const reached = await this.#pollStore(sides, startedMs, signal);
      if (reached === undefined || reachedMs === undefined) reachedMs = undefined;
      else reachedMs = Math.min(reachedMs, reached);
    }
    if (reachedMs === undefined) return;
    const { seenMs, wholeMs } = this.#proof;
    await progress.saveReached(reachedMs, {
      seenMs: Math.min(reachedMs, seenMs),
      wholeMs: Math.min(reachedMs, wholeMs),
    });
  }

  /** The owner may show its records again; then nothing differs, and nothing else would look. */
  async #ringBraked(nowMs: number): Promise<void> {
    const { brakes, backlog, surveyEveryMs } = this.#parts;
    if (nowMs < this.#brakesAtMs + surveyEveryMs) return;
    this.#brakesAtMs = nowMs;
    const held = await brakes.list();
    await backlog.ring(held.map(({ partition }) => wholePartition(partition)));
  }

  async notePartitions(partitions: ReadonlySet<string>): Promise<void> {
    await this.#note(partitions);
  }

  /** Up to when every change was seen; undefined when no look has reached the end yet. */
  async #pollStore(sides: Sides, startedMs: number, signal: AbortSignal): Promise<number | undefined> {
    let sweeping = false;
    let reachedMs: number | undefined = startedMs;
    const failures: unknown[] = [];
    for (const capability of sides.owner.capabilities) {
      const inCopy = sides.copy.capabilities.find(({ kind }) => kind === capability.kind);
      if (inCopy === undefined) continue;
      if (capability.needsPartition === true || inCopy.needsPartition === true) sweeping = true;
      else {
        // One kind that cannot be read must not keep the others waiting.
        try {
          const kindMs = await this.#pollKind(capability, sides, startedMs, signal);
          reachedMs = earlier(reachedMs, kindMs);
        } catch (error) {
          failures.push(error);
        }
      }
    }
    if (sweeping && reachedMs !== undefined) {
      reachedMs = earlier(reachedMs, await this.#sweep(sides, startedMs, failures, signal));
    }
    if (failures.length > 0) throw failures[0];
    // What was written just before the look, a list may show only after it.
    return reachedMs === undefined ? undefined : reachedMs - sides.owner.feedDelayMs;
  }

  /** Up to when every change was seen; undefined when a first copy is under way. */
  async #pollKind(
    { kind, since, tombstones }: KindCapabilities,
    sides: Sides,
    startedMs: number,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const { backfills, progress, surveyEveryMs } = this.#parts;
    const { store } = sides.owner;
    const feed = await progress.feed(store, kind);
    // Before a kind was compared as a whole, nobody can tell since when a copy is missing.
    const unseenMs = feed.fullPassAtMs === 0 ? 0 : (this.#unseenSinceMs ?? 0);
    const passedMs = feed.fullPassAtMs - sides.owner.feedDelayMs;
    const { proven } = feed;
    const isPartial = feed.partial || (proven !== undefined && !isInstant(proven, startedMs));
    const showsAll = since && tombstones && !isPartial;
    const due = startedMs >= feed.fullPassAtMs + surveyEveryMs;
    const copying = await backfills.isUnderWay(store, kind);
    if (since && proven !== undefined && (copying || !due)) {
      const seen = await this.#followFeed({ kind, ...sides, proven, nowMs: startedMs }, unseenMs, signal);
      await progress.saveFeed(store, kind, {
        ...feed,
        proven: newest(proven, feed.seen, startedMs),
        seen: newest(feed.seen, seen, startedMs),
      });
      if (copying) return undefined;
      const wholeMs = Math.min(this.#proof.wholeMs, passedMs);
      // What a feed does not show was seen by the last full pass.
      this.#proof = {
        wholeMs,
        seenMs: showsAll ? this.#proof.seenMs : Math.min(this.#proof.seenMs, wholeMs),
      };
      return isPartial ? feed.fullPassAtMs : startedMs;
    }
    if (copying) return undefined;
    const unseenInPassMs = since && !showsAll ? Math.min(unseenMs, Math.max(0, passedMs)) : unseenMs;
    const versions = new NewestVersion(startedMs);
    const passing = { unseenSinceMs: unseenInPassMs, nowMs: startedMs, onVersion: versions.see };
    const { unversioned, farBehind } = await this.#survey(kind, sides, passing, signal);
    if (farBehind !== undefined) {
      // Before its first page: from here on changes are followed while it runs.
      const head = since ? versions.minuteAgo : undefined;
      if (head !== undefined) {
        await progress.saveFeed(store, kind, { proven: head, fullPassAtMs: 0, partial: unversioned > 0 });
      }
      await backfills.begin(store, kind, farBehind.total);
      return undefined;
    }
    if (!since) {
      await progress.saveFeed(store, kind, { fullPassAtMs: startedMs, partial: false });
      return startedMs;
    }
    await progress.saveFeed(store, kind, {
      fullPassAtMs: startedMs,
      // Seen during the pass is not proven: an older change may have landed on a page already read.
      proven: newest(proven, feed.seen, startedMs),
      seen: newest(feed.seen, versions.version ?? versions.minuteAgo, startedMs),
      partial: unversioned > 0,
    });
    return startedMs;
  }

  /** Rings what changed at or after the proven version less an overlap; returns the newest version seen. */
  #followFeed(from: FeedFrom, unseenSinceMs: number, signal: AbortSignal): Promise<string | undefined> {
    return this.#feeds.read(
      from,
      async (page, fresh) => {
        await this.#notePage(page);
        await this.#ring(fresh, from.owner.store, { unseenSinceMs, nowMs: from.nowMs });
      },
      signal,
    );
  }

  async #survey(
    kind: string,
    sides: Sides,
    { onVersion, ...when }: Unseen & Pick<SurveyHooks, 'onVersion'>,
    signal: AbortSignal,
  ): Promise<Survey> {
    const { backfills, backlog, hidden, letters, log } = this.#parts;
    const { nowMs } = when;
    const { store } = sides.owner;
    const resting = await letters.resting();
    const survey = await surveyKind(
      kind,
      sides,
      {
        includes: (partition) => this.#isCopiedFrom(partition, store),
        onPartitions: (partitions) => this.#note(partitions),
        onVersion,
        onDifferent: async (keys) => {
          const listed = keys.filter((key) => key.listed);
          await hidden.listed(listed, nowMs, sides.owner.feedDelayMs);
          await this.#ring(
            keys.filter((key) => !resting.has(letterOf(key))),
            store,
            when,
          );
          return !(await backlog.isFull());
        },
        missingMax: store === leftStore && (await backfills.mayBegin(store, kind)) ? missingMax : undefined,
      },
      signal,
    );
    if (survey.farBehind === undefined) {
      await this.#parts.brakes.onAll.counted(`${sides.copy.store} ${kind}`, survey.copies);
    }
    const [problem] = survey.problems;
    if (problem !== undefined) {
      log('warn', 'sync.unusable-records', { kind, count: survey.problems.length, first: problem.detail });
    }
    return survey;
  }

  /**
   * Rings the next partitions in turn. Returns when the last whole round had begun. A round that could not read
   * everything that names partitions goes round those that are known, and counts for none.
   */
  async #sweep(
    sides: Sides,
    startedMs: number,
    failures: unknown[],
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const { progress, registry, backlog } = this.#parts;
    const { store } = sides.owner;
    const sweep = await progress.sweep(store);
    const begins = sweep.after === '';
    const unread = begins ? await this.#discover(sides.owner, signal) : [];
    failures.push(...unread);
    const partitions = (await registry.all()).map(({ partition }) => partition).toSorted();
    const behind = partitions.filter((partition) => partition > sweep.after);
    const next = behind.slice(0, partitionsPerSweep);
    await backlog.ring(
      next
        .filter((partition) => this.#isCopiedFrom(partition, store))
        .map((partition) => wholePartition(partition)),
      sweep.reachedMs ?? 0,
    );
    const roundMs = begins ? (unread.length === 0 ? startedMs : undefined) : sweep.startedMs;
    const ended = next.length === behind.length;
    const reachedMs = (ended ? roundMs : undefined) ?? sweep.reachedMs;
    await progress.saveSweep(store, {
      after: ended ? '' : (next.at(-1) ?? ''),
      startedMs: roundMs,
      reachedMs,
    });
    return reachedMs;
  }

  /**
   * Partitions that only the owner's own lists know; where it has none over all, traffic must show them. Returns why
   * lists could not be read.
   */
  async #discover(owner: StoreReader, signal: AbortSignal): Promise<unknown[]> {
    const failures: unknown[] = [];
    for (const { kind, needsPartition } of owner.capabilities) {
      if (needsPartition === true) continue;
      try {
        for await (const page of patientPages(owner, kind, {}, signal)) await this.#notePage(page);
      } catch (error) {
        failures.push(error);
      }
    }
    return failures;
  }

  async #ring(
    keys: readonly (RecordKey & { readonly version?: string | undefined })[],
    owner: StoreName,
    { unseenSinceMs, nowMs }: Unseen,
  ): Promise<void> {
    const owned = keys.filter(({ partition }) => this.#isCopiedFrom(partition, owner));
    const sinceMs = owedSince(
      owned.map(({ version }) => version),
      unseenSinceMs,
      nowMs,
    );
    await this.#parts.backlog.ring(
      owned.map(({ partition, kind, id }) => ({ partition, kind, id })),
      sinceMs,
    );
  }

  /** Only spares jobs that would copy nothing; whether one may copy, the ledger says when it runs. */
  #isCopiedFrom(partition: string, store: StoreName): boolean {
    const ownership = this.#parts.ownershipOf(partition);
    if (ownership !== undefined && isBeingErased(ownership)) return false;
    const owner = ownership?.owner ?? leftStore;
    return owner === store && (owner === leftStore || this.#window?.isClosed(partition) !== true);
  }

  /** A registry with fewer than it had was lost with its ledger, and is told everything anew. */
  async #missLost(): Promise<void> {
    const known = await this.#parts.registry.count();
    if (known < Math.max(this.#known, this.#noted.size)) this.#noted = new Set();
    this.#known = known;
  }

  #notePage(page: Page): Promise<void> {
    return this.#note(new Set(page.records.map(({ partition }) => partition)));
  }

  async #note(partitions: ReadonlySet<string>): Promise<void> {
    const fresh = [...partitions].filter((partition) => !this.#noted.has(partition));
    if (fresh.length === 0) return;
    await this.#parts.registry.note(fresh.map((partition) => ({ partition })));
    if (this.#noted.size > notedPartitionsMax) this.#noted = new Set();
    for (const partition of fresh) this.#noted.add(partition);
  }
}

function earlier(left: number | undefined, right: number | undefined): number | undefined {
  return left === undefined || right === undefined ? undefined : Math.min(left, right);
}
