/** The tables of one store, read from the catalog when they are first needed, and again when they have changed. */
import type { TableConfig } from '../../config/schema.ts';
import { StoreFailure } from '../../core/ports.ts';
import type { Database } from './database.ts';
import { isOutdated } from './failures.ts';
import { readTable, type Table } from './table.ts';

export type TableConfigs = Readonly<Record<string, TableConfig>>;

/** Of a migration of the application's own that nobody has run into yet. */
const freshMs = 60_000;

export class Tables {
  readonly database: Database;
  readonly configs: TableConfigs;
  readonly #known = new Map<string, { readonly table: Promise<Table>; readonly atMs: number }>();

  constructor(database: Database, configs: TableConfigs) {
    this.database = database;
    this.configs = configs;
  }

  configOf(kind: string): TableConfig {
    const config = this.configs[kind];
    if (config !== undefined) return config;
    throw new StoreFailure('rejected', `${this.database.store} has no records of kind ${kind}`);
  }

  /** Throws StoreFailure. */
  of(kind: string): Promise<Table> {
    const known = this.#known.get(kind);
    if (known !== undefined && performance.now() < known.atMs + freshMs) return known.table;
    const { database } = this;
    // Whoever waits for it shares it, so it ends with nobody's signal.
    const never = new AbortController().signal;
    const query = (sql: string, parameters: readonly unknown[]) => database.query(sql, parameters, never);
    const table = readTable(query, database.store, kind, this.configOf(kind));
    this.#known.set(kind, { table, atMs: performance.now() });
    table.catch(() => this.#known.delete(kind));
    return table;
  }

  /** Runs a read, and once more where the table is not any more what it was. */
  async read<T>(kind: string, work: (table: Table) => Promise<T>): Promise<T> {
    try {
      return await this.once(kind, work);
    } catch (error) {
      if (!isOutdatedFailure(error)) throw error;
      return work(await this.of(kind));
    }
  }

  /** Runs `work`; where the table is not any more what it was, its catalog is read again the next time. */
  async once<T>(kind: string, work: (table: Table) => Promise<T>): Promise<T> {
    const table = await this.of(kind);
    try {
      return await work(table);
    } catch (error) {
      if (isOutdatedFailure(error)) this.#known.delete(kind);
      throw error;
    }
  }
}

function isOutdatedFailure(error: unknown): boolean {
  return error instanceof StoreFailure && isOutdated(error.cause);
}
