/**
 * The trap of every updated column: `now()` is when a transaction began, and its rows show when it ends. A look that
 * comes in between moves past them. So every look goes back to where the oldest transaction began that was still
 * open at the look before, whether it had written by then or not.
 */
import { instantIn, writeInstant } from '../../core/instants.ts';
import type { Database } from './database.ts';

/** How far the first look of a process goes back, ms: it does not know what was open at the look before. */
const unknownMs = 60_000;

/** Of transactions of other roles the time is hidden from a role that is not in pg_read_all_stats; then this one counts. */
const sql = `
SELECT (extract(epoch FROM least(clock_timestamp(), min(at))) * 1000)::text AS ms
FROM (
  SELECT CASE WHEN query = '<insufficient privilege>' THEN clock_timestamp() - interval '60 s' ELSE xact_start END AS at
  FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (backend_type = 'client backend' AND xact_start IS NOT NULL OR query = '<insufficient privilege>')
  UNION ALL
  SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()
) AS transactions`;

export class OpenTransactions {
  readonly #database: Database;
  /** By kind: when the oldest transaction had begun that was open at the last look, the database's clock, ms. */
  readonly #before = new Map<string, number>();

  constructor(database: Database) {
    this.#database = database;
  }

  /** `since`, or earlier. Call before the look that it is for, and `seen` when that has reached its end. */
  async since(
    kind: string,
    since: string,
    signal: AbortSignal,
  ): Promise<{ readonly since: string; readonly seen: () => void }> {
    const [row] = await this.#database.query(sql, [], signal);
    const toldMs = Number(row?.['ms'] ?? Number.NaN);
    const openMs = Number.isNaN(toldMs) ? Date.now() - unknownMs : toldMs;
    const beforeMs = this.#before.get(kind) ?? openMs - unknownMs;
    const asked = instantIn(since);
    const isEarly = asked === undefined || asked.ms <= beforeMs;
    return {
      since: isEarly ? since : writeInstant(Math.floor(beforeMs), asked.notation),
      seen: () => this.#before.set(kind, openMs),
    };
  }
}
