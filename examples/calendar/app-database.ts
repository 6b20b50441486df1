/**
 * The new application's database: PostgreSQL, embedded (PGlite) or a server. One rule that the old
 * platform never had lives here as a constraint: no two live appointments of a calendar overlap.
 */
import { PGlite } from '@electric-sql/pglite';
import { btree_gist } from '@electric-sql/pglite/contrib/btree_gist';
import { Pool } from 'pg';
import { installGuard, type Queryable } from '../../src/guard/guard.ts';

export interface Database extends Queryable {
  /** Commits when `work` resolves, rolls back when it throws. */
  transaction<Result>(work: (transaction: Queryable) => Promise<Result>): Promise<Result>;
  close(): Promise<void>;
}

const schema = [
  'CREATE EXTENSION IF NOT EXISTS btree_gist',
  `CREATE TABLE IF NOT EXISTS appointments (
     id text PRIMARY KEY,
     owner_id text NOT NULL,
     title text NOT NULL,
     starts_at timestamptz NOT NULL,
     ends_at timestamptz NOT NULL,
     location text,
     notes text,
     updated_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
     deleted_at timestamptz(3),
     CONSTRAINT no_overlap EXCLUDE USING gist
       (owner_id WITH =, tstzrange(starts_at, ends_at) WITH &&) WHERE (deleted_at IS NULL)
   )`,
  'CREATE INDEX IF NOT EXISTS appointments_feed ON appointments (updated_at, id)',
  'CREATE INDEX IF NOT EXISTS appointments_owner ON appointments (owner_id, updated_at, id)',
  `CREATE TABLE IF NOT EXISTS accepted_writes (
     n bigserial PRIMARY KEY,
     at_ms bigint NOT NULL,
     user_name text NOT NULL,
     hand text NOT NULL,
     method text NOT NULL,
     id text NOT NULL,
     owner_id text NOT NULL,
     title text NOT NULL,
     epoch bigint NOT NULL,
     mailed boolean NOT NULL
   )`,
];

/** `url`: a PostgreSQL server; else PGlite, in memory or in `dataDir`. Makes the tables and the guard. */
export async function openDatabase(options: {
  readonly url?: string | undefined;
  readonly dataDir?: string | undefined;
}): Promise<Database> {
  const database = options.url === undefined ? await openEmbedded(options.dataDir) : openServer(options.url);
  try {
    for (const statement of schema) await database.query(statement);
    await installGuard(database);
    return database;
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** One connection: PGlite itself runs one transaction after the other, and single queries in between. */
async function openEmbedded(dataDir: string | undefined): Promise<Database> {
  const pglite = await PGlite.create({
    ...(dataDir === undefined ? {} : { dataDir }),
    extensions: { btree_gist },
  });
  return {
    query: (sql, parameters) => pglite.query(sql, parameters),
    transaction: (work) =>
      pglite.transaction((transaction) =>
        work({ query: (sql, parameters) => transaction.query(sql, parameters) }),
      ),
    close: () => pglite.close(),
  };
}

function openServer(url: string): Database {
  const pool = new Pool({ connectionString: url, max: 20 });
  pool.on('error', () => undefined); // an idle connection broke; the next query reports it
  return {
    query: (sql, parameters) => pool.query(sql, parameters),
    async transaction(work) {
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        const result = await work(client);
        await client.query('COMMIT');
        client.release();
        return result;
      } catch (error) {
        // A connection that cannot even roll back is not given to anybody else.
        await client.query('ROLLBACK').then(
          () => client.release(),
          (broken: unknown) => client.release(broken instanceof Error ? broken : true),
        );
        throw error;
      }
    },
    close: () => pool.end(),
  };
}
