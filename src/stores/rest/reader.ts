/** The reading side of a REST store: lists by page, single records, and copies in another store's shape. */
import { createHash } from 'node:crypto';
import type { ListConfig } from '../../config/rest-calls.ts';
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
import { type PlaceholderValues, valueAt } from './paths.ts';
import { callRequest, listRequest, type Request, requestTo } from './requests.ts';
import { capabilitiesOf, copyFormOf, idOf, readItem, shapeOf } from './shape.ts';

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
    const asked: AskedList = { kind, part: 'list', list: config.list, id: config.id };
    for await (const { answer, items, next } of this.#answers(asked, scope, signal)) {
      const total = totalOf(answer);
      yield {
        ...pageOf(kind, config, items, scope.partition),
        ...(next === undefined ? {} : { next }),
        ...(total === undefined ? {} : { total }),
      };
    }
    if (scope.since !== undefined && config.deletes !== undefined) {
      yield* this.#deleted(kind, config.deletes, scope, signal);
    }
  }

  /** Ids that were deleted since then, of whichever partition they were. */
  async *#deleted(
    kind: string,
    list: NonNullable<RecordConfig['deletes']>,
    { since, partition }: ListScope,
    signal: AbortSignal,
  ): AsyncGenerator<Page> {
    const scope = { ...(since && { since }), ...(partition && { partition }) };
    const asked: AskedList = { kind, part: 'deletes', list, id: list.id };
    for await (const { items } of this.#answers(asked, scope, signal)) {
      const ids = items.map((item) => idOf(valueAt(item, list.id)));
      const gone = ids.filter((id) => id !== undefined);
      const detail = `an entry of the list of deleted records has no usable id at "${list.id}"`;
      yield { records: [], problems: gone.length === ids.length ? [] : [{ kind, detail }], gone };
    }
  }

  async *#answers(asked: AskedList, scope: ListScope, signal: AbortSignal): AsyncGenerator<ListAnswer> {
    const { list } = asked;
    const paging = new Paging(list, this.#client);
    let next: NextPage =
      scope.after === undefined
        ? { page: 'placeholders', values: paging.first() }
        : paging.resume(scope.after);
    for (let count = 0; next.page !== 'none'; count += 1) {
      if (count === this.#maxPages) {
        throw new StoreFailure('bad-answer', `${inWords(asked)} has more than ${this.#maxPages} pages`);
      }
      const request = this.#listRequest(asked, scope, next);
      const answer = await this.#read(request, scope.partition ?? '', signal).catch((error: unknown) => {
        const isRefused = error instanceof StoreFailure && error.kind === 'rejected';
        if (isRefused && paging.endsWithRefusal()) return undefined;
        throw error;
      });
      if (answer === undefined) return;
      const items = paging.endsWith(answer) ? [] : itemsOf(this.store, asked, request, answer);
      // A list that goes in circles fails only after the page that was good.
      const url = `${this.#client.origin}${this.#client.target(request.path)}`;
      const shown = shownIn(items, asked.id);
      const after = attempt(() => paging.after({ answer, items, shown, url }));
      yield {
        ...{ answer, items },
        ...(after.done && after.value.page !== 'none' ? { next: paging.position(after.value) } : {}),
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
    const request = callRequest(config.get, 'GET', { id: key.id, partition: key.partition });
    const answer = await this.#read(request, key.partition, signal);
    if (answer.status === 404 || answer.status === 410) return undefined;
    const found = valueAt(answer.body, config.get.item) ?? null;
    if (found === null && config.get.emptyMeansGone) return undefined;
    const item = readItem(kind, config, found, undefined, key.partition);
    const what = `${this.store} answered ${request.method} ${request.path} with`;
    if (!('record' in item)) {
      const detail = 'problem' in item ? item.problem.detail : 'it holds no record';
      throw new StoreFailure('bad-answer', `${what} ${answer.status}: ${detail}`);
    }
    if (item.record.id !== key.id) {
      throw new StoreFailure('bad-answer', `${what} record ${item.record.id} instead of ${key.id}`);
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
    const asked: AskedList = { kind, part: 'list', list: config.list, id: config.id };
    const values = new Paging(config.list, this.#client).first();
    const listed = listRequest(config.list, values);
    // A list that wants a partition is asked for one that nobody has; 404 is a fine answer to that.
    const request = listed ?? listRequest(config.list, { ...values, partition: 'onewriter-probe' });
    if (request === undefined) return;
    const call = { ...readCall(request, ''), haste: 'at-once' } as const;
    const answer = await this.#client.call(call, signal);
    if (listed !== undefined) itemsOf(this.store, asked, listed, answer);
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  #listRequest(
    asked: AskedList,
    scope: ListScope,
    next: Exclude<NextPage, { readonly page: 'none' }>,
  ): Request {
    const { list } = asked;
    const known: PlaceholderValues = { partition: scope.partition, since: scope.since };
    if (next.page === 'path') return requestTo(list, this.#belowBase(next.path), known);
    const request = listRequest(list, { ...next.values, ...known });
    if (request !== undefined) return request;
    throw new StoreFailure('rejected', `${inWords(asked)} in ${this.store} can be read only by partition`);
  }

  /** Links are absolute; the client puts the store's own base path in front again. */
  #belowBase(path: string): string {
    const base = this.#client.target('');
    return base !== '' && path.startsWith(`${base}/`) ? path.slice(base.length) : path;
  }

  #read(request: Request, partition: string, signal: AbortSignal): Promise<RestAnswer> {
    return this.#client.call({ ...readCall(request, partition), prepaid: this.#prepaid }, signal);
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

function readCall(request: Request, partition: string) {
  return { ...request, access: 'read', stamp: { partition, epoch: 0 } } as const;
}

/** A list of the records of a kind, or of those that were deleted. */
interface AskedList {
  readonly kind: string;
  readonly part: 'list' | 'deletes';
  readonly list: ListConfig;
  /** Path to the id in its entries. */
  readonly id: string;
}

interface ListAnswer {
  readonly answer: RestAnswer;
  readonly items: readonly Json[];
  readonly next?: string;
}

function inWords({ kind, part }: AskedList): string {
  return part === 'list' ? `the list of ${kind}` : `the list of deleted ${kind}`;
}

function itemsOf(
  store: StoreName,
  asked: AskedList,
  { method, path }: Request,
  answer: RestAnswer,
): readonly Json[] {
  const { kind, part, list } = asked;
  const items = valueAt(answer.body, list.items);
  if (answer.status >= 200 && answer.status < 300 && Array.isArray(items)) return items as readonly Json[];
  const where = list.items === '' ? 'in the body' : `at "${list.items}"`;
  throw new StoreFailure(
    'bad-answer',
    `${inWords(asked)}: ${store} answered ${method} ${path} with ${answer.status} without an array ${where}; nothing was ` +
      `concluded from it; look at stores.${store}.connector.records.${kind}.${part}`,
  );
}

/** The ids, because other fields may change with each answer. */
function shownIn(items: readonly Json[], idPath: string): string {
  const ids = items.map((item) => valueAt(item, idPath) ?? item);
  return createHash('sha256').update(JSON.stringify(ids)).digest('base64');
}

function pageOf(kind: string, config: RecordConfig, items: readonly Json[], partition?: string): Page {
  const records: StoreRecord[] = [];
  const problems: RecordProblem[] = [];
  const gone: string[] = [];
  for (const item of items) {
    const read = readItem(kind, config, item, partition, partition);
    if ('record' in read) records.push(read.record);
    else if ('problem' in read) problems.push(read.problem);
    else if ('gone' in read) gone.push(read.gone);
  }
  return { records, problems, ...(gone.length === 0 ? {} : { gone }) };
}
