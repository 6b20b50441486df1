/** The sync between a PostgreSQL database and a small REST platform, in both places, with a real Redis. */
import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Pool } from 'pg';
import { checkStore } from '../../src/cli/doctor/stores.ts';
import { installGuard } from '../../src/guard/guard.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';

let postgres: TestPostgres;
let pool: Pool;
let server: TestRedis;
let rig: SyncRig | undefined;

beforeAll(async () => {
  [postgres, server] = await Promise.all([startPostgres(), startRedis()]);
  pool = new Pool({ connectionString: postgres.url });
  pool.on('error', () => undefined);
  await installGuard(pool);
  await pool.query(readFileSync('src/stores/postgres/notice.sql', 'utf8'));
}, 60_000);
afterAll(async () => {
  await pool?.end();
  await Promise.all([postgres?.stop(), server?.stop()]);
});
beforeEach(async () => {
  await pool.query('DROP TABLE IF EXISTS appointments; TRUNCATE onewriter.guard');
});
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
});

function connector(record: Record<string, unknown> = {}, more: Record<string, unknown> = {}) {
  const appointments = { table: 'appointments', id: 'id', partition: 'owner_id', pageSize: 50, ...record };
  return {
    kind: 'postgres',
    url: postgres.url,
    timeoutMs: 5_000,
    records: { appointment: appointments },
    ...more,
  };
}

async function rows(): Promise<Record<string, unknown>[]> {
  return (
    await pool.query<Record<string, unknown>>('SELECT id, owner_id, title FROM appointments ORDER BY id')
  ).rows;
}

const insert = (id: string, owner: string, title = `appointment ${id}`) =>
  pool.query('INSERT INTO appointments (id, owner_id, title) VALUES ($1, $2, $3)', [id, owner, title]);

const touched = `CREATE OR REPLACE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END $$`;

describe.each([
  ['with an updated column', { version: 'updated_at' }, 'updated_at timestamptz DEFAULT clock_timestamp()'],
  [
    'with an updated column and marks of deletion',
    { version: 'updated_at', deleted: 'deleted_at' },
    'updated_at timestamptz DEFAULT clock_timestamp(), deleted_at timestamptz',
  ],
  ['without an updated column', {}, 'made timestamptz DEFAULT now()'],
])('a legacy database %s', (_what, record: { version?: string; deleted?: string }, columns) => {
  test('is copied, and followed: what is new, changed, moved and deleted', async () => {
    await pool.query(
      `CREATE TABLE appointments (id text PRIMARY KEY, owner_id text NOT NULL, title text, ${columns})`,
    );
    if (record.version !== undefined) {
      await pool.query(touched);
      await pool.query(
        'CREATE TRIGGER touched BEFORE UPDATE ON appointments FOR EACH ROW EXECUTE FUNCTION touched()',
      );
    }
    for (let at = 0; at < 120; at += 1) await insert(`a${at}`, `u${at % 5}`);
    rig = await startSyncRig(server, {
      legacyStore: { connector: connector(record) },
      sync: { fullPassMs: 500 },
    });
    const { app, sync } = rig;
    await sync.startWorkers();
    await until('all are copied', () => app.records.size === 120, 30_000);
    await insert('new', 'u9');
    await pool.query(`UPDATE appointments SET title = 'changed' WHERE id = 'a1'`);
    await pool.query(`UPDATE appointments SET owner_id = 'u9' WHERE id = 'a2'`);
    await pool.query(
      record.deleted === undefined
        ? `DELETE FROM appointments WHERE id = 'a3'`
        : `UPDATE appointments SET deleted_at = now() WHERE id = 'a3'`,
    );
    const copied = () =>
      app.records.get('a1')?.['title'] === 'changed' &&
      app.records.get('a2')?.['owner_id'] === 'u9' &&
      app.records.has('new') &&
      !app.records.has('a3');
    await until('the changes are copied', copied, 30_000);
    expect(app.records.size).toBe(120);
    const compared = await sync.desk.compare('u1', new AbortController().signal);
    expect(compared.differences).toEqual([]);
  }, 60_000);
});

describe('a doorbell in the database', () => {
  const kindOfDoorbell = { notify: 'onewriter_changes' };

  async function startRinging(): Promise<SyncRig> {
    await pool.query('CREATE TABLE appointments (id text PRIMARY KEY, owner_id text NOT NULL, title text)');
    await pool.query(`CREATE TRIGGER onewriter_notice AFTER INSERT OR UPDATE OR DELETE ON appointments FOR EACH ROW
      EXECUTE FUNCTION onewriter.notice('onewriter_changes', 'appointment', 'id', 'owner_id')`);
    await insert('a1', 'u1');
    // No poll but the first one, and those that somebody asks for.
    rig = await startSyncRig(server, {
      legacyStore: { connector: connector({}, kindOfDoorbell) },
      sync: { pollMs: 3_600_000, fullPassMs: 3_600_000 },
    });
    await rig.sync.startWorkers();
    await until('the first look has copied it', () => rig?.app.records.has('a1') === true, 30_000);
    return rig;
  }

  const listeners = async (): Promise<number[]> => {
    const { rows: found } = await pool.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query = 'SELECT 1' AND application_name = 'onewriter'`,
    );
    return found.map(({ pid }) => pid);
  };

  test('has what is changed copied at once, also a move and a delete, and rings for nothing that it does not own', async () => {
    const running = await startRinging();
    const { app, sync } = running;
    await insert('a2', 'u2');
    await until('a new one', () => app.records.has('a2'), 30_000);
    await pool.query(`UPDATE appointments SET title = 'changed' WHERE id = 'a2'`);
    await until('a change', () => app.records.get('a2')?.['title'] === 'changed', 30_000);
    await pool.query(`UPDATE appointments SET owner_id = 'u3' WHERE id = 'a2'`);
    await until('a move', () => app.records.get('a2')?.['owner_id'] === 'u3', 30_000);
    await pool.query(`DELETE FROM appointments WHERE id = 'a2'`);
    await until('a delete', () => !app.records.has('a2'), 30_000);
    await running.flip('u1');
    await pool.query(`UPDATE appointments SET title = 'stray' WHERE id = 'a1'`);
    await insert('a3', 'u3');
    await until('what came after it', () => app.records.has('a3'), 30_000);
    await until('nothing is left', async () => (await sync.backlog()) === 0);
    expect(app.records.get('a1')?.['title']).toBe('appointment a1');
  }, 60_000);

  test('that is not heard for a while is replaced by a look at everything', async () => {
    const { app, events } = await startRinging();
    const before = await until('somebody listens', async () => {
      const found = await listeners();
      return found.length > 0 && found;
    });
    // In one transaction with the end of the connection: nobody hears of it.
    await pool.query('ALTER TABLE appointments DISABLE TRIGGER onewriter_notice');
    await insert('missed', 'u1');
    await pool.query('ALTER TABLE appointments ENABLE TRIGGER onewriter_notice');
    for (const pid of before) await pool.query('SELECT pg_terminate_backend($1)', [pid]);
    await until('it was copied all the same', () => app.records.has('missed'), 30_000);
    expect(events.some(({ event }) => event === 'sync.not-listening')).toBe(true);
    await insert('heard', 'u1');
    await until('it is heard again', () => app.records.has('heard'), 30_000);
  }, 60_000);

  test('that says what nobody understands does no harm', async () => {
    const { app } = await startRinging();
    for (const text of [
      '',
      'x',
      '{}',
      '[1]',
      '{"kind":"other","id":"1","partition":"u1"}',
      '{"kind":"appointment","id":7,"partition":"u1"}',
    ]) {
      await pool.query('SELECT pg_notify($1, $2)', ['onewriter_changes', text]);
    }
    await insert('a2', 'u1');
    await until('a new one', () => app.records.has('a2'), 30_000);
    expect(app.records.size).toBe(2);
  }, 60_000);
});

describe('an application whose database is written by the copies', () => {
  async function startGuarded(record: Record<string, unknown> = {}, columns = ''): Promise<SyncRig> {
    await pool.query(
      `CREATE TABLE appointments (id text PRIMARY KEY, owner_id text NOT NULL, title text, note text${columns})`,
    );
    rig = await startSyncRig(server, {
      legacy: { softDeletes: true, since: true },
      appStore: { guard: true, connector: connector({ bulkMax: 40, ...record }) },
    });
    return rig;
  }

  test('gets a first copy in few transactions, and every change', async () => {
    const { legacy, sync } = await startGuarded();
    for (let at = 0; at < 100; at += 1) legacy.set(appointment(`a${at}`, `u${at % 4}`));
    await sync.startWorkers();
    await until('all are copied', async () => (await rows()).length === 100, 30_000);
    legacy.set(appointment('a1', 'u1', 'changed'));
    legacy.remove('a2');
    await until(
      'the changes are copied',
      async () => {
        const held = await rows();
        return held.length === 99 && held.some(({ id, title }) => id === 'a1' && title === 'changed');
      },
      30_000,
    );
    const report = await sync.desk.bringUp('u1', new AbortController().signal);
    expect(report).toMatchObject({ recordsCopied: 0 });
  }, 60_000);

  test('takes no copies any more of a partition that it owns, whatever a worker believes', async () => {
    const running = await startGuarded();
    const { legacy, sync } = running;
    legacy.set(appointment('a1', 'u1'));
    const signal = new AbortController().signal;
    await sync.desk.bringUp('u1', signal);
    await running.order('u1', { kind: 'fence', to: 'app', attempt: 'one', fenceMs: 10_000 });
    await sync.guardCalls.seal('app', { partition: 'u1', epoch: 2 }, signal);
    legacy.set(appointment('a1', 'u1', 'late'));
    await expect(sync.desk.catchUp('u1', 'one', signal)).rejects.toThrow(/guard refused the copy/);
    expect(await rows()).toMatchObject([{ title: 'appointment a1' }]);
  }, 60_000);

  test('leaves what it cannot hold in a dead letter that names the field, and copies the rest', async () => {
    const { legacy, sync } = await startGuarded();
    legacy.set({ ...appointment('bad', 'u1'), colour: 'red' });
    legacy.set(appointment('good', 'u1'));
    await sync.startWorkers();
    await until('the letter is there', async () => (await sync.deadLetters.total()) > 0, 30_000);
    expect((await rows()).map(({ id }) => id)).toEqual(['good']);
    const [letter] = await sync.deadLetters.list();
    expect(letter).toMatchObject({
      id: 'bad',
      reason: expect.stringContaining('no column for the field "colour"'),
    });
  }, 60_000);

  test('is told of by doctor: what is missing, and what is slow', async () => {
    await pool.query(
      'CREATE TABLE appointments (id bigserial, owner_id text, title text, updated_at timestamptz)',
    );
    rig = await startSyncRig(server, {
      appStore: {
        guard: true,
        connector: connector({ version: 'updated_at' }, { notify: 'onewriter_changes' }),
      },
    });
    const told = async (): Promise<string> =>
      (await checkStore((rig as SyncRig).config, 'app'))
        .map(({ level, detail, advice }) => `${level}: ${detail} ${advice ?? ''}`)
        .join('\n');
    const first = await told();
    expect(first).toContain('fail: copies cannot be written: nothing makes "id" unique');
    expect(first).toContain('warn: "id" is filled from a sequence');
    expect(first).toContain('CREATE INDEX ON "appointments" ("owner_id", "id");');
    expect(first).toContain('CREATE INDEX ON "appointments" ("updated_at", "id");');
    expect(first).toContain('warn: no trigger tells of changes on onewriter_changes');
    expect(first).toContain('ok: the guard in the database answers');
    const statements = [...first.matchAll(/CREATE (?:INDEX|TRIGGER) [^;]*;/g)].map(
      ([statement]) => statement,
    );
    for (const statement of [...statements, 'ALTER TABLE appointments ADD PRIMARY KEY (id)'])
      await pool.query(statement);
    const second = await told();
    expect(second).toContain('ok: a trigger tells of changes on onewriter_changes');
    for (const mended of ['CREATE INDEX', 'cannot be written']) expect(second).not.toContain(mended);
    expect(second).not.toContain('fail:');
  }, 60_000);

  test('is told of by doctor where the role may not do what is needed', async () => {
    await pool.query(
      'CREATE TABLE appointments (id text PRIMARY KEY, owner_id text, title text, updated_at timestamptz)',
    );
    await pool.query('DROP OWNED BY narrow').catch(() => undefined);
    await pool.query(
      'DROP ROLE IF EXISTS narrow; CREATE ROLE narrow LOGIN; GRANT SELECT ON appointments TO narrow',
    );
    const url = postgres.url.replace('postgres@', 'narrow@');
    const change = connector({ version: 'updated_at' }, { url });
    rig = await startSyncRig(server, { appStore: { guard: true, connector: change } });
    const told = async (): Promise<string> =>
      (await checkStore((rig as SyncRig).config, 'app'))
        .map(({ detail, advice }) => `${detail} ${advice ?? ''}`)
        .join('\n');
    const first = await told();
    expect(first).toContain('the role may not use the guard');
    expect(first).toContain('the role lacks INSERT, UPDATE, DELETE on "appointments"');
    for (const [statement] of first.matchAll(/GRANT [^;]*;/g)) await pool.query(statement);
    const second = await told();
    expect(second).not.toContain('GRANT');
    expect(second).toContain('the guard in the database answers');
  }, 60_000);
});

describe('a rollback window to a legacy database', () => {
  test('writes under the version of the row, and leaves alone what somebody has changed there', async () => {
    await pool.query('CREATE TABLE appointments (id text PRIMARY KEY, owner_id text NOT NULL, title text)');
    for (const id of ['a1', 'a2', 'a3']) await insert(id, 'u1');
    rig = await startSyncRig(server, {
      legacyStore: { connector: connector() },
      sync: { rollbackWindow: 'on', fullPassMs: 300 },
    });
    const { app, sync } = rig;
    const signal = new AbortController().signal;
    await sync.desk.bringUp('u1', signal);
    await rig.order('u1', { kind: 'fence', to: 'app', attempt: 'one', fenceMs: 20_000 });
    await sync.desk.catchUp('u1', 'one', signal);
    await rig.order('u1', { kind: 'commit', attempt: 'one' });
    await rig.order('u1', { kind: 'release', attempt: 'one' });
    await pool.query(`UPDATE appointments SET title = 'somebody else' WHERE id = 'a2'`);
    app.set(appointment('a1', 'u1', 'from the app'));
    app.set(appointment('a2', 'u1', 'from the app, too'));
    app.set(appointment('a4', 'u1', 'new'));
    app.remove('a3');
    await sync.startWorkers();
    const wanted = [
      { id: 'a1', owner_id: 'u1', title: 'from the app' },
      { id: 'a2', owner_id: 'u1', title: 'somebody else' },
      { id: 'a4', owner_id: 'u1', title: 'new' },
    ];
    await until('copied back', async () => JSON.stringify(await rows()) === JSON.stringify(wanted), 30_000);
    const strays = await until('the stray is in the book', async () => {
      const found = await sync.strays.list();
      return found.length > 0 && found;
    });
    expect(strays).toMatchObject([{ record: 'a2', change: 'changed' }]);
  }, 60_000);
});
