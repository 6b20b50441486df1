/** What a connector's configuration can say of a platform's calls, against a real HTTP server. */
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Fields } from '../../../src/core/records.ts';
import { type HttpPlatform, type PlatformCall, startHttpPlatform } from '../../support/http-platform.ts';
import { failureOf, idsOf, never, pagesOf, recordsOf, restStoreOf } from '../../support/rest-client.ts';
import type { RestStore } from '../../../src/stores/rest/store.ts';

const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

const stamp = { partition: 'ann', epoch: 1 };
const plain = { list: { path: '/items' }, get: { path: '/items/{id}' }, id: 'id', partition: 'owner' };

async function rigOf(
  answer: HttpPlatform['answer'],
  record: Record<string, unknown>,
  connector: Record<string, unknown> = {},
): Promise<{ readonly platform: HttpPlatform; readonly store: RestStore }> {
  const platform = await startHttpPlatform(answer);
  ends.push(() => platform.stop());
  const store = restStoreOf(platform.url, { ...connector, records: { item: { ...plain, ...record } } });
  ends.push(() => store.reader.close());
  return { platform, store };
}

const records = (count: number): Fields[] =>
  Array.from({ length: count }, (_, at) => ({ id: `r${at}`, owner: 'ann', title: `t${at}` }));
const bodyOf = ({ text }: PlatformCall): Fields => JSON.parse(text) as Fields;

describe('lists', () => {
  test('by POST: what stands in the body is filled in, with its type, and left out where there is nothing', async () => {
    const all = records(5);
    const { platform, store } = await rigOf(
      (call) => {
        const { from } = bodyOf(call)['params'] as { from?: string };
        const at = Number(from ?? 0);
        const next = at + 2 < all.length ? String(at + 2) : null;
        return { body: { result: { rows: all.slice(at, at + 2), next } } };
      },
      {
        list: {
          method: 'POST',
          path: '/rpc',
          body: {
            method: 'items.list',
            params: { owner: '{partition}', from: '{cursor}', since: 'changed > {since}', limit: 2 },
          },
          items: 'result.rows',
          next: 'result.next',
        },
      },
    );
    expect(await idsOf(store, { partition: 'ann' })).toEqual(['r0', 'r1', 'r2', 'r3', 'r4']);
    expect(platform.calls.map(({ method, path }) => `${method} ${path}`)).toEqual(
      Array.from({ length: 3 }, () => 'POST /rpc'),
    );
    expect(platform.calls.map(bodyOf)).toEqual([
      { method: 'items.list', params: { owner: 'ann', limit: 2 } },
      { method: 'items.list', params: { owner: 'ann', from: '2', limit: 2 } },
      { method: 'items.list', params: { owner: 'ann', from: '4', limit: 2 } },
    ]);
    await pagesOf(store, { since: '2024-05-01T00:00:00Z' });
    expect(platform.calls.map(bodyOf)[3]).toEqual({
      method: 'items.list',
      params: { since: 'changed > 2024-05-01T00:00:00Z', limit: 2 },
    });
  });

  test('by POST, with pages that are counted: numbers are numbers', async () => {
    const { platform, store } = await rigOf(
      (call) => ({ body: { rows: records(3).slice(Number(bodyOf(call)['skip']), 2) } }),
      {
        list: {
          method: 'POST',
          path: '/query',
          body: { skip: '{offset}', take: '{size}', user: '{partition:number}' },
          items: 'rows',
          paging: { offset: { size: 2 } },
        },
      },
    );
    await idsOf(store, { partition: '17' });
    expect(platform.calls.map(bodyOf)).toEqual([
      { skip: 0, take: 2, user: 17 },
      { skip: 2, take: 2, user: 17 },
    ]);
    expect((await failureOf(idsOf(store, { partition: 'ann' }))).kind).toBe('rejected');
  });

  test('by POST as a form', async () => {
    const { platform, store } = await rigOf(() => ({ body: records(1) }), {
      list: { method: 'POST', path: '/list', body: { owner: '{partition}', cursor: 'a b' }, form: true },
    });
    await idsOf(store, { partition: 'ann' });
    expect(platform.calls[0]).toMatchObject({ text: 'owner=ann&cursor=a+b' });
    expect(platform.calls[0]?.headers['content-type']).toBe('application/x-www-form-urlencoded');
  });

  test('go on behind the last record, as long as there is more', async () => {
    const all = records(4);
    const { platform, store } = await rigOf(
      ({ query }) => {
        const at = all.findIndex(({ id }) => id === query.get('starting_after')) + 1;
        return { body: { data: all.slice(at, at + 2), has_more: at + 2 < all.length } };
      },
      {
        list: {
          path: '/items',
          query: { starting_after: '{cursor}' },
          items: 'data',
          more: 'has_more',
          paging: { last: 'id' },
        },
      },
    );
    expect(await idsOf(store)).toHaveLength(4);
    expect(platform.calls).toHaveLength(2);
  });

  test('go on at an address in the answer, whose name may have dots, and nowhere else', async () => {
    let host = '';
    const { platform, store } = await rigOf(
      ({ query }) => ({
        body: query.has('skip')
          ? { value: records(4).slice(2) }
          : { value: records(2), '@odata.nextLink': `${host}/items?skip=2&key=secret` },
      }),
      { list: { path: '/items', items: 'value', paging: { link: '@odata.nextLink' } } },
      { auth: { apiKey: { query: 'key', value: 'secret' } } },
    );
    host = platform.url;
    const pages = await pagesOf(store);
    expect(pages.flatMap((page) => page.records)).toHaveLength(4);
    // The platform repeats the key; it is sent once, and not kept.
    expect(platform.calls.map(({ query }) => query.getAll('key'))).toEqual([['secret'], ['secret']]);
    expect(JSON.stringify(pages)).not.toContain('secret');
    host = 'http://elsewhere.example';
    const failure = await failureOf(pagesOf(store));
    expect([failure.kind, failure.message]).toEqual([
      'bad-answer',
      expect.stringContaining('leads to another host'),
    ]);
  });

  describe.each([
    ['page', { page: { size: 2 } }],
    ['offset', { offset: { size: 2 } }],
  ] as const)('counted by %s, where the answers say whether there is more', (_, paging) => {
    const list = {
      list: {
        path: '/items',
        query: { page: '{page}', skip: '{offset}' },
        items: 'rows',
        more: 'more',
        paging,
      },
    };
    const at = ({ query }: PlatformCall) => Number(query.get('skip') ?? (Number(query.get('page')) - 1) * 2);

    test('end there, and not where a page shows what the one before did', async () => {
      const { platform, store } = await rigOf(
        (call) => ({ body: { rows: records(2), more: at(call) < 4 } }),
        list,
      );
      expect(await idsOf(store)).toHaveLength(6);
      expect(platform.calls).toHaveLength(3);
    });

    test.each([404, 400])('do not end with %i behind a page that was not the last', async (status) => {
      const { store } = await rigOf(
        (call) => (at(call) === 0 ? { body: { rows: records(1), more: true } } : { status, body: {} }),
        list,
      );
      expect((await failureOf(idsOf(store))).kind).toBe(status === 404 ? 'bad-answer' : 'rejected');
    });

    test('that ignore their page parameter go in circles, and are no answer', async () => {
      const { platform, store } = await rigOf(() => ({ body: { rows: records(2), more: true } }), list);
      const failure = await failureOf(idsOf(store));
      expect(failure.kind).toBe('bad-answer');
      expect(failure.message).toMatch(/same page 6 times; does the platform know the parameter/);
      expect(platform.calls).toHaveLength(6);
    });
  });

  test.each([
    ['iso', '2024-05-01T10:00:00.000Z'],
    ['seconds', '1714557600'],
    ['milliseconds', '1714557600000'],
    ['http', 'Wed, 01 May 2024 10:00:00 GMT'],
    ['sql', '2024-05-01 10:00:00'],
    ['day', '2024-05-01'],
  ])('ask for changes in the notation "%s"', async (since, written) => {
    const { platform, store } = await rigOf(() => ({ body: [] }), {
      list: { path: '/items', query: { filter: 'updatedAt gt {since}' }, since },
      version: 'updated',
    });
    await pagesOf(store, { since: '2024-05-01T12:00:00+02:00' });
    expect(platform.calls[0]?.query.get('filter')).toBe(`updatedAt gt ${written}`);
  });

  test('whose records do not say their partition are asked by it', async () => {
    const { platform, store } = await rigOf(
      ({ path }) => ({ body: path.endsWith('items') ? [{ id: 1 }, { id: 2 }] : { id: 1 } }),
      {
        list: { path: '/users/{partition}/items' },
        get: { path: '/users/{partition}/items/{id}' },
        partition: '{partition}',
      },
    );
    expect(await recordsOf(store, { partition: 'ann' })).toMatchObject([
      { id: '1', partition: 'ann' },
      { id: '2', partition: 'ann' },
    ]);
    const record = await store.reader.get('item', { id: '1', partition: 'bob' }, never);
    expect(record).toMatchObject({ id: '1', partition: 'bob' });
    expect(platform.calls.map(({ path }) => path)).toEqual(['/users/ann/items', '/users/bob/items/1']);
    if (record === undefined) throw new Error('there is no record');
    expect(store.reader.toCopy(record, { id: 'id', partition: 'owner_id' }).fields).toEqual({
      id: 1,
      owner_id: 'bob',
    });
    expect(store.reader.capabilities[0]).toMatchObject({ needsPartition: true, byPartition: true });
  });

  test('of deleted ids are read beside the changes, and tombstones need nothing but their id', async () => {
    const { platform, store } = await rigOf(
      ({ path }) =>
        path === '/items/deleted'
          ? { body: { ids: ['r7', 8, { no: 'id' }] } }
          : {
              body: [
                { id: 'r1', owner: 'ann', at: '2024-05-01T10:00:00Z' },
                { id: 'r2', removed: true },
              ],
            },
      {
        list: { path: '/items', query: { since: '{since}' } },
        deletes: {
          path: '/items/deleted',
          query: { after: '{since}' },
          items: 'ids',
          id: '',
          since: 'seconds',
        },
        version: 'at',
        deleted: 'removed',
      },
    );
    const pages = await pagesOf(store, { since: '2024-05-01T10:00:00Z' });
    expect(pages.map(({ gone }) => gone)).toEqual([['r2'], ['r7', '8']]);
    expect(pages.flatMap(({ problems }) => problems)).toHaveLength(1);
    expect(platform.calls[1]?.query.get('after')).toBe('1714557600');
    await pagesOf(store, { partition: 'ann' });
    expect(platform.calls.slice(2).map(({ path }) => path)).toEqual(['/items']);
    expect(store.reader.capabilities[0]).toMatchObject({ tombstones: true });
  });
});

describe('single records', () => {
  const rpc = {
    list: { method: 'POST', path: '/rpc', body: { op: 'list' }, items: 'rows' },
    get: {
      method: 'POST',
      path: '/rpc',
      body: { op: 'get', id: '{id}' },
      item: 'rows.0',
      emptyMeansGone: true,
    },
    create: { path: '/rpc', body: { op: 'add', row: '{record}', title: '{record.title}' } },
    put: { method: 'POST', path: '/rpc', body: { op: 'set', id: '{id}', row: '{record}' } },
    delete: { method: 'POST', path: '/rpc', body: { op: 'drop', id: '{id}', of: '{partition}' } },
  };

  test('are read and changed by POST with a body', async () => {
    const rows = new Map<unknown, Fields>(records(2).map((row) => [row['id'], row]));
    const { platform, store } = await rigOf((call) => {
      const { op, id, row } = bodyOf(call);
      if (op === 'set' || op === 'add') rows.set((row as Fields)['id'], row as Fields);
      if (op === 'drop') rows.delete(id);
      const found = rows.get(id);
      return { body: { rows: op === 'get' ? (found === undefined ? [] : [found]) : [...rows.values()] } };
    }, rpc);
    const get = (id: string) => store.reader.get('item', { id, partition: 'ann' }, never);
    expect(await get('r1')).toMatchObject({ id: 'r1', partition: 'ann' });
    expect(await get('nobody')).toBeUndefined();
    const writer = store.makeWriter();
    const fields = { id: 'r9', owner: 'ann', title: 'new' };
    await writer.put({ kind: 'item', id: 'r9', fields }, stamp, false, never);
    expect(platform.calls.map(bodyOf).at(-1)).toEqual({ op: 'add', row: fields, title: 'new' });
    await writer.put({ kind: 'item', id: 'r9', fields }, stamp, true, never);
    expect(platform.calls.map(bodyOf).at(-1)).toEqual({ op: 'set', id: 'r9', row: fields });
    await writer.remove({ kind: 'item', id: 'r9' }, stamp, never);
    expect(platform.calls.map(bodyOf).at(-1)).toEqual({ op: 'drop', id: 'r9', of: 'ann' });
    expect(new Set(platform.calls.map(({ method, path }) => `${method} ${path}`))).toEqual(
      new Set(['POST /rpc']),
    );
  });

  test('an answer without a record is no proof that it is gone, unless the configuration says so', async () => {
    const { store } = await rigOf(() => ({ body: { rows: [] } }), {
      ...rpc,
      get: { ...rpc.get, emptyMeansGone: false },
    });
    expect((await failureOf(store.reader.get('item', { id: 'r1', partition: 'ann' }, never))).kind).toBe(
      'bad-answer',
    );
  });
});

describe('errors inside a 200', () => {
  const error = {
    path: 'error',
    code: 'error.code',
    message: 'error.message',
    retryAfter: 'error.wait',
    kinds: {
      NO_SUCH: 'not-found',
      LIMIT: 'rate-limited',
      WHO: 'denied',
      INVALID: 'rejected',
      DOWN: 'unavailable',
    },
  };
  const answerWith = (told: unknown) => () => ({ body: { error: told, rows: [] } });
  const list = { path: '/items', items: 'rows' };
  const writes = { put: { path: '/items/{id}' }, delete: { path: '/items/{id}' } };

  test.each([
    ['LIMIT', 'rate-limited'],
    ['WHO', 'denied'],
    ['INVALID', 'rejected'],
    ['DOWN', 'unavailable'],
    ['UNHEARD_OF', 'bad-answer'],
    [-32_603, 'bad-answer'],
    [403, 'denied'],
    [429, 'rate-limited'],
    ['503', 'unavailable'],
    [404, 'bad-answer'],
  ])('of code %s make a list fail as %s', async (code, kind) => {
    const { store } = await rigOf(answerWith({ code, message: 'so it is', wait: 7 }), { list }, { error });
    const failure = await failureOf(idsOf(store));
    expect(failure.kind).toBe(kind);
    if (kind === 'rate-limited') expect(failure.retryAfterMs).toBe(7_000);
    if (code !== 404) expect(failure.message).toContain(': so it is');
  });

  test('say that a record is gone', async () => {
    const { platform, store } = await rigOf(answerWith({ code: 'NO_SUCH' }), { list, ...writes }, { error });
    expect(await store.reader.get('item', { id: 'r1', partition: 'ann' }, never)).toBeUndefined();
    await store.makeWriter().remove({ kind: 'item', id: 'r1' }, stamp, never);
    platform.answer = answerWith({ code: 'UNHEARD_OF' });
    const failure = await failureOf(store.reader.get('item', { id: 'r1', partition: 'ann' }, never));
    expect(failure.kind).toBe('bad-answer');
  });

  test('of writes: a known code says that nothing was written, an unknown one says nothing', async () => {
    const { platform, store } = await rigOf(answerWith({ code: 'INVALID' }), { list, ...writes }, { error });
    const copy = { kind: 'item', id: 'r1', fields: { id: 'r1', owner: 'ann' } };
    const put = () => failureOf(store.makeWriter().put(copy, stamp, true, never));
    expect((await put()).kind).toBe('rejected');
    platform.answer = answerWith({ code: 'UNHEARD_OF' });
    expect((await put()).kind).toBe('unavailable');
    platform.answer = () => ({ body: '<h1>Log in</h1>', headers: { 'content-type': 'text/html' } });
    expect((await put()).kind).toBe('unavailable');
  });

  test('of a flag: only the values named mean success', async () => {
    const flag = { path: 'status', unless: ['ok'] };
    const { platform, store } = await rigOf(
      () => ({ body: { status: 'ok', rows: records(1) } }),
      { list },
      { error: flag },
    );
    expect(await idsOf(store)).toEqual(['r0']);
    platform.answer = () => ({ body: { rows: records(1) } });
    expect((await failureOf(idsOf(store))).kind).toBe('bad-answer');
    platform.answer = () => ({ status: 503, body: { status: 'busy' } });
    expect((await failureOf(idsOf(store))).kind).toBe('unavailable');
  });
});

test('a page for people that answers a write tells nothing of the write', async () => {
  const { store } = await rigOf(
    () => ({ body: '<h1>Log in</h1>', headers: { 'content-type': 'text/html; charset=utf-8' } }),
    { put: { path: '/items/{id}' } },
  );
  const copy = { kind: 'item', id: 'r1', fields: { id: 'r1', owner: 'ann' } };
  const failure = await failureOf(store.makeWriter().put(copy, stamp, true, never));
  expect(failure.kind).toBe('unavailable');
  expect(failure.message).toMatch(/a page for people .* no login page answers/);
});
