/**
 * Moves cohorts to the app one after the other, under load and under whatever else happens, and keeps the
 * population going: a partition that has moved is left after a while for a new one, so that it never runs out.
 */
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { pause } from '../../src/pause.ts';
import type { AdminClient, FlipReport } from './admin-client.ts';
import type { Chance } from './chance.ts';

export interface FlipSettings {
  readonly admin: AdminClient;
  readonly chance: Chance;
  readonly partitions: number;
  readonly users: number;
  readonly say: (line: string) => void;
}

export interface FlipCounts {
  ordered: number;
  completed: number;
  /** Ended, and some partitions stayed where they were. */
  incomplete: number;
  /** Not over after the time that a flip may take; they go on. */
  unfinished: number;
}

/** Where some users are. */
interface Place {
  partition: string;
  /** A flip is about to move it. */
  busy: boolean;
  /** Since when it counts as moved; also where the flip is not over. */
  movedAtMs?: number;
}

const flipWithinMs = 25_000;
/** Users stay this long with a partition that has moved. */
const afterMoveMs = 12_000;
const cli = resolve(import.meta.dirname, '../../src/cli/main.ts');

export class Flips {
  readonly counts: FlipCounts = { ordered: 0, completed: 0, incomplete: 0, unfinished: 0 };
  readonly #settings: FlipSettings;
  /** One place for each partition in use; users belong to places. */
  readonly #places: Place[] = [];
  #made = 0;
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(settings: FlipSettings) {
    this.#settings = settings;
    for (let place = 0; place < settings.partitions; place += 1) {
      this.#places.push({ partition: this.#newPartition(), busy: false });
    }
  }

  partitionOf(user: number): string {
    return this.#places[user % this.#places.length]?.partition ?? '';
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  /** One flip of some partitions that are left; undefined when there is none, or it does not end in time. */
  async flipSome(withinMs: number, byCommandLine = false): Promise<FlipReport | undefined> {
    const { chance } = this.#settings;
    this.#renew();
    const chosen = shuffled(this.#candidates(), chance).slice(0, chance.whole(2, 5));
    for (const place of chosen) place.busy = true;
    return chosen.length === 0 ? undefined : this.#move(chosen, withinMs, byCommandLine);
  }

  /** Lets somebody prepare something for a partition, and flips it that much later. */
  async flipAfter(waitMs: number, prepare: (partition: string) => void): Promise<void> {
    const [place] = shuffled(this.#candidates(), this.#settings.chance);
    if (place === undefined) return;
    place.busy = true;
    prepare(place.partition);
    await pause(waitMs);
    await this.#move([place], flipWithinMs, false);
  }

  /** On a busy machine a handoff can take too long; that all do means that something is broken. */
  async untilOneCompletes(withinMs: number): Promise<boolean> {
    const endMs = performance.now() + withinMs;
    while (performance.now() < endMs) {
      const ended = await this.flipSome(endMs - performance.now());
      if (ended?.state === 'completed') return true;
      await pause(500);
    }
    return false;
  }

  #candidates(): Place[] {
    return this.#places.filter((place) => !place.busy && place.movedAtMs === undefined);
  }

  async #move(
    chosen: readonly Place[],
    withinMs: number,
    byCommandLine: boolean,
  ): Promise<FlipReport | undefined> {
    const { admin } = this.#settings;
    this.counts.ordered += 1;
    const cohort = `cohort-${this.counts.ordered}`;
    const partitions = chosen.map((place) => place.partition);
    const startedMs = performance.now();
    const started = byCommandLine
      ? await this.#startByCommandLine(cohort, partitions, withinMs)
      : await admin.startFlip(cohort, partitions, withinMs);
    const leftMs = withinMs - (performance.now() - startedMs);
    const ended = started && (await admin.untilEnded(started.id, leftMs));
    this.#count(cohort, ended);
    for (const place of chosen) {
      place.busy = false;
      place.movedAtMs = Date.now();
    }
    return ended;
  }

  #count(cohort: string, ended: FlipReport | undefined): void {
    if (ended === undefined) {
      this.counts.unfinished += 1;
      this.#settings.say(`flip of ${cohort}: not over yet`);
    } else {
      if (ended.state === 'completed') this.counts.completed += 1;
      else this.counts.incomplete += 1;
      this.#settings.say(
        `flip of ${cohort}: ${ended.state}, ${ended.committed} moved, ${ended.aborted} stayed`,
      );
    }
  }

  async #run(): Promise<void> {
    const { chance } = this.#settings;
    while (!this.#stopped) {
      await this.flipSome(flipWithinMs, this.counts.ordered % 5 === 4);
      await pause(chance.between(200, 1_500));
    }
  }

  /** Users whose partition moved a while ago begin anew in one that nobody has seen. */
  #renew(): void {
    for (const place of this.#places) {
      if (place.movedAtMs === undefined || Date.now() < place.movedAtMs + afterMoveMs) continue;
      place.partition = this.#newPartition();
      delete place.movedAtMs;
    }
  }

  #newPartition(): string {
    this.#made += 1;
    return `p${this.#made}`;
  }

  /** As an operator would: the cohort is made through the API, the flip is ordered by `onewriter flip`. */
  async #startByCommandLine(
    cohort: string,
    partitions: readonly string[],
    withinMs: number,
  ): Promise<FlipReport | undefined> {
    const { admin } = this.#settings;
    try {
      const reason = 'chaos';
      await admin.call('POST', '/partitions/import', {
        reason,
        partitions: partitions.map((partition) => ({ partition })),
      });
      await admin.call('PUT', `/cohorts/${cohort}`, { selection: { partitions }, reason });
      await this.#runCli([
        'flip',
        '--cohort',
        cohort,
        '--to',
        'app',
        '--reason',
        reason,
        '--yes',
        '--no-wait',
      ]);
    } catch {
      // It could not be reached; the API is tried until it can.
    }
    return admin.startFlip(cohort, partitions, withinMs);
  }

  #runCli(parameters: readonly string[]): Promise<void> {
    const { url, token } = this.#settings.admin;
    return new Promise((ended) => {
      const env = { PATH: process.env['PATH'] ?? '', ONEWRITER_ADMIN: url, ONEWRITER_TOKEN: token };
      const words = ['--disable-warning=ExperimentalWarning', cli, ...parameters, '--timeout', '10s'];
      const child = spawn(process.execPath, words, { env, stdio: 'ignore', timeout: 15_000 });
      child.once('error', () => ended());
      child.once('exit', () => ended());
    });
  }
}

function shuffled<Item>(items: readonly Item[], chance: Chance): Item[] {
  return items
    .map((item) => ({ item, at: chance.next() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item);
}
