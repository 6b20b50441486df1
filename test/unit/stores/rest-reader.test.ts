import { afterEach, describe, expect, test } from '@jest/globals';
import { StoreFailure, type ListScope } from '../../../src/core/ports.ts';
import type { StoreRecord } from '../../../src/core/records.ts';
import { unlimited, type CallBudget } from '../../../src/stores/budget.ts';
import { RestClient } from '../../../src/stores/rest/client.ts';
import { RestReader } from '../../../src/stores/rest/reader.ts';
import { verifyGuard } from '../../../src/guard/signature.ts';
import {
  connectorFor,
  type GivenAnswer,
  type RestStoreOptions,
  startRestStore,
  type TestRestStore,
} from '../../support/rest-store.ts';

const never = new AbortController().signal;
const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

interface Rig {
  readonly store: TestRestStore;
  readonly reader: RestReader;
}

async function rigOf(
  options: RestStoreOptions = {},
  more: Record<string, unknown> = {},
  client: Partial<ConstructorParameters<typeof RestClient>[0]> = {},
): Promise<Rig> {
  const store = await startRestStore(options);
  const connector = connectorFor(options, more);
  const reader = new RestReader(
    new RestClient({
      ...{ store: 'legacy', url: store.url, headers: {}, timeoutMs: 2_000, connectTimeoutMs: 500 },
      budget: unlimited,
      ...client,
    }),
    connector.records,
    0,
    { maxPages: 50 },
  );
  ends.push(async () => {
    await reader.close();
    await store.stop();
  });
  return { store, reader };
}

async function listed(reader: RestReader, scope: ListScope = {}): Promise<StoreRecord[]> {
  const records: StoreRecord[] = [];
  for await (const page of reader.pages('appointment', scope, never)) records.push(...page.records);
  return records;
}

async function problemsOf(reader: RestReader): Promise<string[]> {
  const problems: string[] = [];
  for await (const page of reader.pages('appointment', {}, never)) {
    problems.push(...page.problems.map(({ detail }) => detail));
  }
  return problems;
}

async function failureOf(work: Promise<unknown>): Promise<StoreFailure> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof StoreFailure)) throw new Error('expected a StoreFailure', { cause: error });
  return error;
}

function five() {
  return Array.from({ length: 5 }, (_, at) => ({
    id: at + 1,
    owner_id: at < 3 ? 'ann' : 'bob',
    title: `t${at}`,
  }));
}

describe('a list', () => {
  for (const paging of ['none', 'cursor', 'page', 'offset', 'link'] as const) {
    test(`continued by ${paging} gives every record once`, async () => {
      const { reader } = await rigOf({ paging, records: five() });
      expect((await listed(reader)).map(({ id }) => id)).toEqual(['1', '2', '3', '4', '5']);
      const ofAnn = await listed(reader, { partition: 'ann' });
      expect(ofAnn.map(({ id }) => id)).toEqual(['1', '2', '3']);
    });
  }

  test('leaves out the parameters that have no value', async () => {
    const { reader, store } = await rigOf({ paging: 'cursor', since: true, records: five() });
    await listed(reader);
    expect(store.calls[0]?.query.toString()).toBe('');
    await listed(reader, { partition: 'ann & co', since: '2024-01-01T00:00:00Z' });
    expect(store.calls.at(-1)?.query.get('owner')).toBe('ann & co');
    expect(store.calls.at(-1)?.query.get('updated_since')).toBe('2024-01-01T00:00:00Z');
  });

  test('of a platform that caps its pages below the size asked for is read to its end', async () => {
    const options = { paging: 'page', pageSize: 2, records: five() } as const;
    const { reader } = await rigOf(options, {
      list: {
        path: '/appointments',
        query: { page: '{page}', limit: '{size}' },
        items: 'data',
        paging: { page: { size: 100 } },
      },
    });
    expect(await listed(reader)).toHaveLength(5);
  });

  describe.each(['page', 'offset'] as const)('continued by %s', (paging) => {
    const ids = ['1', '2', '3', '4', '5'];
    /** A platform that shows what `show` makes of five records and the records that are asked for. */
    const showing = async (show: (from: number) => GivenAnswer) => {
      const rig = await rigOf({ paging });
      rig.store.intercept = ({ query }) =>
        show(paging === 'offset' ? Number(query.get('offset')) : (Number(query.get('page')) - 1) * 2);
      return rig;
    };
    const answer = (data: unknown): GivenAnswer => ({ status: 200, body: { data } });
    const idsIn = async (reader: RestReader) => (await listed(reader)).map(({ id }) => id);

    test('is read to its end after the platform has begun to show less on a page', async () => {
      let cap = 3;
      const rig = await rigOf({ paging, pageSize: 3 });
      rig.store.intercept = ({ query }) => {
        const at = paging === 'offset' ? Number(query.get('offset')) : (Number(query.get('page')) - 1) * cap;
        return answer(five().slice(at, at + cap));
      };
      expect(await idsIn(rig.reader)).toEqual(ids);
      cap = 2;
      expect(await idsIn(rig.reader)).toEqual(ids);
    });

    test('is read on behind a page from which rows were left out', async () => {
      const hidden = new Set([2, 4]);
      const { reader } = await showing((from) => {
        const page = five().slice(from, from + 2);
        return answer(
          paging === 'offset' ? page.slice(0, from === 2 ? 1 : 2) : page.filter(({ id }) => !hidden.has(id)),
        );
      });
      expect(await idsIn(reader)).toEqual(paging === 'offset' ? ids : ['1', '3', '5']);
    });

    test('ends where there is no further page, but is not empty where there is not even a first one', async () => {
      const { reader, store } = await showing((from) =>
        from < 5 ? answer(five().slice(from, from + 2)) : { status: 404, body: { detail: 'Invalid page.' } },
      );
      expect(await idsIn(reader)).toEqual(ids);
      store.intercept = () => ({ status: 404 });
      expect((await failureOf(listed(reader))).kind).toBe('bad-answer');
    });

    test('ends where its last page comes again', async () => {
      const { reader } = await showing((from) =>
        answer(five().slice(Math.min(from, 4), Math.min(from, 4) + 2)),
      );
      expect(new Set(await idsIn(reader))).toEqual(new Set(ids));
    });

    test('that shows one page whatever is asked for is no answer', async () => {
      const { reader, store } = await showing(() =>
        answer(
          five()
            .slice(0, 2)
            .map((one) => ({ ...one, at: performance.now() })),
        ),
      );
      const failure = await failureOf(listed(reader));
      expect([failure.kind, failure.message]).toEqual([
        'bad-answer',
        expect.stringContaining('goes in circles'),
      ]);
      expect(store.calls).toHaveLength(2);
    });

    test('that is shorter than a page ends where the same page comes again, or where a further one is refused', async () => {
      const { reader, store } = await showing(() => answer(five().slice(0, 1)));
      expect(await idsIn(reader)).toEqual(['1', '1']);
      store.intercept = ({ query }) =>
        Number(query.get('offset') ?? 0) > 0 || Number(query.get('page') ?? 1) > 1
          ? { status: 400, body: { code: 'rest_post_invalid_page_number' } }
          : answer(five().slice(0, 1));
      expect(await idsIn(reader)).toEqual(['1']);
    });

    test('is no list where a page is refused after a full one', async () => {
      const { reader } = await showing((from) =>
        from < 2 ? answer(five().slice(from, from + 2)) : { status: 400, body: { detail: 'Too far.' } },
      );
      expect((await failureOf(listed(reader))).kind).toBe('rejected');
    });

    test('goes on in another process as if it had not stopped', async () => {
      const { reader } = await showing((from) =>
        answer(five().slice(Math.min(from, 4), Math.min(from, 4) + 2)),
      );
      const places: string[] = [];
      for await (const { next } of reader.pages('appointment', {}, never))
        if (next !== undefined) places.push(next);
      const after = places.at(-1) ?? '';
      // What it reads now is the last page once more, and it knows that.
      const pages: StoreRecord[][] = [];
      for await (const { records } of reader.pages('appointment', { after }, never)) pages.push([...records]);
      expect(pages).toHaveLength(1);
    });
  });

  test('that gives the same cursor twice goes in circles, and is no answer', async () => {
    const { reader } = await rigOf({
      paging: 'cursor',
      intercept: () => ({ status: 200, body: { data: [], next: 'again' } }),
    });
    const failure = await failureOf(listed(reader));
    expect(failure.kind).toBe('bad-answer');
    expect(failure.message).toContain('goes in circles');
  });

  test('that links to another host is not followed there', async () => {
    const { reader } = await rigOf({
      paging: 'link',
      intercept: () => ({
        status: 200,
        body: { data: [] },
        headers: { link: '<http://elsewhere.example/appointments?start=2>; rel="next"' },
      }),
    });
    expect((await failureOf(listed(reader))).kind).toBe('bad-answer');
  });

  test('whose pages never end is given up', async () => {
    let page = 0;
    const { reader } = await rigOf({
      paging: 'cursor',
      intercept: () => {
        page += 1;
        return { status: 200, body: { data: [], next: String(page) } };
      },
    });
    expect((await failureOf(listed(reader))).message).toContain('more than 50 pages');
  });

  test('with a record without id says so, and gives the others', async () => {
    const records = [...five(), { owner_id: 'ann', title: 'nameless' }];
    const { reader } = await rigOf({ records });
    expect(await listed(reader)).toHaveLength(5);
    const problems = await problemsOf(reader);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain('without a usable id');
  });

  test('that ignores the partition it was asked for still gives only its records', async () => {
    const { reader } = await rigOf({
      intercept: () => ({ status: 200, body: { data: five() } }),
    });
    expect(await listed(reader, { partition: 'bob' })).toHaveLength(2);
  });

  test('paged by number without {page} in its query is a problem, not an endless pass', async () => {
    const { reader } = await rigOf(
      {},
      { list: { path: '/appointments', items: 'data', paging: { page: { size: 2 } } } },
    );
    expect((await problemsOf(reader))[0]).toContain('{page}');
  });
});

describe('an answer', () => {
  const cases = [
    [
      { status: 200, body: '<html>Please log in</html>', headers: { 'content-type': 'text/html' } },
      'bad-answer',
    ],
    [{ status: 200, body: { unexpected: true } }, 'bad-answer'],
    [{ status: 404, body: { data: [] } }, 'bad-answer'],
    [{ status: 302, headers: { location: '/login' } }, 'bad-answer'],
    [{ status: 401, body: {} }, 'denied'],
    [{ status: 403, body: {} }, 'denied'],
    [{ status: 429, headers: { 'retry-after': '7' } }, 'rate-limited'],
    [{ status: 500, body: 'oops' }, 'unavailable'],
    [{ status: 422, body: {} }, 'rejected'],
    [{ status: 409, body: { code: 'stale-epoch' } }, 'refused-by-guard'],
    [{ status: 403, body: { code: 'unsigned' } }, 'refused-by-guard'],
  ] as const;
  for (const [answer, kind] of cases) {
    test(`${answer.status} ${JSON.stringify('body' in answer ? answer.body : '')} to a list is ${kind}`, async () => {
      const { reader } = await rigOf({ intercept: () => answer });
      expect((await failureOf(listed(reader))).kind).toBe(kind);
    });
  }

  test('without a list names the store, the call, and where to look', async () => {
    const { reader } = await rigOf({ intercept: () => ({ status: 404, body: {} }) });
    const { message } = await failureOf(listed(reader));
    expect(message).toMatch(
      /^the list of appointment: legacy answered GET \/appointments\S* with 404 without an array at "data"; nothing was/,
    );
    expect(message).toContain('look at stores.legacy.connector.records.appointment.list');
  });

  test('429 says how long to wait, in seconds or as a date, and everybody hears of it', async () => {
    const nowMs = Date.parse('2024-05-01T12:00:00Z');
    const pauses: number[] = [];
    const budget: CallBudget = {
      take: () => Promise.resolve(),
      prepay: () => Promise.resolve(),
      pause: (ms) => {
        pauses.push(ms);
        return Promise.resolve();
      },
    };
    let retryAfter = '7';
    const { reader } = await rigOf(
      { intercept: () => ({ status: 429, headers: { 'retry-after': retryAfter } }) },
      {},
      { budget, nowMs: () => nowMs },
    );
    expect((await failureOf(listed(reader))).retryAfterMs).toBe(7_000);
    retryAfter = 'Wed, 01 May 2024 12:00:30 GMT';
    expect((await failureOf(listed(reader))).retryAfterMs).toBe(30_000);
    expect(pauses).toEqual([7_000, 30_000]);
  });

  test('larger than allowed is not read to its end', async () => {
    const { reader } = await rigOf({ records: five() }, {}, { maxBodyBytes: 50 });
    expect((await failureOf(listed(reader))).kind).toBe('bad-answer');
  });

  test('that does not come in time is unavailable', async () => {
    const { reader } = await rigOf({ intercept: () => new Promise(() => undefined) }, {}, { timeoutMs: 60 });
    expect((await failureOf(listed(reader))).kind).toBe('unavailable');
  });

  test('of a store that nobody listens at is unavailable', async () => {
    const { reader, store } = await rigOf();
    await store.stop();
    expect((await failureOf(listed(reader))).kind).toBe('unavailable');
  });
});

describe('one record', () => {
  test('is gone only when get says 404 or 410; 401 and 403 are refusals', async () => {
    let status = 404;
    const { reader } = await rigOf({ intercept: () => ({ status, body: {} }) });
    const get = () => reader.get('appointment', { id: '1', partition: 'ann' }, never);
    expect(await get()).toBeUndefined();
    status = 410;
    expect(await get()).toBeUndefined();
    for (status of [401, 403]) expect((await failureOf(get())).kind).toBe('denied');
    status = 500;
    expect((await failureOf(get())).kind).toBe('unavailable');
  });

  test('with another id than was asked for is no answer', async () => {
    const { reader } = await rigOf({ intercept: () => ({ status: 200, body: five()[1] }) });
    expect((await failureOf(reader.get('appointment', { id: '1', partition: 'ann' }, never))).kind).toBe(
      'bad-answer',
    );
  });

  test('keeps the JSON type of its id, and leaves version and tombstone behind in a copy', async () => {
    const record = { id: 7, user: 'ann', title: 'x', rev: 3, gone: null };
    const { reader } = await rigOf(
      { intercept: () => ({ status: 200, body: record }) },
      { partition: 'user', version: 'rev', deleted: 'gone' },
    );
    const read = await reader.get('appointment', { id: '7', partition: 'ann' }, never);
    if (read === undefined) throw new Error('expected a record');
    expect(read).toMatchObject({ id: '7', partition: 'ann', version: '3', deleted: false });
    const copy = reader.toCopy(read, { id: 'meta.key', partition: 'owner_id' });
    expect(copy).toEqual({
      kind: 'appointment',
      id: '7',
      fields: { title: 'x', meta: { key: 7 }, owner_id: 'ann' },
    });
  });
});

test('calls to a guarded store are signed as they go over the wire', async () => {
  const secret = 'a-secret-of-this-test';
  const { reader, store } = await rigOf({ records: five() }, {}, { guardSecret: secret });
  await listed(reader, { partition: 'ann' });
  const [call] = store.calls;
  const verdict = verifyGuard({
    ...{ secret, nowSeconds: Math.floor(Date.now() / 1000), method: 'GET' },
    target: '/appointments?owner=ann',
    headers: call?.headers ?? {},
  });
  expect(verdict).toEqual({ ok: true, claims: { user: '', partition: 'ann', epoch: 0, access: 'read' } });
});
