/**
 * Restores a ledger that lost data. Everything is written aside, under the mark that refuses every write and
 * every transition; the last step makes it the ledger and lifts the mark, in one moment.
 */
import { randomUUID } from 'node:crypto';
import type { KnownPartition } from '../core/cohort.ts';
import type { StoreName } from '../core/ownership.ts';
import { countedMax, type Restored, type SourceKind } from '../core/restore.ts';
import type { Rules } from '../core/view.ts';
import { pause } from '../pause.ts';
import { keys } from './connection.ts';
import type { LedgerDocument } from './document.ts';
import { exportLedger } from './export.ts';
import { decideAll, type EvidenceParts, type Found, gatherEvidence, GuardSilent } from './evidence.ts';
import type { RedisLedger } from './ledger.ts';
import { closedByRestore } from './closed-window.ts';
import type { RedisLinks } from './links.ts';
import { RestoreTurn, TurnLost } from './restore-turn.ts';

export interface RestoreParts extends Omit<EvidenceParts, 'guard'> {
  readonly ledger: RedisLedger;
  readonly registry: { all(): Promise<KnownPartition[]> };
  readonly links: Pick<RedisLinks, 'all' | 'note'>;
  readonly defaultOwner: StoreName;
  readonly guard: EvidenceParts['guard'];
  /**
   * So long after the loss was noticed every member that lives has said what it knows, and what a member that
   * hangs has admitted has ended and settled, ms.
   */
  readonly quietMs: number;
  /** So long a restore whose process died stands in the way of the next, ms. */
  readonly turnMs?: number;
}

export interface RestoreOrder {
  /** `member`: what the members and the files of this host know; `export`: also the document given. */
  readonly from: 'member' | 'export' | 'empty';
  readonly document: LedgerDocument | undefined;
  /** Only says what would be done. */
  readonly plan: boolean;
  readonly prefer: SourceKind | undefined;
  readonly withoutGuard: boolean;
  readonly evenThoughHealthy: boolean;
  /** The rules look users up in the directory. */
  readonly usesDirectory: boolean;
  /** Although the entries of the users are lost with the ledger. */
  readonly withoutDirectory: boolean;
}

export interface RestoreReport {
  readonly restored: boolean;
  readonly from: RestoreOrder['from'];
  readonly version: number;
  readonly partitions: { readonly legacy: number; readonly app: number; readonly untouched: number };
  readonly sources: readonly {
    readonly source: string;
    readonly kind: SourceKind;
    readonly version: number;
    readonly partitions: number;
    /** Of how many it was the word that counted. */
    readonly decided: number;
  }[];
  readonly guard: { readonly asked: number; readonly answered: number } | null;
  /** The first of them. */
  readonly conflicts: readonly { readonly partition: string; readonly detail: string }[];
  readonly conflictCount: number;
  readonly durable: boolean;
}

export interface RestoreRefusal {
  readonly refused:
    | 'ledger-not-regressed'
    | 'restore-running'
    | 'restore-conflicts'
    | 'nothing-to-restore-from'
    | 'directory-lost'
    | 'guard-silent';
  readonly detail: string;
  readonly conflicts?: RestoreReport['conflicts'];
}

interface WorkedOut {
  readonly report: RestoreReport;
  readonly decided: ReadonlyMap<string, Restored>;
  readonly rules: Rules | undefined;
}

/** A jump that no ledger makes by itself: files that nobody showed us must not be ahead of it. */
const versionsAbove = 1_000_000;
const usualTurnMs = 60_000;
const conflictsNamed = 1_000;

export class LedgerRecovery {
  readonly #parts: RestoreParts;

  constructor(parts: RestoreParts) {
    this.#parts = parts;
  }

  /** What a restore can start from when no member is left. */
  exportLedger(): Promise<Iterable<string>> {
    return exportLedger(this.#parts);
  }

  async restore(order: RestoreOrder): Promise<RestoreReport | RestoreRefusal> {
    if (order.plan) return this.#plan(order);
    const { redis, turnMs = usualTurnMs } = this.#parts;
    const turn = await RestoreTurn.begin(redis, { turnMs, evenThoughHealthy: order.evenThoughHealthy });
    if (turn === 'not-regressed') return notRegressed;
    if (turn === 'running') {
      const detail =
        'Another restore is under way. Nothing was changed; look at "onewriter status" in a moment.';
      return { refused: 'restore-running', detail };
    }
    let done = false;
    try {
      const report = await this.#carryOut(order, turn);
      done = !('refused' in report);
      return report;
    } catch (error) {
      if (!(error instanceof TurnLost)) throw error;
      const detail =
        `The restore was given up (${error.message}). Nothing was changed, and the ledger stays refused. ` +
        'Begin the restore again, unless another one is under way.';
      return { refused: 'restore-running', detail };
    } finally {
      if (!done) await turn.giveUp();
    }
  }

  async #plan(order: RestoreOrder): Promise<RestoreReport | RestoreRefusal> {
    const regression = await this.#parts.ledger.regression();
    if (regression === undefined && !order.evenThoughHealthy) return notRegressed;
    const worked = await this.#workOut(order);
    return 'refused' in worked ? worked : worked.report;
  }

  async #carryOut(order: RestoreOrder, turn: RestoreTurn): Promise<RestoreReport | RestoreRefusal> {
    const { ledger, quietMs } = this.#parts;
    const markedAtMs = (await ledger.regression())?.atMs ?? 0;
    await pause(Math.max(0, markedAtMs + quietMs - (await ledger.nowMs())));
    const worked = await this.#workOut(order);
    if ('refused' in worked) return worked;
    const { report, decided, rules } = worked;
    if (report.conflictCount > 0) {
      const detail =
        `${report.conflictCount} partitions cannot be decided, so nothing was changed. ` +
        'Look into them, then repeat with --prefer and the kind of source that is right.';
      return { refused: 'restore-conflicts', detail, conflicts: report.conflicts };
    }
    const id = randomUUID();
    await this.#writeAside(turn, decided, report.version, id);
    await this.#closeWindows(turn, decided);
    await this.#addKnown(turn, decided.keys(), order.document);
    if (order.document !== undefined) await this.#addFrom(turn, order.document);
    await turn.finish(report.version, id, rules);
    await this.#parts.rescues.clear();
    return { ...report, restored: true, durable: await ledger.confirmDurable() };
  }

  async #workOut(order: RestoreOrder): Promise<WorkedOut | RestoreRefusal> {
    const { registry, defaultOwner, guard, ...parts } = this.#parts;
    if (await this.#losesDirectory(order)) return directoryLost;
    const known = (await registry.all()).map(({ partition }) => partition);
    const asked = { ...parts, guard: order.withoutGuard ? undefined : guard };
    let found: Found;
    try {
      found = await gatherEvidence(asked, order.document, known);
    } catch (error) {
      if (!(error instanceof GuardSilent)) throw error;
      const detail =
        `${error.message}. Nothing was changed. Mend it; or leave it out with --without-guard, where no epoch ` +
        'was used that the other sources do not know.';
      return { refused: 'guard-silent', detail };
    }
    if (
      order.from === 'member' &&
      !found.sources.some(({ kind }) => kind === 'member' || kind === 'kept-view')
    ) {
      const detail =
        'No member has said what it knows, and this host has kept no view of the ledger. Nothing was changed. ' +
        'Restore --from FILE with an export; or --from empty, if everybody is to live at legacy again.';
      return { refused: 'nothing-to-restore-from', detail };
    }
    const beyond = found.sources.find(({ version }) => version > countedMax - versionsAbove);
    if (beyond !== undefined) {
      const detail =
        `${beyond.source} says version ${beyond.version}, which no ledger can have counted, so it is spoilt. ` +
        'Nothing was changed. Restore without it.';
      return { refused: 'restore-conflicts', detail, conflicts: [] };
    }
    const decided = decideAll(found, defaultOwner, { empty: order.from === 'empty', prefer: order.prefer });
    const newest = found.sources.toSorted((a, b) => b.version - a.version);
    const rules = newest.find((source) => source.rules !== undefined)?.rules;
    return { report: reportOf(order, found, decided), decided, rules };
  }

  async #writeAside(
    turn: RestoreTurn,
    decided: ReadonlyMap<string, Restored>,
    version: number,
    id: string,
  ): Promise<void> {
    const changedAtMs = await this.#parts.ledger.nowMs();
    function* records(): Generator<readonly [string, string]> {
      for (const [partition, entry] of decided) {
        if (entry.restored !== 'open') continue;
        const ownership = { phase: 'open', owner: entry.owner, epoch: entry.epoch };
        yield [partition, JSON.stringify({ ...ownership, version, transitionId: id, changedAtMs })];
      }
    }
    await turn.writeAside('partitions', records());
  }

  /** Who had closed which is lost with the ledger: unknown means that nothing is copied back until somebody says so. */
  async #closeWindows(turn: RestoreTurn, decided: ReadonlyMap<string, Restored>): Promise<void> {
    const atMs = await this.#parts.ledger.nowMs();
    const entry = JSON.stringify(closedByRestore(atMs));
    const inApp = [...decided].filter(([, entry]) => entry.restored === 'open' && entry.owner === 'app');
    await turn.writeAside(
      'windows',
      inApp.map(([partition]) => [partition, entry] as const),
    );
  }

  /** Only an export has entries; without them a user counts as somebody whom the directory never knew. */
  async #losesDirectory(order: RestoreOrder): Promise<boolean> {
    if (!order.usesDirectory || order.withoutDirectory || order.document !== undefined) return false;
    return (await this.#parts.redis.hlen(keys.directory)) === 0;
  }

  /** Whoever noted them before the loss takes them for noted. */
  async #addKnown(
    turn: RestoreTurn,
    decided: Iterable<string>,
    document: LedgerDocument | undefined,
  ): Promise<void> {
    const known = new Map<string, string>();
    for (const partition of decided) known.set(partition, '{}');
    for (const [partition, attributes] of document?.known ?? []) {
      known.set(partition, JSON.stringify(attributes));
    }
    await turn.writeAside('registry', known);
  }

  /** What the ledger still has stands: it may be newer than the export. */
  async #addFrom(turn: RestoreTurn, { directory, cohorts, links }: LedgerDocument): Promise<void> {
    await turn.writeAside('directory', directory);
    const byName = new Map(cohorts.map((cohort) => [cohort.name, JSON.stringify(cohort)]));
    await turn.writeAside('cohorts', byName);
    // At once: one too many does no harm, should the restore be given up.
    for (const [route, pairs] of Map.groupBy(links, (link) => link.route)) {
      await this.#parts.links.note(
        pairs.map(({ partitions }) => partitions),
        route,
      );
    }
  }
}

const notRegressed: RestoreRefusal = {
  refused: 'ledger-not-regressed',
  detail:
    'The ledger has not lost anything that anybody knows of, so nothing was changed. If you know better, ' +
    'repeat with --even-though-healthy: every write is refused while it is restored.',
};

const directoryLost: RestoreRefusal = {
  refused: 'directory-lost',
  detail:
    'The rules look users up in the directory, the ledger holds no entry any more, and no export was given that ' +
    'could bring them back. Nothing was changed. Without its entry a user belongs elsewhere, and the next write ' +
    'goes there although the records do not. Restore --from FILE with an export; or take the rules behind the ' +
    'directory out of the configuration and restore --without-directory.',
};

function reportOf(order: RestoreOrder, found: Found, decided: ReadonlyMap<string, Restored>): RestoreReport {
  const partitions = { legacy: 0, app: 0, untouched: 0 };
  const conflicts: { partition: string; detail: string }[] = [];
  const words = new Map<string, number>();
  for (const [partition, entry] of decided) {
    switch (entry.restored) {
      case 'untouched':
        partitions.untouched += 1;
        break;
      case 'conflict':
        conflicts.push({ partition, detail: entry.detail });
        break;
      case 'open':
        partitions[entry.owner] += 1;
        words.set(entry.because.source, (words.get(entry.because.source) ?? 0) + 1);
        break;
    }
  }
  return {
    restored: false,
    from: order.from,
    version: Math.max(...found.sources.map(({ version }) => version)) + versionsAbove,
    partitions,
    sources: found.sources.map(({ source, kind, version, partitions: all }) => ({
      ...{ source, kind, version, partitions: all.size },
      decided: words.get(source) ?? 0,
    })),
    guard: found.guard ?? null,
    conflicts: conflicts.slice(0, conflictsNamed),
    conflictCount: conflicts.length,
    durable: false,
  };
}
