/** The reading side of a REST store: lists by page, single records, and copies in another store's shape. */
import { createHash } from 'node:crypto';
import type { RecordConfig } from '../../config/schema.ts';
import {
  type KindCapabilities,
  type ListScope,
  type Page,
  type RecordProblem,
  StoreFailure,
  type StoreReader,
  type TargetShape,
} from '../../core/ports.ts';
import type { CopyForm, Json, StoreRecord } from '../../core/records.ts';
import type { StoreName } from '../../core/ownership.ts';
import type { RestAnswer } from './answers.ts';
import type { RestClient } from './client.ts';
import { type NextPage, Paging, pagingProblems } from './paging.ts';
import { fillPath, fillQuery, type PlaceholderValues, valueAt } from './paths.ts';
import { capabilitiesOf, copyFormOf, readItem, shapeOf } from './shape.ts';

export type RecordConfigs = Readonly<Record<string, RecordConfig>>;

/** A list longer than this is taken for one that never ends. */
const defaultMaxPages = 100_000;

export class RestReader implements StoreReader {
  readonly store: StoreName;
  readonly capabilities: readonly KindCapabilities[];
  readonly feedDelayMs: number;
  readonly #client: RestClient;
  readonly #records: RecordConfigs;
  readonly #maxPages: number;
  readonly #prepaid: boolean;

  constructor(
    client: RestClient,
    records: RecordConfigs,
    feedDelayMs: number,
    { maxPages = defaultMaxPages, prepaid = false } = {},
  ) {
    this.#prepaid = prepaid;
    this.store = client.store;
    this.feedDelayMs = feedDelayMs;
    this.capabilities = Object.entries(records).map(([kind, config]) => capabilitiesOf(kind, config));
    this.#client = client;
    this.#records = records;
    this.#maxPages = maxPages;
  }

  readonly shape = (kind: string): TargetShape => shapeOf(this.#configOf(kind));

  /**
   * Pages of the list, in the store's order. A list that is not there, is not JSON or goes in circles is
   * a failure, never an empty list. Rows may shift between pages while the store is written to: an id that
   * did not come up is not proven absent.
   */
  async *pages(kind: string, scope: ListScope, signal: AbortSignal): AsyncGenerator<Page> {
    const config = this.#configOf(kind);
    const wrong = pagingProblems(config.list);
    if (wrong.length > 0) {
      yield { records: [], problems: wrong.map((detail) => ({ kind, detail })) };
      return;
    }
    const paging = new Paging(config.list, this.#client.origin);
    let next: NextPage =
      scope.after === undefined
        ? { page: 'placeholders', values: paging.first() }
        : paging.resume(scope.after);
    for (let count = 0; next.page !== 'none'; count += 1) {
      if (count === this.#maxPages) {
        throw new StoreFailure('bad-answer', `the list of ${kind} has more than ${this.#maxPages} pages`);
      }
      const path = this.#listPath(kind, config, scope, next);
      const answer = await this.#read(path, scope.partition ?? '', signal).catch((error: unknown) => {
        const isRefused = error instanceof StoreFailure && error.kind === 'rejected';
        if (isRefused && paging.endsWithRefusal()) return undefined;
        throw error;
      });
      if (answer === undefined) return;
      const items = paging.endsWith(answer) ? [] : itemsOf({ store: this.store, kind, path }, config, answer);
      const page = pageOf(kind, config, items, scope.partition);
      // A list that goes in circles fails only after the page that was good.
      const url = `${this.#client.origin}${this.#client.target(path)}`;
      const shown = shownIn(items, config);
      const after = attempt(() => paging.after({ answer, itemCount: items.length, shown, url }));
      const total = totalOf(answer);
      yield {
        ...page,
        ...(after.done && after.value.page !== 'none' ? { next: paging.position(after.value) } : {}),
        ...(total === undefined ? {} : { total }),
      };
      if (!after.done) throw after.error;
      next = after.value;
    }
  }

  async get(
    kind: string,
    key: { id: string; partition: string },
    signal: AbortSignal,
  ): Promise<StoreRecord | undefined> {
    const config = this.#configOf(kind);
    const path = fillPath(config.get.path, { id: key.id, partition: key.partition }) ?? config.get.path;
    const answer = await this.#read(path, key.partition, signal);
    if (answer.status === 404 || answer.status === 410) return undefined;
    const item = readItem(kind, config, answer.body ?? null);
    if (!('record' in item)) {
      const detail = 'problem' in item ? item.problem.detail : 'it holds no record';
      throw new StoreFailure(
        'bad-answer',
        `${this.store} answered GET ${path} with ${answer.status}: ${detail}`,
      );
    }
    if (item.record.id !== key.id) {
      throw new StoreFailure(
        'bad-answer',
        `${this.store} answered GET ${path} with record ${item.record.id} instead of ${key.id}`,
      );
    }
    const etag = config.version === 'etag' ? answer.headers['etag'] : undefined;
    return typeof etag === 'string' ? { ...item.record, version: etag } : item.record;
  }

  toCopy(record: StoreRecord, target: TargetShape): CopyForm {
    return copyFormOf(record, this.shape(record.kind), target);
  }

  async probe(signal: AbortSignal): Promise<void> {
    const [kind, config] = Object.entries(this.#records)[0] ?? [];
    if (kind === undefined || config === undefined) return;
    const values = new Paging(config.list, this.#client.origin).first();
    const listed = this.#pathFor(config, values);
    // A list that wants a partition is asked for one that nobody has; 404 is a fine answer to that.
    const path = listed ?? this.#pathFor(config, { ...values, partition: 'onewriter-probe' });
    const call = { ...readCall(path ?? config.list.path, ''), haste: 'at-once' } as const;
    const answer = await this.#client.call(call, signal);
    if (listed !== undefined) itemsOf({ store: this.store, kind, path: call.path }, config, answer);
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  #listPath(kind: string, config: RecordConfig, scope: ListScope, next: NextPage): string {
    if (next.page === 'path') return this.#belowBase(next.path);
    const values = next.page === 'placeholders' ? next.values : {};
    const path = this.#pathFor(config, { ...values, partition: scope.partition, since: scope.since });
    if (path === undefined) {
      throw new StoreFailure(
        'rejected',
        `the list of ${kind} in ${this.store} can be read only by partition`,
      );
    }
    return path;
  }

  #pathFor(config: RecordConfig, values: PlaceholderValues): string | undefined {
    const path = fillPath(config.list.path, values);
    if (path === undefined) return undefined;
    const query = fillQuery(config.list.query, values);
    if (query === '') return path;
    return `${path}${path.includes('?') ? '&' : '?'}${query}`;
  }

  /** Links are absolute; the client puts the store's own base path in front again. */
  #belowBase(path: string): string {
    const base = this.#client.target('');
    return base !== '' && path.startsWith(`${base}/`) ? path.slice(base.length) : path;
  }

  #read(path: string, partition: string, signal: AbortSignal): Promise<RestAnswer> {
    return this.#client.call({ ...readCall(path, partition), prepaid: this.#prepaid }, signal);
  }

  #configOf(kind: string): RecordConfig {
    const config = this.#records[kind];
    if (config === undefined) throw new Error(`${this.store} has no records of kind ${kind}`);
    return config;
  }
}

type Attempt<T> =
  { readonly done: true; readonly value: T } | { readonly done: false; readonly error: unknown };

function attempt<T>(work: () => T): Attempt<T> {
  try {
    return { done: true, value: work() };
  } catch (error) {
    return { done: false, error };
  }
}

/** As json-server and many others say it; there is no standard for it. */
function totalOf({ headers }: RestAnswer): number | undefined {
  const told = headers['x-total-count'];
  return typeof told === 'string' && /^\d{1,15}$/.test(told) ? Number(told) : undefined;
}

function readCall(path: string, partition: string) {
  return { method: 'GET', path, access: 'read', stamp: { partition, epoch: 0 } } as const;
}

interface ListPlace {
  readonly store: StoreName;
  readonly kind: string;
  readonly path: string;
}

function itemsOf(place: ListPlace, config: RecordConfig, answer: RestAnswer): readonly Json[] {
  const items = valueAt(answer.body, config.list.items);
  if (answer.status >= 200 && answer.status < 300 && Array.isArray(items)) return items as readonly Json[];
  const { store, kind, path } = place;
  const where = config.list.items === '' ? 'in the body' : `at "${config.list.items}"`;
  throw new StoreFailure(
    'bad-answer',
    `the list of ${kind}: ${store} answered GET ${path} with ${answer.status} without an array ${where}; nothing was ` +
      `concluded from it; look at stores.${store}.connector.records.${kind}.list`,
  );
}

/** The ids, because other fields may change with each answer. */
function shownIn(items: readonly Json[], config: RecordConfig): string {
  const ids = items.map((item) => valueAt(item, config.id) ?? item);
  return createHash('sha256').update(JSON.stringify(ids)).digest('base64');
}

function pageOf(kind: string, config: RecordConfig, items: readonly Json[], partition?: string): Page {
  const records: StoreRecord[] = [];
  const problems: RecordProblem[] = [];
  for (const item of items) {
    const read = readItem(kind, config, item, partition);
    if ('record' in read) records.push(read.record);
    else if ('problem' in read) problems.push(read.problem);
  }
  return { records, problems };
}
