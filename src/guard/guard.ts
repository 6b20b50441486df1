/**
 * The guard as plain functions over a PostgreSQL connection. The rule and its locks live in guard.sql; this
 * file carries calls and answers. Any client works that has `query(sql, parameters)`: pg, PGlite, a
 * transaction of either.
 */
import { readFile } from 'node:fs/promises';
import type { GuardAccess, GuardRefusal, GuardRow } from '../core/guard.ts';
import type { GuardClaims } from './signature.ts';

export interface Queryable {
  query(sql: string, parameters?: unknown[]): Promise<{ rows: unknown[] }>;
}

/** A row of the guard, and whether the call that asked was accepted. */
export interface GuardState extends GuardRow {
  readonly partition: string;
  readonly accept: boolean;
  readonly code?: GuardRefusal;
}

/** `read-access`: the proxy forwarded this request as one that only reads, so it must not write. */
export type WriteRefusal = GuardRefusal | 'read-access';

const refusalOfSqlState: Readonly<Record<string, GuardRefusal>> = {
  OW001: 'stale-epoch',
  OW002: 'legacy-owns',
  OW003: 'app-owns',
  OW004: 'closed-epoch',
};

/** Makes the schema, the table and the functions; safe to run again, but not by two processes at once. */
export async function installGuard(database: Queryable): Promise<void> {
  const sql = await readFile(new URL('guard.sql', import.meta.url), 'utf8');
  for (const statement of sql.split(/;\n(?:\n|$)/)) {
    if (statement.trim() !== '') await database.query(statement);
  }
}

/**
 * To be called inside the transaction that writes, before the write; checks every partition of the claims. Returns why the write is refused, or
 * undefined when it may go on. After a refusal PostgreSQL lets the transaction only roll back, so a caller
 * that overlooks the answer still writes nothing.
 */
export async function guardCheck(
  transaction: Queryable,
  claims: Pick<GuardClaims, 'partition' | 'access' | 'epoch' | 'also'>,
): Promise<WriteRefusal | undefined> {
  const { partition, access, epoch, also } = claims;
  if (access === 'read') return 'read-access';
  try {
    if (also === undefined) {
      await transaction.query('SELECT onewriter.check($1, $2, $3)', [partition, access, epoch]);
    } else {
      const all = [{ partition, epoch }, ...also];
      const names = all.map((one) => one.partition);
      const epochs = all.map((one) => one.epoch);
      await transaction.query('SELECT onewriter.check_all($1, $2, $3)', [names, access, epochs]);
    }
    return undefined;
  } catch (error) {
    const refusal = guardRefusalOf(error);
    if (refusal === undefined) throw error;
    return refusal;
  }
}

/** The guard's code in a database error; undefined for every other error. */
export function guardRefusalOf(error: unknown): GuardRefusal | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return refusalOfSqlState[String(error.code)];
}

/** What a request with this access and epoch would be told. Changes nothing. */
export function readVerdict(
  database: Queryable,
  request: { readonly partition: string; readonly access: GuardAccess; readonly epoch: number },
): Promise<GuardState> {
  const { partition, access, epoch } = request;
  return stateOf(database.query('SELECT * FROM onewriter.verdict($1, $2, $3)', [partition, access, epoch]));
}

/** Ends every epoch before `epoch`. Waits for writes that were let in before. */
export function advanceGuard(database: Queryable, partition: string, epoch: number): Promise<GuardState> {
  return stateOf(database.query('SELECT * FROM onewriter.advance($1, $2)', [partition, epoch]));
}

/** Ends copies of `epoch` and before, and makes the app the owner. Waits for copies that were let in. */
export function sealGuard(database: Queryable, partition: string, epoch: number): Promise<GuardState> {
  return stateOf(database.query('SELECT * FROM onewriter.seal($1, $2)', [partition, epoch]));
}

async function stateOf(answer: Promise<{ rows: unknown[] }>): Promise<GuardState> {
  const [row] = (await answer).rows as readonly (Omit<GuardState, 'epoch' | 'code'> & {
    readonly epoch: unknown;
    readonly code: GuardRefusal | null;
  })[];
  if (row === undefined) throw new Error('the guard of the database gave no answer; is guard.sql installed?');
  const { partition, owner, closed, written, accept, code } = row;
  // Drivers give a bigint as string, number or BigInt.
  const epoch = Number(row.epoch);
  return { partition, epoch, owner, closed, written, accept, ...(code === null ? {} : { code }) };
}
