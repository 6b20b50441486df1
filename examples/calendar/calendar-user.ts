/**
 * One person of the traffic: creates, moves, cancels and lists own appointments, one request at a time.
 * Every appointment takes a slot that was never used before, so that none can rightly overlap another.
 */
import { Pool } from 'undici';
import type { Ended, JournalEntry, WriteMethod } from './journal.ts';

export interface Proxies {
  readonly urls: readonly string[];
  readonly pools: readonly Pool[];
}

export function openProxies(urls: readonly string[]): Proxies {
  // One request per connection at a time; nothing here ever sends a request twice.
  return { urls, pools: urls.map((url) => new Pool(url, { connections: 64, pipelining: 1 })) };
}

type Outcome = Pick<Ended, 'step' | 'status' | 'code' | 'store'> & { readonly body: unknown };

interface Wish {
  readonly method: WriteMethod | 'GET';
  readonly id?: string;
  readonly title?: string;
}

const requestTimeoutMs = 20_000;
const slotMs = 3_600_000;
const firstSlotMs = Date.UTC(2027, 0, 1);

export class CalendarUser {
  readonly name: string;
  readonly #proxies: Proxies;
  readonly #random: () => number;
  readonly #write: (entry: JournalEntry) => void;
  readonly #run: string;
  #proxy: number;
  #slots = 0;
  #requests = 0;
  /** Appointments this user may change. One whose last write is in doubt is never touched again. */
  #appointments: string[] = [];

  constructor(options: {
    readonly name: string;
    /** Sets the writes of this run apart from those of others. */
    readonly run: string;
    readonly proxies: Proxies;
    readonly proxy: number;
    readonly random: () => number;
    readonly write: (entry: JournalEntry) => void;
  }) {
    this.name = options.name;
    this.#run = options.run;
    this.#proxies = options.proxies;
    this.#proxy = options.proxy;
    this.#random = options.random;
    this.#write = options.write;
  }

  /** One act, from choosing to the journal; never throws. */
  async act(): Promise<void> {
    const chance = this.#random();
    const held = this.#appointments.length;
    const at = Math.floor(this.#random() * held);
    const id = this.#appointments[at];
    if (chance < 0.2) return this.#list();
    if (id === undefined || (chance < 0.6 && held < 200)) return this.#create();
    if (chance < 0.87) return this.#change('PUT', id);
    return this.#change('DELETE', id);
  }

  async #list(): Promise<void> {
    await this.#ask({ method: 'GET' });
  }

  async #create(): Promise<void> {
    const title = this.#newTitle();
    const { outcome } = await this.#ask({ method: 'POST', title });
    const id = idOf(outcome.body);
    if (outcome.step === 'ok' && id !== undefined) this.#appointments.push(id);
  }

  async #change(method: 'PUT' | 'DELETE', id: string): Promise<void> {
    const wish = method === 'PUT' ? { method, id, title: this.#newTitle() } : { method, id };
    const { outcome } = await this.#ask(wish);
    const over = outcome.step === 'unknown' || (outcome.step === 'ok' && method === 'DELETE');
    if (over) this.#appointments = this.#appointments.filter((held) => held !== id);
  }

  /** Sends once, notes both ends; after a broken connection the next request goes to another proxy. */
  async #ask(wish: Wish): Promise<{ outcome: Outcome }> {
    this.#requests += 1;
    const request = this.#requests;
    const proxy = this.#proxies.urls[this.#proxy] ?? '';
    const entry = { user: this.name, proxy, request, ...wish };
    const startMs = performance.now();
    this.#write({ step: 'invoke', at_ms: Date.now(), ...entry });
    const outcome = await this.#send(wish);
    const { body, ...ended } = outcome;
    const id = wish.id ?? idOf(body);
    const tookMs = Math.round(performance.now() - startMs);
    this.#write({ at_ms: Date.now(), ...entry, ...ended, ...(id === undefined ? {} : { id }), tookMs });
    if (ended.status === undefined) this.#proxy = (this.#proxy + 1) % this.#proxies.urls.length;
    if (outcome.step === 'unknown' && wish.method !== 'GET') await this.#reread(wish, entry);
    return { outcome };
  }

  async #send(wish: Wish): Promise<Outcome> {
    const pool = this.#proxies.pools[this.#proxy];
    if (pool === undefined) throw new Error('there is no proxy to send to');
    const path =
      wish.id === undefined
        ? `/api/appointments${wish.method === 'GET' ? '?limit=20' : ''}`
        : `/api/appointments/${wish.id}`;
    try {
      const answer = await pool.request({
        method: wish.method,
        path,
        headers: { 'x-user': this.name, 'content-type': 'application/json' },
        ...(wish.title === undefined ? {} : { body: this.#bodyOf(wish.title) }),
        headersTimeout: requestTimeoutMs,
        bodyTimeout: requestTimeoutMs,
      });
      const text = await answer.body.text();
      const store = answer.headers['onewriter-store'];
      return outcomeOf(answer.statusCode, text, typeof store === 'string' ? store : undefined);
    } catch (error) {
      return brokenOutcome(error);
    }
  }

  /** Looks whether a write in doubt took effect; never repeats it. */
  async #reread(wish: Wish, entry: Wish & { user: string; proxy: string; request: number }): Promise<void> {
    const look: Outcome = await this.#send(
      wish.id === undefined ? { method: 'GET' } : { method: 'GET', id: wish.id },
    );
    const answered = look.status !== undefined && (look.step === 'ok' || look.status === 404);
    const there = JSON.stringify(look.body ?? null).includes(`"${wish.title ?? ''}"`);
    const effect = wish.method === 'DELETE' ? look.status === 404 : there;
    const seen = effect ? 'effect' : 'no-effect';
    this.#write({ step: 'reread', at_ms: Date.now(), ...entry, found: answered ? seen : 'no-answer' });
  }

  #newTitle(): string {
    this.#slots += 1;
    return `${this.#run} ${this.name} ${this.#slots}`;
  }

  #bodyOf(title: string): string {
    const startMs = firstSlotMs + this.#slots * slotMs;
    return JSON.stringify({
      owner_id: this.name,
      title,
      starts_at: new Date(startMs).toISOString(),
      ends_at: new Date(startMs + slotMs).toISOString(),
    });
  }
}

/** Some platforms number their records; everywhere else an id is a text. */
function idOf(body: unknown): string | undefined {
  const id = (body as { id?: unknown } | undefined)?.id;
  return typeof id === 'string' || typeof id === 'number' ? String(id) : undefined;
}

/** An answer that is not 2xx had no effect if it says so, or is a 4xx; all else stays in doubt. */
function outcomeOf(status: number, text: string, store: string | undefined): Outcome {
  let body: unknown;
  try {
    body = text === '' ? undefined : JSON.parse(text);
  } catch {
    body = undefined; // not JSON: judged by its status alone
  }
  const answer = { status, body, ...(store === undefined ? {} : { store }) };
  if (status >= 200 && status < 300) return { step: 'ok', ...answer };
  const { code, sent } = (body ?? {}) as { code?: unknown; sent?: unknown };
  const harmless = sent === undefined ? status < 500 : sent === 'no';
  const named = typeof code === 'string' ? code : `status-${status}`;
  return { step: harmless ? 'fail' : 'unknown', code: named, ...answer };
}

function brokenOutcome(error: unknown): Outcome {
  const code = String((error as { code?: unknown }).code);
  if (code === 'ECONNREFUSED' || code === 'UND_ERR_CONNECT_TIMEOUT') {
    return { step: 'fail', code: 'connection-refused', body: undefined };
  }
  const timedOut = code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT';
  return { step: 'unknown', code: timedOut ? 'timeout' : 'connection-broken', body: undefined };
}
