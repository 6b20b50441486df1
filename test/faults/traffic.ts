/**
 * Users at work: each does one thing after the other, through any proxy, on records of its own; several share a
 * partition. Every write carries a token that no other write has. Nothing is ever sent twice.
 */
import { createWriteStream, type WriteStream } from 'node:fs';
import { pause } from '../../src/pause.ts';
import type { Chance } from './chance.ts';
import { type Outcome, send, type Sending } from './client.ts';
import type { HistoryEntry, Invoked, Operation } from './words.ts';

export interface TrafficSettings {
  readonly users: number;
  /** Where the user's records are; asked before each request, so that a user can move on to a new partition. */
  readonly partitionOf: (user: number) => string;
  readonly proxies: readonly { readonly name: string; readonly port: number }[];
  readonly historyPath: string;
  readonly chance: Chance;
  /** Mean pause of a user between two requests, ms. */
  readonly thinkMs: number;
  /** Hears of each request when it has ended. */
  readonly onEnded?: ((invoked: Invoked, outcome: Outcome) => void) | undefined;
}

interface Desk {
  readonly partition: string;
  readonly records: string[];
}

export interface Done extends Outcome {
  readonly request: number;
  readonly token: string;
}

const recordsOfUser = 5;

export class Traffic {
  readonly #settings: TrafficSettings;
  readonly #history: WriteStream;
  readonly #running: Promise<void>[] = [];
  readonly #ends = { ok: 0, fail: 0, unknown: 0 };
  #requests = 0;
  #stopped = false;

  constructor(settings: TrafficSettings) {
    this.#settings = settings;
    this.#history = createWriteStream(settings.historyPath, { flags: 'a' });
  }

  get counts(): { readonly ok: number; readonly fail: number; readonly unknown: number } {
    return { ...this.#ends };
  }

  start(): void {
    for (let user = 0; user < this.#settings.users; user += 1) this.#running.push(this.#work(user));
  }

  /** Resolves when every request has ended and the history is on disk; safe to call twice. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
    if (!this.#history.writableEnded) await new Promise<void>((resolve) => this.#history.end(resolve));
  }

  /** One request outside the users' own work, for tests that need a certain one. */
  async act(order: {
    readonly user: string;
    readonly partition: string;
    readonly operation: Operation;
    readonly record?: string | undefined;
    readonly proxy: { readonly name: string; readonly port: number };
  }): Promise<Done> {
    const { user, partition, operation, record, proxy } = order;
    this.#requests += 1;
    const request = this.#requests;
    const token = `t${request}`;
    const writes = operation === 'read' ? {} : { token };
    const invoked: Invoked = {
      step: 'invoke',
      atMs: Date.now(),
      ...{ request, user, partition, operation, proxy: proxy.name },
      ...(record === undefined ? {} : { record }),
      ...writes,
    };
    this.#note(invoked);
    const outcome = await send({
      port: proxy.port,
      user,
      partition,
      ...callOf(operation, record, token, partition),
    });
    const told = operation === 'read' ? reading(outcome) : outcome;
    this.#ends[told.step] += 1;
    this.#note({ atMs: Date.now(), request, ...told });
    this.#settings.onEnded?.(invoked, told);
    return { ...told, request, token };
  }

  async #work(number: number): Promise<void> {
    const { chance, proxies, partitionOf, thinkMs } = this.#settings;
    let desk: Desk = { partition: '', records: [] };
    while (!this.#stopped) {
      const partition = partitionOf(number);
      if (partition !== desk.partition) desk = { partition, records: [] };
      const operation = this.#choose(desk);
      const record = operation === 'create' ? undefined : chance.oneOf(desk.records);
      const proxy = chance.oneOf(proxies);
      const user = `user${number}`;
      const done = await this.act({ user, partition, operation, record, proxy });
      if (operation === 'create' && done.record !== undefined) desk.records.push(done.record);
      if (operation === 'remove' && done.step !== 'fail')
        desk.records.splice(desk.records.indexOf(record ?? ''), 1);
      // A quick look through the same proxy, which must know of what it has just passed on.
      const look = record ?? done.record;
      if (done.step === 'ok' && operation !== 'read' && look !== undefined && chance.happens(0.3)) {
        await this.act({ user, partition, operation: 'read', record: look, proxy });
      }
      await pause(chance.between(0.2, 1.8) * thinkMs);
    }
  }

  #choose({ records }: Desk): Operation {
    const { chance } = this.#settings;
    if (records.length === 0) return 'create';
    const dice = chance.next();
    if (dice < 0.2 && records.length < recordsOfUser) return 'create';
    if (dice < 0.3) return 'read';
    if (dice < 0.38) return 'remove';
    return 'change';
  }

  #note(entry: HistoryEntry): void {
    // A test that failed may have left a request behind.
    if (this.#history.writableEnded) return;
    this.#history.write(`${JSON.stringify(entry)}\n`);
  }
}

function callOf(
  operation: Operation,
  record: string | undefined,
  token: string,
  partition: string,
): Pick<Sending, 'method' | 'path' | 'token' | 'body'> {
  const path = record === undefined ? '/items' : `/items/${record}`;
  const body = { owner_id: partition, token, text: `written as ${token}` };
  switch (operation) {
    case 'create':
      return { method: 'POST', path, token, body };
    case 'change':
      return { method: 'PUT', path, token, body };
    case 'remove':
      return { method: 'DELETE', path, token };
    case 'read':
      return { method: 'GET', path };
  }
}

/** That a store has no such record is an answer to a read. */
function reading(outcome: Outcome): Outcome {
  const absent = outcome.status === 404 && outcome.store !== undefined;
  return absent ? { ...outcome, step: 'ok', seen: null } : outcome;
}
