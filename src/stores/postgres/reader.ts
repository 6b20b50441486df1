/** The reading side of a PostgreSQL store. */
import {
  type KindCapabilities,
  type ListScope,
  type Page,
  type RecordProblem,
  StoreFailure,
  type StoreReader,
  type TargetShape,
} from '../../core/ports.ts';
import type { StoreName } from '../../core/ownership.ts';
import type { CopyForm, StoreRecord } from '../../core/records.ts';
import type { TableConfig } from '../../config/schema.ts';
import { copyFormOf } from '../rest/shape.ts';
import type { Database, Row } from './database.ts';
import { isNoValue } from './failures.ts';
import { OpenTransactions } from './open-transactions.ts';
import {
  getSql,
  isProblem,
  pageSql,
  type Place,
  placeAfter,
  placeFrom,
  recordOf,
  shapeOf,
  type Sql,
} from './rows.ts';
import type { Table } from './table.ts';
import type { Tables } from './tables.ts';

export class PostgresReader implements StoreReader {
  readonly store: StoreName;
  readonly capabilities: readonly KindCapabilities[];
  readonly feedDelayMs: number;
  readonly #database: Database;
  readonly #tables: Tables;
  readonly #open: OpenTransactions;
  readonly #alsoClose: () => Promise<void>;

  /** `alsoClose` is called once, when the reader is closed. */
  constructor(tables: Tables, feedDelayMs: number, alsoClose: () => Promise<void> = async () => undefined) {
    this.#alsoClose = alsoClose;
    this.#database = tables.database;
    this.#tables = tables;
    this.#open = new OpenTransactions(tables.database);
    this.store = tables.database.store;
    this.feedDelayMs = feedDelayMs;
    this.capabilities = Object.entries(tables.configs).map(([kind, config]) => capabilitiesOf(kind, config));
  }

  readonly shape = (kind: string): TargetShape => shapeOf(this.#tables.configOf(kind));

  /** By id, or by version where only changes are wanted; a row that is there all the time is shown once. */
  async *pages(kind: string, scope: ListScope, signal: AbortSignal): AsyncGenerator<Page> {
    const table = await this.#tables.of(kind);
    const { scope: bounded, seen } = await this.#bounded(table, scope, signal);
    const total = scope.after === undefined ? await this.#estimate(table, scope, signal) : undefined;
    let place: Place | undefined = scope.after === undefined ? undefined : placeFrom(scope.after);
    for (;;) {
      const from = place;
      const rows = await this.#rows(kind, bounded, from, signal);
      const last = rows.at(-1);
      // Rows without an id come last.
      const ended = rows.length < table.config.pageSize || last?.['id_text'] === null;
      place = last === undefined ? place : placeAfter(table, bounded, last);
      yield {
        ...pageOf(await this.#tables.of(kind), rows),
        ...(ended ? {} : { next: JSON.stringify(place) }),
        ...(total === undefined ? {} : { total }),
      };
      if (!ended) continue;
      seen?.();
      return;
    }
  }

  async get(
    kind: string,
    key: { id: string; partition: string },
    signal: AbortSignal,
  ): Promise<StoreRecord | undefined> {
    try {
      const [row] = await this.#tables.read(kind, (table) => this.#ask(getSql(table, key), signal));
      if (row === undefined) return undefined;
      const read = recordOf(await this.#tables.of(kind), row);
      // Another spelling of the same value, a UUID in capitals for example, is another id to everybody else.
      if (!isProblem(read)) return read.id === key.id ? read : undefined;
      throw new StoreFailure('bad-answer', `${this.store} has a ${kind} that cannot be used: ${read.detail}`);
    } catch (error) {
      if (error instanceof StoreFailure && isNoValue(error.cause)) return undefined;
      throw error;
    }
  }

  toCopy(record: StoreRecord, target: TargetShape): CopyForm {
    return copyFormOf(record, this.shape(record.kind), target);
  }

  async probe(signal: AbortSignal): Promise<void> {
    for (const kind of Object.keys(this.#tables.configs)) {
      const { name } = await this.#tables.of(kind);
      await this.#database.query(`SELECT FROM ${name} AS t LIMIT 1`, [], signal);
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#database.close(), this.#alsoClose()]);
  }

  async #rows(kind: string, scope: ListScope, from: Place | undefined, signal: AbortSignal) {
    try {
      return await this.#tables.read(kind, (table) => this.#ask(pageSql(table, scope, from), signal));
    } catch (error) {
      // No row can have such a partition. Of a version nobody would know what was missed.
      const isNone = scope.partition !== undefined && scope.since === undefined;
      if (isNone && error instanceof StoreFailure && isNoValue(error.cause)) return [];
      throw error;
    }
  }

  #ask({ text, parameters }: Sql, signal: AbortSignal): Promise<readonly Row[]> {
    return this.#database.query(text, parameters, signal);
  }

  /** What was written by a transaction that had not ended at the last look shows up behind that look. */
  async #bounded(
    table: Table,
    scope: ListScope,
    signal: AbortSignal,
  ): Promise<{ readonly scope: ListScope; readonly seen?: () => void }> {
    const { version } = table.config;
    if (version === undefined || scope.since === undefined || scope.after !== undefined) return { scope };
    const form = table.columns.get(version)?.form;
    if (form !== 'zoned' && form !== 'utc') return { scope };
    const { since, seen } = await this.#open.since(table.kind, scope.since, signal);
    return { scope: { ...scope, since }, seen };
  }

  /** As the planner has it; how far a first copy is need not be exact. */
  async #estimate(table: Table, scope: ListScope, signal: AbortSignal): Promise<number | undefined> {
    if (scope.partition !== undefined || scope.since !== undefined) return undefined;
    const sql = 'SELECT reltuples::bigint::text AS total FROM pg_class WHERE oid = to_regclass($1)';
    const [row] = await this.#database.query(sql, [table.name], signal);
    const total = Number(row?.['total'] ?? 0);
    return total > 0 ? total : undefined;
  }
}

function pageOf(table: Table, rows: readonly Row[]): Page {
  const records: StoreRecord[] = [];
  const problems: RecordProblem[] = [];
  for (const row of rows) {
    const read = recordOf(table, row);
    if (isProblem(read)) problems.push(read);
    else records.push(read);
  }
  return { records, problems };
}

function capabilitiesOf(kind: string, { version, deleted }: TableConfig): KindCapabilities {
  return {
    kind,
    byPartition: true,
    needsPartition: false,
    since: version !== undefined,
    paged: true,
    tombstones: deleted !== undefined,
    versions: version === undefined ? 'etag' : 'field',
  };
}
