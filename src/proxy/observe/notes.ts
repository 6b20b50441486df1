/**
 * What an observing proxy has seen, on its way to the records: names made unreadable, sums kept beside the lines.
 * Never in the way of a request.
 */
import { createHmac, type KeyObject } from 'node:crypto';
import { hostname } from 'node:os';
import type { Config } from '../../config/schema.ts';
import {
  observationFormat,
  type Observation,
  type ObservationLine,
  type ObservationStart,
  type ObservationSummary,
} from '../../core/observation.ts';
import { maskPath } from '../../core/path-template.ts';
import { Tally } from '../../core/tally.ts';
import type { Log } from '../../log.ts';
import type { ExchangeReport } from './exchange.ts';
import { LineFiles } from './files.ts';
import type { Judgement } from './judge.ts';

export interface NotesSettings {
  /** Where the files are. */
  readonly directory: string;
  /** Random, of this process. */
  readonly run: string;
  /** For hashes of names. */
  readonly key: KeyObject;
  readonly observe: Config['proxy']['observe'];
  readonly log: Log;
  readonly summaryEveryMs?: number;
}

export interface NotesState {
  readonly requests: number;
  readonly written: number;
  readonly dropped: number;
  readonly notHttp: number;
}

/** One request, when it is over. */
export interface Noted {
  /** Fingerprint of those that judged it. */
  readonly rules: string;
  readonly atMs: number;
  readonly durationMs: number;
  readonly method: string;
  /** As the client sent it. */
  readonly target: string;
  readonly judgement: Judgement;
  readonly report: ExchangeReport;
  readonly tooSlow: boolean;
}

const queueBytes = 16_777_216;
const fileBytesMax = 67_108_864;
const defaultSummaryEveryMs = 300_000;
const tallyLimits = { pathsMax: 2_000, routesMax: 500 };
const summaryRowsMax = 300;
const closeWithinMs = 3_000;
const hashLength = 16;

export class Notes {
  readonly #settings: NotesSettings;
  readonly #files: LineFiles;
  readonly #tally = new Tally(tallyLimits);
  readonly #since = new Date();
  readonly #timer: NodeJS.Timeout;
  #summarised = 0;
  notHttp = 0;

  constructor(settings: NotesSettings) {
    this.#settings = settings;
    const { directory, run, observe, log } = settings;
    const { totalBytes } = observe;
    this.#files = new LineFiles({
      ...{ directory, run, totalBytes, queueBytes, log },
      fileBytes: Math.min(fileBytesMax, Math.ceil(totalBytes / 8)),
      opening: () => this.#start(),
      dropped: (count, because): ObservationLine => ({ type: 'dropped', at: now(), count, because }),
    });
    this.#timer = setInterval(() => this.#summarise(), settings.summaryEveryMs ?? defaultSummaryEveryMs);
    this.#timer.unref();
  }

  state(): NotesState {
    const { written, dropped } = this.#files;
    return { requests: this.#tally.requests, written, dropped, notHttp: this.notHttp };
  }

  note({ rules, atMs, durationMs, method, target, judgement, report, tooSlow }: Noted): void {
    const { matched, route, identity, user, partitions, partitionBy, would } = judgement;
    const { status, ended, requestBytes, answerBytes } = report;
    const seen = {
      ...({ type: 'request', at: new Date(atMs).toISOString(), rules, method, route, identity } as const),
      user: user === undefined ? null : this.#name(user),
      partitions: partitions.map((partition) => this.#name(partition)),
      partitionBy: partitionBy ?? null,
      access: matched?.access ?? null,
      accessBy: matched?.accessBy ?? null,
      ...{ would, tooSlow, status: status ?? null, ended, requestBytes, answerBytes },
      durationMs: Math.round(durationMs * 10) / 10,
    };
    const path = this.#tally.add(maskPath(pathOf(target, matched?.path), namedIn(judgement)), seen);
    const { type, at, rules: judgedBy, method: by, ...rest } = seen;
    this.#files.write({ type, at, rules: judgedBy, method: by, path, ...rest } satisfies Observation);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#summarise();
    await this.#files.close(closeWithinMs);
  }

  #summarise(): void {
    const { requests, dropped, notHttp } = this.state();
    const moves = requests + dropped + notHttp;
    if (moves === this.#summarised) return;
    this.#summarised = moves;
    const rows = this.#tally.rows(summaryRowsMax);
    const since = this.#since.toISOString();
    this.#files.write({
      ...({ type: 'summary', run: this.#settings.run, at: now(), since } as const),
      ...{ requests, dropped, notHttp, rows },
    } satisfies ObservationSummary);
  }

  #start(): ObservationStart {
    const { run, observe } = this.#settings;
    const from = { run, at: now(), host: hostname(), pid: process.pid };
    return { type: 'start', format: observationFormat, ...from, users: observe.users };
  }

  #name(name: string): string {
    const { observe, key } = this.#settings;
    if (observe.users === 'plain') return name;
    return `h:${createHmac('sha256', key).update(name).digest('hex').slice(0, hashLength)}`;
  }
}

function now(): string {
  return new Date().toISOString();
}

/** What could not be read as a target is shown as far as it looks like a path. */
function pathOf(target: string, path: string | undefined): string {
  if (path !== undefined) return path;
  return (/^(?:https?:\/\/[^/?#]*)?([^?#]*)/i.exec(target)?.[1] ?? '').slice(0, 2_000);
}

/** What a path may name: parameters of its route first, then whom the request is from and about. */
function namedIn({ matched, user, partitions }: Judgement): ReadonlyMap<string, string> {
  const named = new Map<string, string>();
  if (user !== undefined) named.set(user, 'user');
  for (const partition of partitions) if (partition !== user) named.set(partition, 'partition');
  for (const [name, value] of Object.entries(matched?.route?.parameters ?? {})) named.set(value, name);
  return named;
}
