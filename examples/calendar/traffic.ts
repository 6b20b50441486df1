/**
 * The users of the example, as a process of its own: people u1, u2, … who work in their calendars through
 * the proxies, and a journal of what each was told.
 *
 *   node examples/calendar/traffic.ts --proxy http://127.0.0.1:8080[,URL] --users 40 --rate 40 --seconds 30 --journal FILE
 *
 * `--rate` is requests per second of all users together. SIGTERM ends it early. The last line on stdout
 * is a summary in JSON.
 */
import { createWriteStream } from 'node:fs';
import { finished } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { CalendarUser, openProxies } from './calendar-user.ts';
import type { JournalEntry } from './journal.ts';
import { randomFrom } from './network.ts';

export interface TrafficOptions {
  readonly proxies: readonly string[];
  readonly users: number;
  /** Requests per second of all users together. */
  readonly rate: number;
  readonly seed: number;
  /** File that the journal is appended to. */
  readonly journal: string;
  /** 0: until stopped. */
  readonly seconds: number;
  readonly signal?: AbortSignal;
}

export interface TrafficSummary {
  readonly requests: number;
  readonly acknowledgedWrites: number;
  readonly failed: number;
  readonly unknown: number;
  /** Outcomes other than ok, by code. */
  readonly byCode: Readonly<Record<string, number>>;
  readonly writesByStore: Readonly<Record<string, number>>;
  readonly writeMs: { readonly p50: number; readonly p99: number; readonly max: number };
}

/** Runs until the time is over or `signal` fires; then every user ends the request it is in. */
export async function runTraffic(options: TrafficOptions): Promise<TrafficSummary> {
  const file = createWriteStream(options.journal, { flags: 'a' });
  const tally = new Tally();
  const write = (entry: JournalEntry): void => {
    file.write(`${JSON.stringify(entry)}\n`);
    tally.count(entry);
  };
  const ends: AbortSignal[] = options.signal === undefined ? [] : [options.signal];
  if (options.seconds > 0) ends.push(AbortSignal.timeout(options.seconds * 1000));
  const stop = AbortSignal.any(ends);
  const proxies = openProxies(options.proxies);
  const run = `s${options.seed}-${Date.now().toString(36)}`;
  const thinkMs = (options.users / options.rate) * 1000;
  await Promise.all(
    Array.from({ length: options.users }, async (_, at) => {
      const random = randomFrom(options.seed * 1000 + at);
      const name = `u${at + 1}`;
      const proxy = at % options.proxies.length;
      const user = new CalendarUser({ name, run, proxies, proxy, random, write });
      await pause(random() * thinkMs, stop);
      while (!stop.aborted) {
        const startMs = performance.now();
        await user.act();
        const restMs = thinkMs * (0.5 + random()) - (performance.now() - startMs);
        await pause(Math.max(1, restMs), stop);
      }
    }),
  );
  await Promise.all(proxies.pools.map((pool) => pool.close()));
  file.end();
  await finished(file);
  return tally.summary();
}

class Tally {
  #requests = 0;
  #acknowledgedWrites = 0;
  #steps = { fail: 0, unknown: 0 };
  #byCode: Record<string, number> = {};
  #writesByStore: Record<string, number> = {};
  #writeMs: number[] = [];

  count(entry: JournalEntry): void {
    if (entry.step === 'invoke' || entry.step === 'reread') return;
    this.#requests += 1;
    if (entry.step !== 'ok') {
      this.#steps[entry.step] += 1;
      const code = entry.code ?? 'none';
      this.#byCode[code] = (this.#byCode[code] ?? 0) + 1;
    } else if (entry.method !== 'GET') {
      this.#acknowledgedWrites += 1;
      const store = entry.store ?? 'not-told';
      this.#writesByStore[store] = (this.#writesByStore[store] ?? 0) + 1;
      this.#writeMs.push(entry.tookMs);
    }
  }

  summary(): TrafficSummary {
    const sorted = this.#writeMs.toSorted((a, b) => a - b);
    const quantile = (share: number): number => sorted[Math.ceil(sorted.length * share) - 1] ?? 0;
    return {
      requests: this.#requests,
      acknowledgedWrites: this.#acknowledgedWrites,
      failed: this.#steps.fail,
      unknown: this.#steps.unknown,
      byCode: this.#byCode,
      writesByStore: this.#writesByStore,
      writeMs: { p50: quantile(0.5), p99: quantile(0.99), max: sorted.at(-1) ?? 0 },
    };
  }
}

async function pause(milliseconds: number, stop: AbortSignal): Promise<void> {
  await delay(milliseconds, undefined, { signal: stop }).catch(() => undefined);
}

if (import.meta.main) {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    options: { proxy: text, users: text, rate: text, seed: text, journal: text, seconds: text },
  });
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort());
  const summary = await runTraffic({
    proxies: (values.proxy ?? 'http://127.0.0.1:8080').split(','),
    users: Number(values.users ?? 40),
    rate: Number(values.rate ?? 40),
    seed: Number(values.seed ?? 1),
    journal: values.journal ?? 'journal.ndjson',
    seconds: Number(values.seconds ?? 0),
    signal: stop.signal,
  });
  process.stdout.write(`${JSON.stringify(summary)}\n`);
}
