/**
 * The writing side of a PostgreSQL store. It is made only for stores that copies may go to, and used only by
 * src/sync/apply.ts. Where the store has a guard, its row is locked and its word is asked in the transaction of the
 * write itself: a copy that comes late is refused by the database, whatever the worker that sent it believes.
 */
import type { StoreName } from '../../core/ownership.ts';
import {
  type BulkLimits,
  type BulkOutcome,
  type CopyStamp,
  type CopyWriter,
  type RecordRemover,
  type StampedCopy,
  StoreFailure,
  type WriteCondition,
} from '../../core/ports.ts';
import type { CopyForm } from '../../core/records.ts';
import type { Database, Query } from './database.ts';
import { isNoValue } from './failures.ts';
import type { Sql } from './rows.ts';
import type { Table } from './table.ts';
import type { Tables } from './tables.ts';
import { type Batch, batchesOf, insertSql, mustBeHeld, removeSql, updateSql, upsertSql } from './upsert.ts';

export class PostgresWriter implements CopyWriter {
  readonly store: StoreName;
  readonly #database: Database;
  readonly #tables: Tables;
  readonly #guarded: boolean;

  constructor(tables: Tables, guarded: boolean) {
    this.store = tables.database.store;
    this.#database = tables.database;
    this.#tables = tables;
    this.#guarded = guarded;
  }

  /**
   * Throws StoreFailure: `unavailable` means that the outcome is unknown; every other kind that nothing was written.
   * `exists` makes no difference: creating and replacing is one statement.
   */
  async put(
    copy: CopyForm,
    stamp: CopyStamp,
    _exists: boolean,
    _signal: AbortSignal,
    onlyIf?: WriteCondition,
  ): Promise<void> {
    await this.#write(copy.kind, [stamp], async (query, table) => {
      for (const batch of batchesOf(this.store, table, [copy])) {
        const rows = await ask(query, statementOf(table, batch, onlyIf));
        if (rows.length === 0 && onlyIf !== undefined) throw changedSince(this.store, copy);
        mustBeHeld(this.store, table, batch, rows);
      }
    });
  }

  async remove(
    key: { kind: string; id: string },
    stamp: CopyStamp,
    _signal: AbortSignal,
    onlyIf?: WriteCondition,
  ): Promise<void> {
    await this.#remove(key, stamp, { hard: false, onlyIf });
  }

  bulk(kind: string): BulkLimits | undefined {
    const config = this.#tables.configs[kind];
    return config === undefined ? undefined : { max: config.bulkMax, onePartition: false };
  }

  /** Throws StoreFailure as put does; of one call all records are written, or none. */
  async putMany(kind: string, copies: readonly StampedCopy[], _signal: AbortSignal): Promise<BulkOutcome> {
    const forms = copies.map(({ copy }) => copy);
    await this.#write(
      kind,
      copies.map(({ stamp }) => stamp),
      async (query, table) => {
        for (const batch of batchesOf(this.store, table, forms)) {
          mustBeHeld(this.store, table, batch, await ask(query, upsertSql(table, batch)));
        }
      },
    );
    return { written: new Set(forms.map(({ id }) => id)), mayStillHappen: false };
  }

  /** For erasures: marks do not count as deleted there. */
  remover(): RecordRemover {
    return {
      remove: (key, stamp) => this.#remove(key, stamp, { hard: true }),
      can: (kind) => this.#tables.configs[kind] !== undefined,
    };
  }

  async #remove(
    { kind, id }: { readonly kind: string; readonly id: string },
    stamp: CopyStamp,
    { hard, onlyIf }: { readonly hard: boolean; readonly onlyIf?: WriteCondition | undefined },
  ): Promise<void> {
    const version = onlyIf === undefined || onlyIf === 'absent' ? undefined : onlyIf.version;
    const key = { id, partition: stamp.partition };
    try {
      await this.#write(kind, [stamp], async (query, table) => {
        const { text, parameters } = removeSql(table, key, { hard, version });
        const removed = await query(`${text} RETURNING 1`, parameters);
        if (version === undefined || removed.length > 0) return;
        const { text: there, parameters: of } = removeSql(table, key, { hard: true });
        const left = await query(there.replace('DELETE FROM', 'SELECT FROM'), of);
        if (left.length > 0) throw changedSince(this.store, { kind, id });
      });
    } catch (error) {
      // No row can have such an id, so there is nothing to delete.
      if (!(error instanceof StoreFailure) || !isNoValue(error.cause)) throw error;
    }
  }

  #write(
    kind: string,
    stamps: readonly CopyStamp[],
    work: (query: Query, table: Table) => Promise<void>,
  ): Promise<void> {
    return this.#tables.once(kind, (table) => {
      if (!table.isTable || table.key.length === 0) {
        const why = table.isTable ? `nothing makes "${table.config.id}" unique in it` : 'it is no table';
        throw new StoreFailure('bad-answer', `${this.store} takes no copies into ${table.name}: ${why}`);
      }
      return this.#database.transact(async (query) => {
        if (this.#guarded) await askGuard(query, stamps);
        await work(query, table);
      });
    });
  }
}

function statementOf(table: Table, batch: Batch, onlyIf: WriteCondition | undefined): Sql {
  if (onlyIf === undefined) return upsertSql(table, batch);
  return onlyIf === 'absent' ? insertSql(table, batch) : updateSql(table, batch, onlyIf.version);
}

/** Raises where one of them is refused; else the rows stay locked to the end of the transaction (docs/guard.md). */
async function askGuard(query: Query, stamps: readonly CopyStamp[]): Promise<void> {
  const epochs = new Map(stamps.map(({ partition, epoch }) => [partition, epoch]));
  for (const { partition, epoch } of stamps) {
    if (epochs.get(partition) !== epoch) throw new Error(`copies of ${partition} carry two epochs`);
  }
  await query('SELECT onewriter.check_all($1, $2, $3)', [[...epochs.keys()], 'copy', [...epochs.values()]]);
}

function ask(query: Query, { text, parameters }: Sql) {
  return query(text, parameters);
}

function changedSince(
  store: StoreName,
  { kind, id }: { readonly kind: string; readonly id: string },
): StoreFailure {
  return new StoreFailure(
    'rejected',
    `${kind} ${id} has changed in ${store} since it was read; nothing was written`,
    { status: 412 },
  );
}
