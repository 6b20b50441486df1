/** The new application's appointments: every change in one transaction with the guard's check. */
import { randomUUID } from 'node:crypto';
import { guardCheck, type Queryable, type WriteRefusal } from '../../src/guard/guard.ts';
import type { GuardClaims } from '../../src/guard/signature.ts';
import type { AcceptedWrite, Appointment, Draft, ListQuery } from './appointment.ts';
import type { Database } from './app-database.ts';

/** Why a write was not done, as the HTTP answer names it. */
export type AppRefusal = WriteRefusal | 'not-found' | 'forbidden' | 'overlap' | 'bad-request';

export type Written =
  | { readonly done: true; readonly appointment: Appointment }
  | { readonly done: false; readonly code: AppRefusal };

/** Thrown inside a transaction to roll it back; never leaves this file. */
class Refused extends Error {
  readonly code: AppRefusal;
  constructor(code: AppRefusal) {
    super(code);
    this.code = code;
  }
}

const columns = 'id, owner_id, title, starts_at, ends_at, location, notes, updated_at, deleted_at';
const exclusionViolation = '23P01';

/** A person's new appointment. Copies carry the id of their original, so they are put, not created. */
export function createAppointment(database: Database, claims: GuardClaims, draft: Draft): Promise<Written> {
  return changing(database, claims, 'POST', async (transaction) => {
    if (claims.access === 'copy') throw new Refused('bad-request');
    return one(
      await transaction.query(
        `INSERT INTO appointments (id, owner_id, title, starts_at, ends_at, location, notes)
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING ${columns}`,
        valuesOf(`A${randomUUID()}`, claims, draft),
      ),
    );
  });
}

/** A person changes what is there; a copy is made to equal its original, whatever was there. */
export function putAppointment(
  database: Database,
  claims: GuardClaims,
  id: string,
  draft: Draft,
): Promise<Written> {
  const set = `title = $3, starts_at = $4, ends_at = $5, location = $6, notes = $7, updated_at = clock_timestamp()`;
  const sql =
    claims.access === 'copy'
      ? `INSERT INTO appointments AS a (id, owner_id, title, starts_at, ends_at, location, notes, deleted_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (id) DO UPDATE SET ${set}, deleted_at = $8 WHERE a.owner_id = $2 RETURNING ${columns}`
      : `UPDATE appointments SET ${set} WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL
         RETURNING ${columns}`;
  return changing(database, claims, 'PUT', async (transaction) => {
    const values = valuesOf(id, claims, draft);
    if (claims.access === 'copy') values.push(draft.deleted_at ?? null);
    return one(await transaction.query(sql, values));
  });
}

export function removeAppointment(database: Database, claims: GuardClaims, id: string): Promise<Written> {
  return changing(database, claims, 'DELETE', async (transaction) =>
    one(
      await transaction.query(
        `UPDATE appointments SET deleted_at = clock_timestamp(), updated_at = clock_timestamp()
         WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL RETURNING ${columns}`,
        [id, claims.partition],
      ),
    ),
  );
}

/** A live appointment; `owner` undefined: of anybody. */
export async function getAppointment(
  database: Queryable,
  id: string,
  owner: string | undefined,
): Promise<Appointment | undefined> {
  const { rows } = await database.query(
    `SELECT ${columns} FROM appointments
     WHERE id = $1 AND deleted_at IS NULL AND ($2::text IS NULL OR owner_id = $2)`,
    [id, owner ?? null],
  );
  return rows.map(appointmentOf)[0];
}

/** Sorted by (updated_at, id); one record more than `limit` where there are more. */
export async function listAppointments(database: Queryable, query: ListQuery): Promise<Appointment[]> {
  const { rows } = await database.query(
    `SELECT ${columns} FROM appointments
     WHERE ($1::text IS NULL OR owner_id = $1)
       AND ($2::timestamptz IS NULL OR updated_at >= $2)
       AND ($3::timestamptz IS NULL OR (updated_at, id COLLATE "C") > ($3, $4::text))
       AND ($5::boolean OR deleted_at IS NULL)
     ORDER BY updated_at, id COLLATE "C" LIMIT $6`,
    [
      query.owner ?? null,
      query.since ?? null,
      query.after?.updated_at ?? null,
      query.after?.id ?? null,
      query.includeDeleted,
      query.limit + 1,
    ],
  );
  return rows.map(appointmentOf);
}

export async function allAppointments(database: Queryable): Promise<Appointment[]> {
  return (await database.query(`SELECT ${columns} FROM appointments`)).rows.map(appointmentOf);
}

export async function acceptedWrites(
  database: Queryable,
): Promise<(AcceptedWrite & { readonly epoch: number; readonly mailed: boolean })[]> {
  const { rows } = await database.query('SELECT * FROM accepted_writes ORDER BY n');
  return (rows as Record<string, unknown>[]).map((row) => ({
    at_ms: Number(row['at_ms']),
    user: String(row['user_name']),
    hand: row['hand'] === 'copy' ? 'copy' : 'user',
    method: row['method'] as AcceptedWrite['method'],
    id: String(row['id']),
    owner_id: String(row['owner_id']),
    title: String(row['title']),
    epoch: Number(row['epoch']),
    mailed: row['mailed'] === true,
  }));
}

/** Pairs of live appointments of one calendar that overlap: none, as long as the constraint holds. */
export async function overlaps(database: Queryable): Promise<unknown[]> {
  const { rows } = await database.query(
    `SELECT a.owner_id, a.id, b.id AS other FROM appointments a JOIN appointments b
     ON a.owner_id = b.owner_id AND a.id < b.id
        AND tstzrange(a.starts_at, a.ends_at) && tstzrange(b.starts_at, b.ends_at)
     WHERE a.deleted_at IS NULL AND b.deleted_at IS NULL`,
  );
  return rows;
}

/** Guard, change and log entry: all of them or nothing. No row to change is 404. */
async function changing(
  database: Database,
  claims: GuardClaims,
  method: AcceptedWrite['method'],
  change: (transaction: Queryable) => Promise<Appointment | undefined>,
): Promise<Written> {
  try {
    const appointment = await database.transaction(async (transaction) => {
      const refusal = await guardCheck(transaction, claims);
      if (refusal !== undefined) throw new Refused(refusal);
      const changed = await change(transaction);
      if (changed === undefined) throw new Refused('not-found');
      const copy = claims.access === 'copy';
      // The mail is noted for people's own writes only: a copy repeats what the old platform told already.
      await transaction.query(
        `INSERT INTO accepted_writes (at_ms, user_name, hand, method, id, owner_id, title, epoch, mailed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
        // prettier-ignore
        [Date.now(), claims.user, copy ? 'copy' : 'user', method, changed.id, changed.owner_id, changed.title,
          claims.epoch, !copy],
      );
      return changed;
    });
    return { done: true, appointment };
  } catch (error) {
    if (error instanceof Refused) return { done: false, code: error.code };
    if ((error as { code?: unknown }).code === exclusionViolation) return { done: false, code: 'overlap' };
    throw error;
  }
}

function valuesOf(id: string, claims: GuardClaims, draft: Draft): unknown[] {
  const { title, starts_at, ends_at, location, notes } = draft;
  return [id, claims.partition, title, starts_at, ends_at, location ?? null, notes ?? null];
}

function one(answer: { rows: unknown[] }): Appointment | undefined {
  return answer.rows.map(appointmentOf)[0];
}

function appointmentOf(row: unknown): Appointment {
  const found = row as Omit<Appointment, 'starts_at' | 'ends_at' | 'updated_at' | 'deleted_at'> &
    Record<'starts_at' | 'ends_at' | 'updated_at', Date> & { deleted_at: Date | null };
  return {
    ...found,
    starts_at: found.starts_at.toISOString(),
    ends_at: found.ends_at.toISOString(),
    updated_at: found.updated_at.toISOString(),
    deleted_at: found.deleted_at?.toISOString() ?? null,
  };
}
