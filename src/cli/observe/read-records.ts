/** Records of observing proxies, from files of any size: added up line by line, in bounded memory. */
import { createReadStream } from 'node:fs';
import { observationLine } from '../../config/observation.ts';
import { observationFormat, type ObservationLine } from '../../core/observation.ts';
import { Tally } from '../../core/tally.ts';

const limits = { pathsMax: 20_000, routesMax: 5_000 };
/** Far longer than any line that is written. */
const lineBytesMax = 4_194_304;

/** Requests that the same rules judged. */
interface Era {
  readonly tally: Tally;
  from: string;
  to: string;
}

/** Sets of rules that are kept apart; those that were used least lately are forgotten but for their number. */
const erasMax = 16;

interface Run {
  /** Requests whose lines were read. */
  lines: number;
  /** As its last summary says. */
  requests: number;
  dropped: number;
  notHttp: number;
}

export interface ReadRecords {
  /** Of the newest rules; of all where that was asked for. */
  readonly tally: Tally;
  /** Fingerprint of the newest rules; undefined where all count, or where no line says. */
  readonly rules: string | undefined;
  /** Requests that older rules judged, and that are left out. */
  readonly earlier: number;
  /** Of what counts. */
  readonly from: string | undefined;
  readonly to: string | undefined;
  /** Requests that the proxies saw, as far as the files tell. */
  readonly seen: number;
  /** Of them, those whose lines the disk did not take; the others that are missing made room. */
  readonly dropped: number;
  readonly notHttp: number;
  /** Lines that are none, or of a later version. */
  readonly unreadable: number;
  readonly users: ReadonlySet<'hash' | 'plain'>;
  readonly hosts: number;
}

export class RecordReader {
  readonly #all: boolean;
  readonly #eras = new Map<string, Era>();
  /** Requests of rules that were forgotten. */
  #forgotten = 0;
  readonly #runs = new Map<string, Run>();
  readonly #users = new Set<'hash' | 'plain'>();
  readonly #hosts = new Set<string>();
  #run: Run = newRun();
  #unreadable = 0;

  /** `all`: what older rules judged counts, too. */
  constructor({ all = false }: { readonly all?: boolean } = {}) {
    this.#all = all;
  }

  /** Rejects where the file cannot be read. */
  async read(path: string): Promise<void> {
    this.#run = newRun();
    for await (const line of linesOf(path)) {
      if (line === '') continue;
      const parsed = line === undefined ? undefined : parse(line);
      if (parsed === undefined) this.#unreadable += 1;
      else this.#take(parsed);
    }
  }

  result(): ReadRecords {
    const runs = [...this.#runs.values()];
    const sum = (of: (run: Run) => number): number => runs.reduce((all, run) => all + of(run), 0);
    const [rules, newest] = [...this.#eras].toSorted(([, a], [, b]) => (a.to < b.to ? 1 : -1))[0] ?? [];
    const tally = newest?.tally ?? new Tally(limits);
    const read =
      this.#forgotten + [...this.#eras.values()].reduce((all, { tally: { requests } }) => all + requests, 0);
    return {
      ...{ tally, from: newest?.from, to: newest?.to, unreadable: this.#unreadable },
      rules: this.#all || rules === '' ? undefined : rules,
      earlier: read - tally.requests,
      // The last lines of a run that died stand behind its last summary.
      seen: Math.max(
        read,
        sum(({ lines, requests }) => Math.max(lines, requests)),
      ),
      dropped: sum(({ dropped }) => dropped),
      notHttp: sum(({ notHttp }) => notHttp),
      ...{ users: this.#users, hosts: this.#hosts.size },
    };
  }

  #eraOf(rules: string, at: string): Era {
    const known = this.#eras.get(rules);
    if (known !== undefined) return known;
    if (this.#eras.size >= erasMax) {
      const [oldest] = [...this.#eras].toSorted(([, a], [, b]) => (a.to < b.to ? -1 : 1));
      if (oldest !== undefined) {
        this.#forgotten += oldest[1].tally.requests;
        this.#eras.delete(oldest[0]);
      }
    }
    const made = { tally: new Tally(limits), from: at, to: at };
    this.#eras.set(rules, made);
    return made;
  }

  #take(line: ObservationLine): void {
    switch (line.type) {
      case 'start':
        if (line.format > observationFormat) this.#unreadable += 1;
        this.#users.add(line.users);
        this.#hosts.add(line.host);
        this.#run = this.#runs.get(line.run) ?? newRun();
        this.#runs.set(line.run, this.#run);
        return;
      case 'request': {
        const { path, rules = '', ...observation } = line;
        const era = this.#eraOf(this.#all ? '' : rules, line.at);
        if (line.at < era.from) era.from = line.at;
        if (line.at > era.to) era.to = line.at;
        era.tally.add(path, observation);
        this.#run.lines += 1;
        return;
      }
      case 'dropped':
        return;
      case 'summary': {
        const { requests, dropped, notHttp } = line;
        const run = this.#runs.get(line.run) ?? newRun();
        this.#runs.set(line.run, run);
        run.requests = Math.max(run.requests, requests);
        run.dropped = Math.max(run.dropped, dropped);
        run.notHttp = Math.max(run.notHttp, notHttp);
      }
    }
  }
}

function newRun(): Run {
  return { lines: 0, requests: 0, dropped: 0, notHttp: 0 };
}

function parse(line: string): ObservationLine | undefined {
  try {
    return observationLine.parse(JSON.parse(line));
  } catch {
    return undefined;
  }
}

/** Undefined stands for a line that is too long to be one. */
async function* linesOf(path: string): AsyncIterable<string | undefined> {
  let begun = '';
  let tooLong = false;
  for await (const chunk of createReadStream(path, 'utf8')) {
    const [first = '', ...more] = String(chunk).split('\n');
    begun = tooLong ? '' : begun + first;
    if (begun.length > lineBytesMax) tooLong = true;
    for (const next of more) {
      yield tooLong ? undefined : begun;
      tooLong = false;
      begun = next;
    }
  }
  // What stands behind the last line break is being written, or was cut off.
  if (begun !== '' || tooLong) yield tooLong ? undefined : begun;
}
