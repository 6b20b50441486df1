/**
 * A small platform with a REST API, for tests of the sync: records in memory behind a real HTTP server, with
 * the kinds of paging that platforms have, a log of every call, and a place to interfere.
 */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { restConnectorSchema } from '../../src/config/schema.ts';
import type { Fields, Json } from '../../src/core/records.ts';

export interface SeenCall {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  readonly body: Fields | undefined;
}

export interface GivenAnswer {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
}

export interface RestStoreOptions {
  readonly paging?: 'none' | 'cursor' | 'page' | 'offset' | 'link';
  readonly pageSize?: number;
  /** Lists take `updated_since`, and records get an `updated_at`. */
  readonly since?: boolean;
  /** Deleted records stay in lists with a `deleted_at`. */
  readonly softDeletes?: boolean;
  /** The list stands below the partition: /people/:partition/appointments. */
  readonly partitionInPath?: boolean;
  readonly records?: readonly Fields[];
  /** PUT of an array to the list writes that many records at most. */
  readonly bulk?: number;
  /** Sees every call first; what it returns is the answer. */
  readonly intercept?: (call: SeenCall) => GivenAnswer | undefined | Promise<GivenAnswer | undefined>;
}

export interface TestRestStore {
  readonly url: string;
  readonly calls: SeenCall[];
  /** Calls that were not reads. */
  writes(): SeenCall[];
  readonly records: Map<string, Fields>;
  /** Changes a record around the API, as somebody with other means would. */
  set(fields: Fields): void;
  remove(id: string): void;
  intercept: RestStoreOptions['intercept'];
  stop(): Promise<void>;
}

export async function startRestStore(options: RestStoreOptions = {}): Promise<TestRestStore> {
  const platform = new Platform(options);
  const server = createServer((request, response) => {
    void platform.answer(request).then(({ status, headers, body }) => {
      const text = typeof body === 'string' ? body : body === undefined ? '' : JSON.stringify(body);
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(text);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  platform.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  platform.server = server;
  return platform;
}

class Platform implements TestRestStore {
  url = '';
  server: Server | undefined;
  readonly calls: SeenCall[] = [];
  readonly records = new Map<string, Fields>();
  intercept: RestStoreOptions['intercept'];
  readonly #options: RestStoreOptions;

  constructor(options: RestStoreOptions) {
    this.#options = options;
    this.intercept = options.intercept;
    for (const record of options.records ?? []) this.records.set(textOf(record['id']), record);
  }

  writes(): SeenCall[] {
    return this.calls.filter(({ method }) => method !== 'GET');
  }

  set(fields: Fields): void {
    const dated = this.#options.since === true ? { updated_at: new Date().toISOString(), ...fields } : fields;
    this.records.set(textOf(fields['id']), dated);
  }

  remove(id: string): void {
    const record = this.records.get(id);
    if (record !== undefined && this.#options.softDeletes === true) {
      const now = new Date().toISOString();
      this.records.set(id, { ...record, deleted_at: now, updated_at: now });
    } else this.records.delete(id);
  }

  async stop(): Promise<void> {
    this.server?.closeAllConnections();
    await new Promise<void>((resolve) => {
      this.server?.close(() => resolve());
    });
  }

  async answer(request: IncomingMessage): Promise<GivenAnswer> {
    const url = new URL(request.url ?? '/', this.url);
    const call: SeenCall = {
      method: request.method ?? 'GET',
      path: decodeURIComponent(url.pathname),
      query: url.searchParams,
      headers: request.headers,
      body: await bodyOf(request),
    };
    this.calls.push(call);
    return (await this.intercept?.(call)) ?? this.#serve(call, url);
  }

  #serve(call: SeenCall, url: URL): GivenAnswer {
    const segments = call.path.split('/').slice(1);
    if (segments[0] === 'people' && segments[2] === 'appointments') {
      return this.#list(call, url, segments[1]);
    }
    if (segments[0] !== 'appointments') return { status: 404, body: { title: 'Not found' } };
    const id = segments[1];
    if (id === undefined) {
      if (call.method === 'POST') return this.#create(call.body ?? {});
      if (call.method === 'PUT') return this.#putMany(call.body);
      return this.#list(call, url, call.query.get('owner') ?? undefined);
    }
    const found = this.records.get(id);
    if (call.method === 'PUT') {
      this.set({ ...call.body });
      return { status: found === undefined ? 201 : 200, body: this.records.get(id) };
    }
    if (found === undefined) return { status: 404, body: { title: 'Not found' } };
    if (call.method !== 'DELETE') return { status: 200, body: found };
    this.remove(id);
    return { status: 204 };
  }

  #putMany(body: unknown): GivenAnswer {
    const { bulk = 0 } = this.#options;
    if (!Array.isArray(body) || body.length > bulk) return { status: 400, body: { title: 'Not a batch' } };
    for (const fields of body as readonly Fields[]) this.set(fields);
    return { status: 200, body: { written: body.length } };
  }

  #create(body: Fields): GivenAnswer {
    const id = textOf(body['id']);
    if (this.records.has(id)) return { status: 409, body: { title: 'Exists' } };
    this.set(body);
    return { status: 201, body: this.records.get(id) };
  }

  #list(call: SeenCall, url: URL, partition: string | undefined): GivenAnswer {
    const { paging = 'none', pageSize = 2 } = this.#options;
    const since = call.query.get('updated_since');
    const all = [...this.records.values()].filter(
      (record) =>
        (partition === undefined || record['owner_id'] === partition) &&
        (since === null || textOf(record['updated_at']) >= since),
    );
    const at = this.#offsetOf(call.query, paging, pageSize);
    const data = paging === 'none' ? all : all.slice(at, at + pageSize);
    const more = at + pageSize < all.length;
    if (paging === 'cursor')
      return { status: 200, body: { data, next: more ? String(at + pageSize) : null } };
    if (paging === 'link' && more) {
      url.searchParams.set('start', String(at + pageSize));
      return { status: 200, body: { data }, headers: { link: `<${url.href}>; rel="next"` } };
    }
    return { status: 200, body: { data } };
  }

  #offsetOf(query: URLSearchParams, paging: string, pageSize: number): number {
    if (paging === 'page') return (Number(query.get('page') ?? 1) - 1) * pageSize;
    if (paging === 'offset') return Number(query.get('offset') ?? 0);
    if (paging === 'cursor') return Number(query.get('cursor') ?? 0);
    return paging === 'link' ? Number(query.get('start') ?? 0) : 0;
  }
}

function textOf(value: Json | undefined): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}

async function bodyOf(request: IncomingMessage): Promise<Fields | undefined> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text === '' ? undefined : (JSON.parse(text) as Fields);
}

/** The connector that fits a store started with the same options. */
export function connectorFor(options: RestStoreOptions = {}, more: Record<string, unknown> = {}) {
  const { paging = 'none', pageSize = 2 } = options;
  const query: Record<string, string> = options.partitionInPath === true ? {} : { owner: '{partition}' };
  if (options.since === true) query['updated_since'] = '{since}';
  if (paging === 'cursor') query['cursor'] = '{cursor}';
  if (paging === 'page') query['page'] = '{page}';
  if (paging === 'offset') query['offset'] = '{offset}';
  const pagings: Record<string, unknown> = {
    cursor: { next: 'next' },
    page: { paging: { page: { from: 1, size: pageSize } } },
    offset: { paging: { offset: { size: pageSize } } },
    link: { paging: 'link' },
  };
  const path = options.partitionInPath === true ? '/people/{partition}/appointments' : '/appointments';
  return restConnectorSchema.parse({
    kind: 'rest',
    timeoutMs: 2_000,
    records: {
      appointment: {
        list: { path, query, items: 'data', ...(pagings[paging] as object | undefined) },
        get: { path: '/appointments/{id}' },
        put: { path: '/appointments/{id}' },
        delete: { path: '/appointments/{id}' },
        id: 'id',
        partition: 'owner_id',
        ...(options.since === true ? { version: 'updated_at' } : {}),
        ...(options.bulk === undefined
          ? {}
          : { bulk: { method: 'PUT', path: '/appointments', max: options.bulk } }),
        ...(options.softDeletes === true ? { deleted: 'deleted_at' } : {}),
        ...more,
      },
    },
  });
}
