/** Copies into a guarded PostgreSQL: whoever comes late, or stands still, is refused by the database itself (I2, I3). */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Client, Pool } from 'pg';
import { configSchema } from '../../src/config/schema.ts';
import type { CopyWriter } from '../../src/core/ports.ts';
import { guardCheck, installGuard } from '../../src/guard/guard.ts';
import { unlimited } from '../../src/stores/budget.ts';
import { guardCallsOf, type OpenStore, openStore } from '../../src/stores/open.ts';
import { clientConfigOf } from '../../src/stores/postgres/database.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

const signal = new AbortController().signal;
let postgres: TestPostgres;
let pool: Pool;
let store: OpenStore;
let writer: CopyWriter;

beforeAll(async () => {
  postgres = await startPostgres();
  pool = new Pool({ connectionString: postgres.url });
  pool.on('error', () => undefined);
  await installGuard(pool);
  await pool.query('CREATE TABLE notes (id text PRIMARY KEY, owner text NOT NULL, body text)');
  // A test that holds the lock stops every copy in the middle of its transaction.
  await pool.query(`CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF NEW.body = 'waits' THEN PERFORM pg_advisory_xact_lock_shared(1); END IF; RETURN NEW; END $$`);
  await pool.query(
    'CREATE TRIGGER wait_here BEFORE INSERT OR UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION wait_here()',
  );
}, 60_000);
afterAll(async () => {
  // A test that failed may still hold a connection; the server's end is the end of them all.
  void pool?.end();
  await postgres?.stop();
});
beforeEach(async () => {
  await pool.query('TRUNCATE notes, onewriter.guard');
  store = openStore('app', config(), unlimited);
  writer = store.makeWriter();
});
afterEach(() => store.reader.close());

function config(timeoutMs = 20_000) {
  const records = { note: { table: 'notes', id: 'id', partition: 'owner' } };
  return configSchema.parse({
    secret: 'a-secret-of-the-postgres-tests',
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    stores: {
      legacy: { url: 'http://127.0.0.1:1' },
      app: {
        ...{ url: 'http://127.0.0.1:1', guard: true },
        connector: { kind: 'postgres', url: postgres.url, timeoutMs, records },
      },
    },
  });
}

function note(id: string, owner: string, body: string) {
  return { kind: 'note', id, fields: { id, owner, body } };
}

const put = (owner: string, epoch: number, body: string): Promise<void> =>
  writer.put(note(`of ${owner}`, owner, body), { partition: owner, epoch }, false, signal);

const remove = (owner: string, epoch: number): Promise<void> =>
  writer.remove({ kind: 'note', id: `of ${owner}` }, { partition: owner, epoch }, signal);

async function body(owner: string): Promise<string | undefined> {
  const { rows } = await pool.query<{ body: string }>('SELECT body FROM notes WHERE owner = $1', [owner]);
  return rows[0]?.body;
}

/** No copy with the body `waits` gets further than its first row until the work is done. */
async function holdingCopies(work: () => Promise<void>): Promise<void> {
  const holder = await pool.connect();
  holder.on('error', () => undefined);
  await holder.query('SELECT pg_advisory_lock(1)');
  try {
    await work();
  } finally {
    await holder.query('SELECT pg_advisory_unlock(1)');
    holder.release();
  }
}

const refused = { kind: 'refused-by-guard', store: 'app' };

async function waitingFor(what: string): Promise<void> {
  await until(what, async () => {
    const { rows } = await pool.query(`SELECT FROM pg_locks WHERE NOT granted`);
    return rows.length > 0;
  });
}

describe('a copy', () => {
  test('that is older than what the guard has seen is refused, and so is one into a store that owns', async () => {
    await put('u1', 5, 'first');
    await expect(put('u1', 4, 'late')).rejects.toMatchObject(refused);
    await store.guard.seal('app', { partition: 'u1', epoch: 6 }, signal);
    for (const epoch of [5, 6]) await expect(put('u1', epoch, 'late')).rejects.toMatchObject(refused);
    await expect(remove('u1', 6)).rejects.toMatchObject(refused);
    const transaction = await pool.connect();
    await transaction.query('BEGIN');
    expect(await guardCheck(transaction, { partition: 'u1', access: 'write', epoch: 7 })).toBeUndefined();
    await transaction.query('COMMIT');
    transaction.release();
    await expect(put('u1', 7, 'late')).rejects.toThrow(/app-owns/);
    expect(await body('u1')).toBe('first');
  });

  test('of many partitions in one call is written as a whole, or refused as a whole', async () => {
    await store.guard.seal('app', { partition: 'u3', epoch: 5 }, signal);
    const copies = ['u4', 'u2', 'u3', 'u1'].map((owner) => ({
      copy: note(`of ${owner}`, owner, 'x'),
      stamp: { partition: owner, epoch: 4 },
    }));
    await expect(writer.putMany('note', copies, signal)).rejects.toMatchObject(refused);
    expect((await pool.query('SELECT FROM notes')).rowCount).toBe(0);
    const { written } = await writer.putMany(
      'note',
      copies.filter(({ stamp }) => stamp.partition !== 'u3'),
      signal,
    );
    expect(written.size).toBe(3);
    expect((await pool.query('SELECT FROM notes')).rowCount).toBe(3);
  });

  test('that was let in makes the seal wait until it has ended; what comes after it is refused', async () => {
    let copying: Promise<void> | undefined;
    let sealing: Promise<void> | undefined;
    let sealed = false;
    await holdingCopies(async () => {
      copying = put('u1', 3, 'waits');
      await waitingFor('the copy stands in the middle of its transaction');
      sealing = store.guard
        .seal('app', { partition: 'u1', epoch: 4 }, signal)
        .then(() => void (sealed = true));
      await until('the seal waits for it', async () => {
        const { rows } = await pool.query(
          `SELECT FROM pg_locks WHERE NOT granted AND locktype <> 'advisory'`,
        );
        return rows.length > 0;
      });
      expect(sealed).toBe(false);
      expect(await body('u1')).toBeUndefined();
    });
    await sealing;
    // It was committed before the seal was answered, so whoever compares after the seal has seen it.
    expect(await body('u1')).toBe('waits');
    await copying;
    await expect(put('u1', 4, 'late')).rejects.toMatchObject(refused);
  }, 60_000);

  test('races the seal a hundred times: nothing changes any more once it is answered', async () => {
    let won = 0;
    const rounds = Array.from({ length: 100 }, (_, at) => `p${at}`);
    for (const owner of rounds) {
      await put(owner, 1, 'before');
      const late = [put(owner, 2, 'a'), put(owner, 2, 'b'), remove(owner, 2)].map((one) =>
        one.then(
          () => true,
          (error: { kind?: string }) => {
            expect(error).toMatchObject(refused);
            return false;
          },
        ),
      );
      await store.guard.seal('app', { partition: owner, epoch: 2 }, signal);
      const atSeal = await body(owner);
      if ((await Promise.all(late)).includes(true)) won += 1;
      expect(await body(owner)).toBe(atSeal);
    }
    expect(won).toBeGreaterThan(0);
  }, 60_000);

  test('of a process that stands still in the middle holds up nobody for longer than its timeout', async () => {
    const { connector } = config(400).stores.app;
    if (connector?.kind !== 'postgres') throw new Error('no connector');
    // The connection as the writer has it; nothing but the server ends it here.
    const frozen = new Client(clientConfigOf('app', connector));
    const lost = new Promise<void>((settle) => frozen.on('error', () => settle()));
    await frozen.connect();
    try {
      await frozen.query('BEGIN');
      await frozen.query(`SELECT onewriter.check('u1', 'copy', 1)`);
      await frozen.query(`INSERT INTO notes VALUES ('of u1', 'u1', 'frozen')`);
      await store.guard.seal('app', { partition: 'u1', epoch: 2 }, AbortSignal.timeout(15_000));
      await lost;
    } finally {
      await frozen.end().catch(() => undefined);
    }
    expect(await body('u1')).toBeUndefined();
  }, 30_000);
});

describe('the calls to the guard', () => {
  test('are answered as over HTTP', async () => {
    const calls = guardCallsOf({ legacy: store, app: store }, config());
    const stamp = { partition: 'u1', epoch: 3 };
    expect(await calls.verdict('app', stamp, 'copy', signal)).toMatchObject({
      accept: true,
      epoch: 0,
      owner: 'legacy',
    });
    await calls.seal('app', stamp, signal);
    expect(await calls.verdict('app', stamp, 'write', signal)).toMatchObject({
      ...{ accept: false, code: 'closed-epoch', epoch: 3, owner: 'app', closed: true, written: false },
    });
    expect(await calls.advance('app', { partition: 'u1', epoch: 5 }, signal)).toMatchObject({
      epoch: 5,
      written: false,
    });
    await expect(calls.advance('app', stamp, signal)).rejects.toMatchObject(refused);
    await expect(calls.seal('app', stamp, signal)).rejects.toMatchObject(refused);
    await expect(calls.seal('legacy', stamp, signal)).rejects.toThrow(/without a guard/);
  });

  test('say where the database has none, and so does a copy', async () => {
    await pool.query('ALTER SCHEMA onewriter RENAME TO elsewhere');
    try {
      await expect(store.guard.verdict('app', { partition: 'u1', epoch: 1 }, 'read', signal)).rejects.toThrow(
        /has no guard: install src\/guard\/guard.sql/,
      );
      await expect(put('u1', 1, 'unguarded')).rejects.toMatchObject({ kind: 'bad-answer' });
      expect(await body('u1')).toBeUndefined();
    } finally {
      await pool.query('ALTER SCHEMA elsewhere RENAME TO onewriter');
    }
  });

  test('do not wait for copies that take all connections', async () => {
    const copying: Promise<void>[] = [];
    await holdingCopies(async () => {
      for (let at = 0; at < 20; at += 1) copying.push(put(`c${at}`, 1, 'waits').catch(() => undefined));
      await waitingFor('copies take all connections');
      await store.guard.advance('app', { partition: 'u1', epoch: 1 }, AbortSignal.timeout(20_000));
    });
    await Promise.allSettled(copying);
  }, 60_000);
});
