/** The PostgreSQL connector against a real server: what is read, what is written, and what is refused. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Pool } from 'pg';
import { configSchema } from '../../src/config/schema.ts';
import type { ListScope, Page } from '../../src/core/ports.ts';
import type { CopyForm, Fields, StoreRecord } from '../../src/core/records.ts';
import { installGuard } from '../../src/guard/guard.ts';
import { unlimited } from '../../src/stores/budget.ts';
import { type OpenStore, openStore } from '../../src/stores/open.ts';
import { Authority, noOpenssl } from '../support/certificates.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

let postgres: TestPostgres;
let pool: Pool;
let stores: OpenStore[] = [];
const signal = new AbortController().signal;
const stamp = (partition: string, epoch = 1) => ({ partition, epoch });

beforeAll(async () => {
  postgres = await startPostgres();
  pool = new Pool({ connectionString: postgres.url });
  pool.on('error', () => undefined);
  await installGuard(pool);
}, 60_000);
afterAll(async () => {
  await pool?.end();
  await postgres?.stop();
});
beforeEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.reader.close()));
  await pool.query('DROP SCHEMA IF EXISTS "Cal endar" CASCADE');
  await pool.query('CREATE SCHEMA "Cal endar"');
  await pool.query('TRUNCATE onewriter.guard');
});
afterAll(() => Promise.all(stores.map((store) => store.reader.close())));

async function table(columns: string, name = '"Cal endar"."Appoint""ments"'): Promise<void> {
  await pool.query(`CREATE TABLE ${name} (${columns})`);
}

function open(
  record: Record<string, unknown> = {},
  { guard = false, ...connector }: Record<string, unknown> = {},
): OpenStore {
  const config = configSchema.parse({
    secret: 'a-secret-of-the-postgres-tests',
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    stores: {
      legacy: { url: 'http://127.0.0.1:1' },
      app: {
        url: 'http://127.0.0.1:1',
        guard,
        connector: {
          kind: 'postgres',
          url: postgres.url,
          timeoutMs: 5_000,
          records: {
            appointment: {
              ...{ table: 'Cal endar."Appoint""ments"', id: 'id', partition: 'owner' },
              ...record,
            },
          },
          ...connector,
        },
      },
    },
  });
  const store = openStore('app', config, unlimited);
  stores.push(store);
  return store;
}

async function listed(store: OpenStore, scope: ListScope = {}): Promise<readonly StoreRecord[]> {
  return (await pagesOf(store, scope)).flatMap(({ records }) => records);
}

async function pagesOf(store: OpenStore, scope: ListScope = {}): Promise<readonly Page[]> {
  const pages: Page[] = [];
  for await (const page of store.reader.pages('appointment', scope, signal)) pages.push(page);
  return pages;
}

function copy(fields: Fields): CopyForm {
  return { kind: 'appointment', id: textOf(fields['id']), fields };
}

function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}

const put = (store: OpenStore, fields: Fields, epoch = 1): Promise<void> =>
  store.makeWriter().put(copy(fields), stamp(textOf(fields['owner']), epoch), false, signal);

const plainTable = `id text PRIMARY KEY, owner text NOT NULL, title text`;

describe('values', () => {
  test('come out as JSON that means the same everywhere, whatever the server has set', async () => {
    await table(
      `id uuid PRIMARY KEY, owner text NOT NULL, at timestamptz, local timestamp, day date, time time,
      small int, big bigint, money numeric(30,10), ratio double precision, ok boolean, bytes bytea, doc jsonb,
      raw json, tags text[], matrix int[][], mood "Cal endar".mood, span interval, none text`.replace(
        '"Cal endar".mood',
        'text',
      ),
    );
    await pool.query(`ALTER DATABASE postgres SET timezone TO 'Asia/Kolkata'`);
    await pool.query(`INSERT INTO "Cal endar"."Appoint""ments" VALUES ('0b0e6f6e-3c0a-4c70-9a0e-6f2b8a3a0001', 'u1',
      '2026-03-01 12:00:00.123456+02', '2026-03-01 12:00', '2026-03-01', '12:30', 7, 9007199254740993,
      12345678901234567890.5, 0.1, true, '\\x00ff10', '{"a": [1, null], "b": {"c": "d"}}', '{"z": 1.50}',
      '{a,"b c",NULL}', '{{1,2},{3,4}}', 'glad', '1 day 2 hours', NULL)`);
    const [record] = await listed(open());
    await pool.query(`ALTER DATABASE postgres RESET timezone`);
    expect(record).toMatchObject({
      id: '0b0e6f6e-3c0a-4c70-9a0e-6f2b8a3a0001',
      partition: 'u1',
      deleted: false,
      fields: {
        at: '2026-03-01T10:00:00.123456Z',
        local: '2026-03-01T12:00:00Z',
        day: '2026-03-01',
        time: '12:30:00',
        small: 7,
        big: '9007199254740993',
        money: '12345678901234567890.5000000000',
        ratio: 0.1,
        ok: true,
        bytes: 'AP8Q',
        doc: { a: [1, null], b: { c: 'd' } },
        raw: { z: 1.5 },
        tags: ['a', 'b c', null],
        matrix: [
          [1, 2],
          [3, 4],
        ],
        span: 'P1DT2H',
        none: null,
      },
    });
  });

  test('go back in as they came out', async () => {
    await table(`id bigint PRIMARY KEY, owner text NOT NULL, at timestamptz, local timestamp, day date, money numeric(12,2),
      bytes bytea, doc jsonb, tags text[], ok boolean, "a.b" text, made int GENERATED ALWAYS AS (1) STORED`);
    const store = open({ forms: { money: 'text' } });
    const fields = {
      ...{ id: 17, owner: 'u1', at: '2026-03-01T12:00:00+02:00', local: '2026-03-01T12:00:00.5+02:00' },
      ...{ day: '2026-03-01', money: '12.50', bytes: 'AP8Q', doc: { a: ['x', null] }, tags: ['a', 'b"c'] },
      ...{ ok: false, 'a.b': "it's; DROP TABLE x" },
    };
    await put(store, fields);
    const [record] = await listed(store);
    expect(record?.id).toBe('17');
    expect(record?.fields).toEqual({
      ...fields,
      ...{ at: '2026-03-01T10:00:00Z', local: '2026-03-01T10:00:00.5Z', made: 1 },
    });
    await put(store, { ...fields, at: null, tags: null });
    expect((await listed(store))[0]?.fields).toMatchObject({ at: null, tags: null, money: '12.50' });
  });

  test.each([
    ['a number that would be rounded', { price: 12.345 }],
    ['a text where a number is kept', { price: '12.5' }],
    ['a text that is too long', { title: 'x'.repeat(11) }],
    ['a field without a column', { unknown: 'x' }],
    ['bytes that are no base64', { bytes: '%' }],
    ['a text with a NUL', { title: 'a\u0000b' }],
    ['a broken character', { title: 'a\ud800b' }],
    ['a time that is none', { at: 'yesterday-ish' }],
    ['nothing where something must be', { needed: null }],
  ])('that cannot be kept as they are, are refused and not written: %s', async (_what, field) => {
    await table(`id text PRIMARY KEY, owner text NOT NULL, title varchar(10), price numeric(10,2), bytes bytea, at timestamptz,
      needed text NOT NULL DEFAULT 'x'`);
    const store = open();
    await expect(put(store, { id: '1', owner: 'u1', ...field })).rejects.toMatchObject({ kind: 'rejected' });
    expect(await listed(store)).toEqual([]);
    await put(store, { id: '1', owner: 'u1', unknown: null });
    expect(await listed(store)).toHaveLength(1);
  });

  test('of a user are in no message', async () => {
    await table('id text PRIMARY KEY, owner text NOT NULL, at timestamptz, n int');
    for (const field of [{ at: 'private-words' }, { n: 'private-words' }]) {
      const failed = await put(open(), { id: '1', owner: 'u1', ...field }).catch(
        (error: unknown) => error as Error,
      );
      expect(failed).toMatchObject({ kind: 'rejected' });
      expect(`${String(failed)} ${String((failed as Error).cause)}`).not.toContain('private-words');
    }
  });
});

describe('lists', () => {
  test('are read page by page in one order, over all and by partition, and go on where another reader stopped', async () => {
    await table(plainTable);
    await pool.query(
      `INSERT INTO "Cal endar"."Appoint""ments" SELECT 'r' || n, 'u' || n % 3, 'x' FROM generate_series(1, 100) AS n`,
    );
    const store = open({ pageSize: 7 });
    const all = await listed(store);
    expect(all).toHaveLength(100);
    expect(new Set(all.map(({ id }) => id)).size).toBe(100);
    expect(await listed(store, { partition: 'u1' })).toHaveLength(34);
    const [first] = await pagesOf(store);
    const rest = await listed(open({ pageSize: 7 }), { after: first?.next ?? '' });
    expect([...(first?.records ?? []), ...rest].map(({ id }) => id)).toEqual(all.map(({ id }) => id));
  });

  test('show every row that is there all the time once, while others come and go', async () => {
    await table(plainTable);
    await pool.query(
      `INSERT INTO "Cal endar"."Appoint""ments" SELECT lpad((2 * n)::text, 5, '0'), 'u1', 'x' FROM generate_series(1, 100) AS n`,
    );
    const seen: string[] = [];
    let pages = 0;
    for await (const { records } of open({ pageSize: 10 }).reader.pages('appointment', {}, signal)) {
      seen.push(...records.map(({ id }) => id));
      pages += 1;
      await pool.query(
        `INSERT INTO "Cal endar"."Appoint""ments" VALUES (lpad($1::text, 5, '0'), 'u1', 'new')`,
        [2 * pages - 1],
      );
      await pool.query(`DELETE FROM "Cal endar"."Appoint""ments" WHERE id = $1`, [seen[0]]);
    }
    const old = Array.from({ length: 100 }, (_, at) => String(2 * at + 2).padStart(5, '0'));
    expect(seen.filter((id) => old.includes(id))).toEqual(old);
  });

  test('of changes go on by version and id, also where many rows have one version', async () => {
    await table(`${plainTable}, changed timestamptz`);
    await pool.query(`INSERT INTO "Cal endar"."Appoint""ments" SELECT 'r' || n, 'u1', 'x',
      CASE WHEN n > 5 THEN '2026-01-01 00:00:00.123456Z'::timestamptz ELSE '2025-01-01Z' END FROM generate_series(1, 30) AS n`);
    const store = open({ pageSize: 4, version: 'changed' });
    const changed = await listed(store, { since: '2026-01-01T00:00:00.123Z' });
    expect(changed).toHaveLength(25);
    expect(changed[0]?.version).toBe('2026-01-01T00:00:00.123456Z');
    expect(await listed(store, { since: '2026-01-02T00:00:00Z' })).toEqual([]);
    expect(store.reader.capabilities).toMatchObject([
      { since: true, versions: 'field', byPartition: true, paged: true },
    ]);
  });

  test('of changes find what a transaction wrote that began before the last look and ended after it', async () => {
    await table(`${plainTable}, changed timestamptz DEFAULT now()`);
    const store = open({ version: 'changed' });
    const slow = await pool.connect();
    await slow.query('BEGIN');
    await slow.query('SELECT now()');
    await pool.query(`SELECT pg_sleep(0.05)`);
    await pool.query(`INSERT INTO "Cal endar"."Appoint""ments" VALUES ('quick', 'u1')`);
    // The first look of a reader goes back by itself; what counts is the one after it.
    await listed(store, { since: new Date().toISOString() });
    await slow.query(`INSERT INTO "Cal endar"."Appoint""ments" VALUES ('slow', 'u1')`);
    await slow.query('COMMIT');
    slow.release();
    const since =
      (await pool.query<{ at: Date }>('SELECT clock_timestamp() AS at')).rows[0]?.at.toISOString() ?? '';
    expect((await listed(store, { since })).map(({ id }) => id)).toContain('slow');
    expect(await listed(store, { since: new Date(Date.now() + 1_000).toISOString() })).toEqual([]);
  });

  test('name rows that cannot be used, and go on', async () => {
    await table('id text, owner text, doc jsonb');
    await pool.query(`INSERT INTO "Cal endar"."Appoint""ments" VALUES (NULL, 'u1', NULL), ('2', NULL, NULL),
      ('3', 'u1', '{"n": 12345678901234567890}'), ('4', 'u1', '{}')`);
    const [page] = await pagesOf(open());
    expect(page?.records.map(({ id }) => id)).toEqual(['4']);
    const told = page?.problems.map(({ detail }) => detail).join('; ');
    for (const what of ['without a usable id', '2 has no usable partition', '3 holds a number']) {
      expect(told).toContain(what);
    }
    expect(page?.problems).toHaveLength(3);
  });

  test('end where ids are missing, and are empty for a partition that no row can have', async () => {
    await table('id text, owner int');
    await pool.query(
      `INSERT INTO "Cal endar"."Appoint""ments" VALUES (NULL, 1), (NULL, 1), ('a', 1), ('zz', 1)`,
    );
    const store = open({ pageSize: 1 });
    expect((await listed(store)).map(({ id }) => id)).toEqual(['a', 'zz']);
    expect(await listed(store, { partition: '1' })).toHaveLength(2);
    expect(await listed(store, { partition: 'u1' })).toEqual([]);
  });

  test('of a view can be read, and of a table under row security are refused, not cut short', async () => {
    await table(plainTable);
    await pool.query(`INSERT INTO "Cal endar"."Appoint""ments" VALUES ('1', 'u1', 'x'), ('2', 'u2', 'y')`);
    await pool.query(`CREATE VIEW "Cal endar".shown AS SELECT * FROM "Cal endar"."Appoint""ments"`);
    const view = open({ table: 'Cal endar.shown' });
    expect(await listed(view)).toHaveLength(2);
    await expect(put(view, { id: '3', owner: 'u1' })).rejects.toThrow(
      /takes no copies into .* it is no table/,
    );
    await pool.query(`DROP ROLE IF EXISTS narrow`);
    await pool.query(`CREATE ROLE narrow LOGIN`);
    await pool.query(`GRANT USAGE ON SCHEMA "Cal endar" TO narrow; GRANT SELECT ON "Cal endar"."Appoint""ments" TO narrow;
      ALTER TABLE "Cal endar"."Appoint""ments" ENABLE ROW LEVEL SECURITY;
      CREATE POLICY own ON "Cal endar"."Appoint""ments" USING (owner = 'u1')`);
    const narrow = open({}, { url: postgres.url.replace('postgres@', 'narrow@') });
    await expect(listed(narrow)).rejects.toMatchObject({ kind: 'denied' });
  });
});

describe('single records', () => {
  test('are found by any type of id, and an id that no row can have is not there', async () => {
    await table('id uuid PRIMARY KEY, owner text NOT NULL');
    const store = open();
    const id = '0b0e6f6e-3c0a-4c70-9a0e-6f2b8a3a0001';
    await put(store, { id, owner: 'u1' });
    const get = (asked: string) => store.reader.get('appointment', { id: asked, partition: 'u1' }, signal);
    expect(await get(id)).toMatchObject({ id, partition: 'u1' });
    for (const none of ['abc', id.toUpperCase(), id.replace('1', '2'), "'; --"])
      expect(await get(none)).toBeUndefined();
    await expect(put(store, { id: id.toUpperCase(), owner: 'u1' })).rejects.toMatchObject({
      kind: 'rejected',
    });
    expect(await listed(store)).toHaveLength(1);
  });

  test('can be looked up while the table gets and loses columns', async () => {
    await table(plainTable);
    const store = open();
    await put(store, { id: '1', owner: 'u1', title: 'a' });
    await pool.query(`ALTER TABLE "Cal endar"."Appoint""ments" RENAME COLUMN title TO name`);
    const found = await store.reader.get('appointment', { id: '1', partition: 'u1' }, signal);
    expect(found?.fields).toEqual({ id: '1', owner: 'u1', name: 'a' });
  });
});

describe('copies', () => {
  test('replace what is there under the id, and leave alone the columns that they do not have', async () => {
    await table(`${plainTable}, note text DEFAULT 'own'`);
    const store = open();
    await put(store, { id: '1', owner: 'u1', title: 'first' });
    await pool.query(`UPDATE "Cal endar"."Appoint""ments" SET note = 'kept'`);
    await put(store, { id: '1', owner: 'u1', title: 'second' });
    expect((await listed(store)).map(({ fields }) => fields)).toEqual([
      { id: '1', owner: 'u1', title: 'second', note: 'kept' },
    ]);
  });

  test.each([
    ['timestamptz', 'changed timestamptz NOT NULL'],
    ['a count', 'changed int NOT NULL'],
    ['a sequence', 'changed bigserial NOT NULL'],
    ['an identity', 'changed bigint GENERATED ALWAYS AS IDENTITY'],
  ])('let the version grow: %s', async (_what, column) => {
    await table(`${plainTable}, ${column}`);
    const store = open({ version: 'changed' });
    const versions: unknown[] = [];
    for (const title of ['a', 'b', 'c']) {
      await put(store, { id: '1', owner: 'u1', title });
      versions.push((await listed(store))[0]?.fields['changed']);
    }
    expect(new Set(versions).size).toBe(3);
    expect(versions).toEqual(
      versions.toSorted((a, b) => (typeof a === 'number' ? a - Number(b) : String(a) < String(b) ? -1 : 1)),
    );
  });

  test('never take a record from another partition, only a mark that it has left there', async () => {
    await table(`${plainTable}, gone timestamptz`);
    const store = open({ deleted: 'gone' });
    await put(store, { id: '1', owner: 'u1', title: 'mine' });
    await expect(put(store, { id: '1', owner: 'u2', title: 'yours' })).rejects.toThrow(/another partition/);
    const writer = store.makeWriter();
    await writer.remove({ kind: 'appointment', id: '1' }, stamp('u2'), signal);
    expect(await listed(store)).toMatchObject([{ partition: 'u1', deleted: false }]);
    await writer.remove({ kind: 'appointment', id: '1' }, stamp('u1'), signal);
    expect(await listed(store)).toMatchObject([{ partition: 'u1', deleted: true }]);
    await put(store, { id: '1', owner: 'u2', title: 'yours' });
    expect(await listed(store)).toMatchObject([
      { partition: 'u2', deleted: false, fields: { title: 'yours' } },
    ]);
  });

  test.each([
    ['timestamptz', 'gone timestamptz'],
    ['boolean', 'gone boolean NOT NULL DEFAULT false'],
    ['a number', 'gone int NOT NULL DEFAULT 0'],
    ['a text', 'gone text'],
  ])(
    'that are removed stay with a mark where there is a column for it (%s), and an erasure deletes them',
    async (_what, column) => {
      await table(`${plainTable}, ${column}`);
      const store = open({ deleted: 'gone' });
      await put(store, { id: '1', owner: 'u1', title: 'x' });
      await store.makeWriter().remove({ kind: 'appointment', id: '1' }, stamp('u1'), signal);
      expect(await listed(store)).toMatchObject([{ deleted: true }]);
      await put(store, { id: '1', owner: 'u1', title: 'again' });
      expect(await listed(store)).toMatchObject([{ deleted: false, fields: { title: 'again' } }]);
      await store.makeRemover().remove({ kind: 'appointment', id: '1' }, stamp('u1'), signal);
      expect(await listed(store)).toEqual([]);
    },
  );

  test('in one call are all written, or none, with different columns, in ids that are unique by partition, in parts of a table', async () => {
    await pool.query(`CREATE TABLE "Cal endar"."Appoint""ments" (id text, owner text, title text DEFAULT 'none', n int,
      PRIMARY KEY (owner, id)) PARTITION BY LIST (owner)`);
    await pool.query(
      `CREATE TABLE "Cal endar".one PARTITION OF "Cal endar"."Appoint""ments" FOR VALUES IN ('u1')`,
    );
    await pool.query(`CREATE TABLE "Cal endar".rest PARTITION OF "Cal endar"."Appoint""ments" DEFAULT`);
    const store = open();
    const writer = store.makeWriter();
    const copies = [
      { id: '1', owner: 'u1', title: 'a' },
      { id: '2', owner: 'u2', n: 5 },
      { id: '3', owner: 'u3', title: null, n: 7 },
    ].map((fields) => ({ copy: copy(fields as Fields), stamp: stamp(fields.owner) }));
    const outcome = await writer.putMany('appointment', copies, signal);
    expect([...outcome.written].toSorted()).toEqual(['1', '2', '3']);
    expect((await listed(store)).map(({ fields }) => fields['title'])).toEqual(['a', 'none', null]);
    const bad = { copy: copy({ id: '5', owner: 'u5', n: 'five' }), stamp: stamp('u5') };
    const good = { copy: copy({ id: '4', owner: 'u4', n: 4 }), stamp: stamp('u4') };
    await expect(writer.putMany('appointment', [good, bad], signal)).rejects.toMatchObject({
      kind: 'rejected',
    });
    expect(await listed(store)).toHaveLength(3);
  });

  test.each([
    ['with a version', { version: 'changed' }],
    ['without one, by the version of the row', {}],
  ])('under a condition are refused where the record has changed since: %s', async (_what, record) => {
    await table(`${plainTable}, changed timestamptz DEFAULT now()`);
    const store = open(record);
    const writer = store.makeWriter();
    const form = (title: string) => copy({ id: '1', owner: 'u1', title });
    await writer.put(form('a'), stamp('u1'), false, signal, 'absent');
    await expect(writer.put(form('b'), stamp('u1'), false, signal, 'absent')).rejects.toMatchObject({
      status: 412,
    });
    const held = await store.reader.get('appointment', { id: '1', partition: 'u1' }, signal);
    const version = held?.version ?? '';
    expect(version).not.toBe('');
    await writer.put(form('c'), stamp('u1'), true, signal, { version });
    await expect(writer.put(form('d'), stamp('u1'), true, signal, { version })).rejects.toMatchObject({
      status: 412,
    });
    const remove = (at: string) =>
      writer.remove({ kind: 'appointment', id: '1' }, stamp('u1'), signal, { version: at });
    await expect(remove(version)).rejects.toMatchObject({ status: 412 });
    expect((await listed(store))[0]?.fields['title']).toBe('c');
    await remove((await listed(store))[0]?.version ?? '');
    expect(await listed(store)).toEqual([]);
    await remove(version);
    await expect(writer.put(form('e'), stamp('u1'), true, signal, { version })).rejects.toMatchObject({
      status: 412,
    });
  });

  test('are refused into a table in which nothing makes ids unique', async () => {
    await table('id text, owner text');
    await expect(put(open(), { id: '1', owner: 'u1' })).rejects.toThrow(/nothing makes "id" unique/);
  });
});

describe('failures', () => {
  const kinds: [
    what: string,
    connector: Record<string, unknown>,
    record: Record<string, unknown>,
    kind: string,
  ][] = [
    ['a server that is not there', { url: 'postgres://u@127.0.0.1:1/x' }, {}, 'unavailable'],
    ['a database that is not there', { url: 'DB/none' }, {}, 'denied'],
    ['a role that is not there', { url: 'NOBODY' }, {}, 'denied'],
    ['a table that is not there', {}, { table: 'nowhere' }, 'bad-answer'],
    ['a column that is not there', {}, { version: 'nothing' }, 'bad-answer'],
    ['a server that speaks no TLS', { tls: {} }, {}, 'unavailable'],
  ];
  test.each(kinds)('are told apart: %s', async (_what, connector, record, kind) => {
    await table(plainTable);
    const url = (typeof connector.url === 'string' ? connector.url : postgres.url)
      .replace('DB', postgres.url.slice(0, postgres.url.lastIndexOf('/')))
      .replace('NOBODY', postgres.url.replace('postgres@', 'nobody@'));
    const store = open(record, { ...connector, url });
    await expect(listed(store)).rejects.toMatchObject({ kind, store: 'app' });
    await expect(store.reader.probe(signal)).rejects.toMatchObject({ kind });
    await expect(put(store, { id: '1', owner: 'u1' })).rejects.toMatchObject({ kind });
  });

  test('a query that takes too long is given up, here and there', async () => {
    await table(plainTable);
    const store = open({}, { timeoutMs: 300 });
    await listed(store);
    const holder = await pool.connect();
    await holder.query('BEGIN');
    await holder.query('LOCK TABLE "Cal endar"."Appoint""ments"');
    await expect(put(store, { id: '1', owner: 'u1' })).rejects.toMatchObject({ kind: 'unavailable' });
    await holder.query('COMMIT');
    holder.release();
    expect(await listed(store)).toEqual([]);
    await put(store, { id: '1', owner: 'u1' });
  });

  test('a signal ends a read at once', async () => {
    await table(plainTable);
    const store = open();
    await listed(store);
    const holder = await pool.connect();
    await holder.query('BEGIN');
    await holder.query('LOCK TABLE "Cal endar"."Appoint""ments"');
    const ending = new AbortController();
    const reading = store.reader.get('appointment', { id: '1', partition: 'u1' }, ending.signal);
    setImmediate(() => ending.abort(new Error('enough')));
    await expect(reading).rejects.toThrow('enough');
    await holder.query('COMMIT');
    holder.release();
  });
});

(noOpenssl === undefined ? describe : describe.skip)(
  `TLS${noOpenssl === undefined ? '' : `: ${noOpenssl}`}`,
  () => {
    let authority: Authority;

    /** The server reads its files again, and only new connections use them. */
    async function serve(certificate: { readonly cert: string; readonly key: string }): Promise<void> {
      const { rows } = await pool.query<{ data_directory: string }>('SHOW data_directory');
      const directory = rows[0]?.data_directory ?? '';
      for (const [name, pem] of [
        ['server.crt', certificate.cert],
        ['server.key', certificate.key],
      ] as const) {
        const lines = `SELECT unnest(string_to_array('${pem.trim()}', E'\\n'))`;
        await pool.query(
          `COPY (${lines}) TO PROGRAM 'cat > ${directory}/${name} && chmod 600 ${directory}/${name}'`,
        );
      }
      await pool.query('ALTER SYSTEM SET ssl = on');
      await pool.query('SELECT pg_reload_conf()');
      await until('the server speaks TLS', async () => {
        const fresh = new Pool({
          connectionString: postgres.url,
          ssl: { rejectUnauthorized: false },
          max: 1,
        });
        try {
          const { rows: own } = await fresh.query<{ ssl: boolean }>(
            'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()',
          );
          return own[0]?.ssl === true;
        } catch {
          return false;
        } finally {
          await fresh.end();
        }
      });
    }

    beforeAll(async () => {
      authority = new Authority();
      await serve(authority.certify('DNS:database.example'));
    });
    afterAll(() => authority?.remove());

    test('is spoken with a server whose certificate fits, and with no other', async () => {
      await table(plainTable);
      const asked = (tls: Record<string, unknown>) => listed(open({}, { tls }));
      const fitting = { ca: authority.caFile, servername: 'database.example' };
      expect(await asked(fitting)).toEqual([]);
      const other = new Authority('another authority');
      try {
        for (const tls of [
          {},
          { ca: authority.caFile },
          { ...fitting, servername: 'other.example' },
          { ...fitting, ca: other.caFile },
        ]) {
          await expect(asked(tls)).rejects.toMatchObject({ kind: 'unavailable' });
        }
        process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0';
        await expect(asked({ ...fitting, ca: other.caFile })).rejects.toMatchObject({ kind: 'unavailable' });
      } finally {
        delete process.env['NODE_TLS_REJECT_UNAUTHORIZED'];
        other.remove();
      }
      expect(() => open({}, { tls: { ca: '/nowhere/ca.pem' } })).toThrow(/stores.app.connector.tls.ca/);
    });
  },
);
