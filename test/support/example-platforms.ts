/** The platforms of docs/connectors-rest.md, as real HTTP servers: in each the ids are given by the server. */
import type { Fields, Json } from '../../src/core/records.ts';
import {
  type HttpPlatform,
  type PlatformAnswer,
  type PlatformCall,
  startHttpPlatform,
} from './http-platform.ts';

export interface ExamplePlatform {
  readonly http: HttpPlatform;
  /** By id. */
  readonly records: Map<string, Fields>;
  titleOf(id: string): string | undefined;
}

export interface ExampleOptions {
  /** Of ids, in the example with HTTP methods; numbers begin at it, in the other one. */
  readonly firstId: number;
  /** The new app, which takes copies under their ids. */
  readonly isApp?: boolean;
}

/** With HTTP methods, pages by number, hard deletes, and tokens that end after two seconds. */
export class AppointmentPlatform implements ExamplePlatform {
  readonly http: HttpPlatform;
  readonly records = new Map<string, Fields>();
  /** By user; who is not in here may write. */
  readonly roles = new Map<string, string>();
  readonly deleted: { readonly id: string; readonly at: string }[] = [];
  tokensGiven = 0;
  readonly #options: ExampleOptions;
  readonly #tokens = new Map<string, number>();
  #next: number;

  private constructor(http: HttpPlatform, options: ExampleOptions) {
    this.http = http;
    this.#options = options;
    this.#next = options.firstId;
  }

  static async start(options: ExampleOptions): Promise<AppointmentPlatform> {
    const http = await startHttpPlatform(() => ({}));
    const platform = new AppointmentPlatform(http, options);
    http.answer = (call) => platform.#answer(call);
    return platform;
  }

  titleOf(id: string): string | undefined {
    return this.records.get(id)?.['title'] as string | undefined;
  }

  #answer(call: PlatformCall): PlatformAnswer {
    if (call.path === '/oauth/token') return this.#token(call);
    const user = this.#userOf(call);
    if (user === undefined) return { status: 401 };
    const [, , what, id] = call.path.split('/');
    if (what === 'members') return this.#setRole(id ?? '', call);
    if (what === 'deleted') return this.#listDeleted(call);
    if (call.method === 'GET') return id === undefined ? this.#list(call) : this.#get(id);
    if (this.roles.get(user) === 'viewer') return { status: 403 };
    return this.#write(call, user, id);
  }

  /** Empty for onewriter itself. */
  #userOf({ headers }: PlatformCall): string | undefined {
    if (headers['x-user'] !== undefined) return String(headers['x-user']);
    if (headers['x-api-key'] === 'app-key') return '';
    const until = this.#tokens.get(headers.authorization?.replace('Bearer ', '') ?? '') ?? 0;
    return until > Date.now() ? '' : undefined;
  }

  #token({ headers, text }: PlatformCall): PlatformAnswer {
    const isKnown = headers.authorization === `Basic ${btoa('onewriter:s3cret')}`;
    const asked = new URLSearchParams(text);
    if (!isKnown || asked.get('scope') !== 'records members') {
      return { status: 401, body: { error: 'invalid_client' } };
    }
    this.tokensGiven += 1;
    const token = `token-${this.tokensGiven}`;
    this.#tokens.set(token, Date.now() + 2_000);
    return { body: { access_token: token, token_type: 'bearer', expires_in: 2 } };
  }

  #setRole(user: string, { text }: PlatformCall): PlatformAnswer {
    this.roles.set(user, (JSON.parse(text) as { role: string }).role);
    return { body: { data: { user } } };
  }

  #listDeleted({ query }: PlatformCall): PlatformAnswer {
    const after = query.get('after') ?? '';
    return { body: { ids: this.deleted.filter(({ at }) => at >= after).map(({ id }) => id) } };
  }

  #list({ query }: PlatformCall): PlatformAnswer {
    const [owner, page] = [query.get('owner'), Number(query.get('page') ?? 1)];
    const size = Math.min(25, Number(query.get('per_page') ?? 25));
    const since = /^updated_at ge (.+)$/.exec(query.get('filter') ?? '')?.[1] ?? '';
    const all = [...this.records.values()].filter(
      (record) => (owner === null || ownerOf(record) === owner) && (record['updated_at'] as string) >= since,
    );
    const shown = all.slice((page - 1) * size, page * size);
    if (page > 1 && shown.length === 0) return { status: 404, body: { error: 'Invalid page' } };
    return { body: { data: { appointments: shown } } };
  }

  #get(id: string): PlatformAnswer {
    const record = this.records.get(id);
    return record === undefined ? { status: 404 } : { body: { data: record } };
  }

  #write({ method, text }: PlatformCall, user: string, id: string | undefined): PlatformAnswer {
    if (method === 'DELETE') {
      if (!this.records.delete(id ?? '')) return { status: 404 };
      this.deleted.push({ id: id ?? '', at: sqlNow() });
      return { status: 204 };
    }
    const fields = JSON.parse(text) as Fields;
    const isNew = method === 'POST';
    if (!isNew && !this.records.has(id ?? '') && this.#options.isApp !== true) return { status: 404 };
    const given = isNew ? `ev-${(this.#next += 1)}` : (id ?? '');
    const owner = user === '' ? {} : { owner: { id: user } };
    const record = { ...fields, ...owner, id: given, updated_at: sqlNow() };
    this.records.set(given, record);
    return { status: isNew ? 201 : 200, body: { data: record } };
  }
}

function ownerOf({ owner }: Fields): string {
  return (owner as { id: string }).id;
}

function sqlNow(): string {
  return new Date().toISOString().slice(0, 19).replace('T', ' ');
}

/** One address, POST and 200 for everything; numbers as ids, versions in milliseconds, hard deletes. */
export class TaskPlatform implements ExamplePlatform {
  readonly http: HttpPlatform;
  readonly records = new Map<string, Fields>();
  #next: number;
  #calls = 0;

  private constructor(http: HttpPlatform, { firstId }: ExampleOptions) {
    this.http = http;
    this.#next = firstId;
  }

  static async start(options: ExampleOptions): Promise<TaskPlatform> {
    const http = await startHttpPlatform(() => ({}));
    const platform = new TaskPlatform(http, options);
    http.answer = (call) => platform.#answer(call);
    return platform;
  }

  titleOf(id: string): string | undefined {
    return this.records.get(id)?.['title'] as string | undefined;
  }

  #answer({ headers, query, method, path, text }: PlatformCall): PlatformAnswer {
    if (method !== 'POST' || path !== '/rpc') return { status: 404, body: 'no such page' };
    const user = headers['x-user'];
    if (user === undefined && query.get('key') !== 'legacy-key') return failed('BAD_KEY');
    this.#calls += 1;
    // Now and then it wants us to wait.
    if (user === undefined && this.#calls % 97 === 0) return failed('SLOW_DOWN', { wait: 0.05 });
    const { call, args = {} } = JSON.parse(text) as { call: string; args?: Fields };
    const result = this.#carryOut(call, args, typeof user === 'string' ? user : undefined);
    return result === undefined ? failed('NO_SUCH_TASK') : { body: { ok: true, result } };
  }

  #carryOut(call: string, args: Fields, user: string | undefined): Json | undefined {
    const id = idIn(args);
    switch (call) {
      case 'task.list':
        return this.#list(args);
      case 'task.get':
        return this.records.get(id);
      case 'task.delete':
        return this.records.delete(id) ? true : undefined;
      case 'task.add': {
        this.#next += 1;
        return this.#save({ ...args, id: this.#next, owner: user ?? '' });
      }
      case 'task.set':
        return this.records.has(id) ? this.#save({ ...this.records.get(id), ...args }) : undefined;
      case 'task.put':
        return this.#save(args['task'] as Fields);
      default:
        return undefined;
    }
  }

  #save(fields: Fields): Fields {
    const record = { ...fields, changed: Date.now() };
    this.records.set(idIn(fields), record);
    return record;
  }

  #list({ owner, changedSince = 0, from = '0', limit = 20 }: Fields): Json {
    const all = [...this.records.values()].filter(
      (record) =>
        (owner === undefined || record['owner'] === owner) &&
        Number(record['changed']) >= Number(changedSince),
    );
    const end = Number(from) + Number(limit);
    return { tasks: all.slice(Number(from), end), next: end < all.length ? String(end) : null };
  }
}

function idIn({ id }: Fields): string {
  return typeof id === 'number' ? String(id) : '';
}

function failed(code: string, more: Fields = {}): PlatformAnswer {
  return { body: { ok: false, error: { code, text: `it is ${code}`, ...more } } };
}
