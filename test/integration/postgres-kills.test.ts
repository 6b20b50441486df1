/** A first copy into a guarded PostgreSQL whose worker is killed, also in the middle of a transaction with many records. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Pool } from 'pg';
import { installGuard } from '../../src/guard/guard.ts';
import { type CliProcess, startCli } from '../support/cli.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { connectorFor, startRestStore, type TestRestStore } from '../support/rest-store.ts';
import { until } from '../support/until.ts';

const records = 4_000;
const directory = mkdtempSync(join(tmpdir(), 'onewriter-postgres-kills-'));
let postgres: TestPostgres;
let redis: TestRedis;
let pool: Pool;
let legacy: TestRestStore;
let worker: CliProcess | undefined;

beforeAll(async () => {
  [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
  pool = new Pool({ connectionString: postgres.url });
  pool.on('error', () => undefined);
  await installGuard(pool);
  await pool.query('CREATE TABLE appointments (id text PRIMARY KEY, owner_id text NOT NULL, title text)');
  await pool.query(`CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF NEW.title = 'waits' THEN PERFORM pg_advisory_xact_lock_shared(1); END IF; RETURN NEW; END $$`);
  await pool.query(
    'CREATE TRIGGER wait_here BEFORE INSERT OR UPDATE ON appointments FOR EACH ROW EXECUTE FUNCTION wait_here()',
  );
  const paging = { paging: 'cursor', pageSize: 200 } as const;
  legacy = await startRestStore({
    ...paging,
    records: Array.from({ length: records }, (_, at) => ({
      ...{ id: `r${at}`, owner_id: `u${at % 300}` },
      title: at === 1_650 ? 'waits' : `title ${at}`,
    })),
  });
  const appointment = { table: 'appointments', id: 'id', partition: 'owner_id', bulkMax: 100 };
  writeFileSync(
    join(directory, 'onewriter.json'),
    JSON.stringify({
      ...{
        proxy: { port: 0 },
        redis: { url: redis.url },
        dataDir: directory,
        secret: 'a-secret-of-the-kills',
      },
      stores: {
        legacy: { url: legacy.url, connector: connectorFor(paging) },
        app: {
          // Users' requests go there, and there are none.
          ...{ url: 'http://127.0.0.1:9', guard: true },
          connector: { kind: 'postgres', url: postgres.url, timeoutMs: 10_000, records: { appointment } },
        },
      },
      identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
      sync: { pollMs: 200 },
    }),
  );
}, 60_000);
afterAll(async () => {
  worker?.child.kill('SIGKILL');
  await worker?.ended;
  await legacy?.stop();
  await pool?.end();
  await Promise.all([postgres?.stop(), redis?.stop()]);
  rmSync(directory, { recursive: true, force: true });
});

let died: string | undefined;

function startWorker(): void {
  const started = startCli(['worker', '--config', join(directory, 'onewriter.json')]);
  worker = started;
  void started.ended.then(({ stderr }) => {
    if (worker === started) died = stderr;
  });
}

async function goesOnUntil(what: string, holds: () => Promise<boolean>): Promise<void> {
  await until(
    what,
    async () => {
      if (died !== undefined) throw new Error(`the worker ended by itself: ${died}`);
      return holds();
    },
    120_000,
  );
}

async function kill(): Promise<void> {
  const killed = worker;
  worker = undefined;
  killed?.child.kill('SIGKILL');
  await killed?.ended;
}

async function count(sql: string): Promise<number> {
  return Number((await pool.query<{ n: string }>(`SELECT count(*) AS n FROM ${sql}`)).rows[0]?.n);
}

test('every call is written as a whole or not at all, and in the end nothing is missing and nothing is doubled', async () => {
  const holder = await pool.connect();
  await holder.query('SELECT pg_advisory_lock(1)');
  startWorker();
  await goesOnUntil(
    'a copy stands in the middle of a transaction with many records',
    async () => (await count(`pg_locks WHERE locktype = 'advisory' AND NOT granted`)) > 0,
  );
  const before = await count('appointments');
  await kill();
  await holder.query('SELECT pg_advisory_unlock(1)');
  holder.release();
  await until(
    'the database has ended what the dead left behind',
    async () => (await count(`pg_stat_activity WHERE application_name = 'onewriter'`)) === 0,
  );
  // Others of the same worker may have ended in the meantime, but of this one nothing was written.
  expect(await count(`appointments WHERE title = 'waits'`)).toBe(0);
  expect(await count('appointments')).toBeGreaterThanOrEqual(before);
  expect((await count('appointments')) % 100).toBe(0);

  for (const share of [0.6, 0.8]) {
    startWorker();
    const goesOn = async (): Promise<boolean> => (await count('appointments')) >= share * records;
    await goesOnUntil(`it is at ${share}`, goesOn);
    await kill();
    const at = Math.round(share * 1_000);
    legacy.set({ id: `r${at}`, owner_id: `u${at % 300}`, title: 'changed' });
    legacy.remove(`r${at + 1}`);
    legacy.set({ id: `n${at}`, owner_id: 'u1', title: 'new' });
  }
  startWorker();
  const wanted = (): string =>
    JSON.stringify([...legacy.records.values()].map((record) => JSON.stringify(record)).toSorted());
  const held = async (): Promise<string> => {
    const { rows } = await pool.query('SELECT id, owner_id, title FROM appointments');
    return JSON.stringify(rows.map((row) => JSON.stringify(row)).toSorted());
  };
  await goesOnUntil('the copy is complete and equal', async () => (await held()) === wanted());
}, 600_000);
