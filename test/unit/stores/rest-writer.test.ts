import { afterEach, expect, test } from '@jest/globals';
import { StoreFailure } from '../../../src/core/ports.ts';
import { verifyGuard } from '../../../src/guard/signature.ts';
import { unlimited } from '../../../src/stores/budget.ts';
import { RestClient } from '../../../src/stores/rest/client.ts';
import { RestGuardCalls } from '../../../src/stores/rest/guard-calls.ts';
import { RestWriter } from '../../../src/stores/rest/writer.ts';
import { connectorFor, type RestStoreOptions, startRestStore } from '../../support/rest-store.ts';

const never = new AbortController().signal;
const secret = 'a-secret-of-this-test';
const stamp = { partition: 'ann', epoch: 4 };
const create = { create: { method: 'POST', path: '/appointments' } };
const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

async function rigOf(options: RestStoreOptions = {}, more: Record<string, unknown> = {}) {
  const store = await startRestStore(options);
  const client = new RestClient({
    ...{ store: 'app', url: store.url, headers: {}, timeoutMs: 2_000, connectTimeoutMs: 500 },
    guardSecret: secret,
    budget: unlimited,
  });
  ends.push(async () => {
    await client.close();
    await store.stop();
  });
  const writer = new RestWriter(client, connectorFor(options, more).records);
  return { store, client, writer };
}

function copyOf(id: number) {
  return { kind: 'appointment', id: String(id), fields: { id, owner_id: 'ann', title: 'x' } };
}

async function kindOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'none';
  } catch (error) {
    return error instanceof StoreFailure ? error.kind : String(error);
  }
}

test('without "create", put makes and changes records under the id of the caller', async () => {
  const { store, writer } = await rigOf();
  await writer.put(copyOf(1), stamp, false, never);
  await writer.put(copyOf(1), stamp, true, never);
  expect(store.writes().map(({ method, path }) => `${method} ${path}`)).toEqual([
    'PUT /appointments/1',
    'PUT /appointments/1',
  ]);
  expect(store.records.get('1')).toEqual({ id: 1, owner_id: 'ann', title: 'x' });
});

test('with "create", a missing record is created and an existing one is put', async () => {
  const { store, writer } = await rigOf({}, create);
  await writer.put(copyOf(1), stamp, false, never);
  await writer.put(copyOf(1), stamp, true, never);
  expect(store.writes().map(({ method }) => method)).toEqual(['POST', 'PUT']);
});

test('a store that gives the copy another id is told of, and nothing under that id is removed: it may belong to another', async () => {
  const { store, writer } = await rigOf(
    {
      intercept: (call) =>
        call.method === 'POST' ? { status: 201, body: { ...call.body, id: 'own-99' } } : undefined,
    },
    create,
  );
  store.set({ id: 'own-99', owner_id: 'ann' });
  await expect(writer.put(copyOf(1), stamp, false, never)).rejects.toThrow('not available yet');
  expect(store.records.has('own-99')).toBe(true);
});

test('every write is signed with the epoch under which it is made', async () => {
  const { store, writer } = await rigOf();
  await writer.remove({ kind: 'appointment', id: '1' }, stamp, never);
  const [call] = store.writes();
  const verdict = verifyGuard({
    ...{ secret, nowSeconds: Math.floor(Date.now() / 1000), method: 'DELETE', target: '/appointments/1' },
    headers: call?.headers ?? {},
  });
  expect(verdict).toEqual({ ok: true, claims: { user: '', ...stamp, access: 'copy' } });
});

test('a write is sent once, whatever the answer', async () => {
  let status = 500;
  const { store, writer } = await rigOf({ intercept: () => ({ status, body: { code: 'closed-epoch' } }) });
  const put = () => kindOf(writer.put(copyOf(1), stamp, true, never));
  expect(await put()).toBe('unavailable');
  status = 409;
  expect(await put()).toBe('refused-by-guard');
  status = 404;
  expect(await put()).toBe('rejected');
  expect(store.calls).toHaveLength(3);
});

test('many records go in one call, signed for the one partition that it holds', async () => {
  const bulk = { bulk: { method: 'PUT', path: '/appointments', max: 5, body: { data: '{items}' } } };
  const { store, writer } = await rigOf({ intercept: () => ({ status: 200, body: {} }) }, bulk);
  expect(writer.bulk('appointment')).toEqual({ max: 5, onePartition: true });
  const copies = [1, 2].map((id) => ({ copy: copyOf(id), stamp }));
  const outcome = await writer.putMany('appointment', copies, never);
  expect([...outcome.written]).toEqual(['1', '2']);
  const [call] = store.writes();
  expect(call).toMatchObject({ method: 'PUT', body: { data: copies.map(({ copy }) => copy.fields) } });
  const verdict = verifyGuard({
    ...{ secret, nowSeconds: Math.floor(Date.now() / 1000), method: 'PUT', target: '/appointments' },
    headers: call?.headers ?? {},
  });
  expect(verdict).toEqual({ ok: true, claims: { user: '', ...stamp, access: 'copy' } });
  for (const other of [
    { ...stamp, partition: 'bob' },
    { ...stamp, epoch: 5 },
  ]) {
    const mixed = [...copies, { copy: copyOf(3), stamp: other }];
    await expect(writer.putMany('appointment', mixed, never)).rejects.toThrow('one partition only');
  }
  expect(store.writes()).toHaveLength(1);
});

test('the guard is asked and told in signed calls, and a store without one says so', async () => {
  let status = 200;
  const { store, client } = await rigOf({
    intercept: () => ({ status, body: { epoch: 4, accept: false, code: 'stale-epoch' } }),
  });
  const calls = new RestGuardCalls(new Map([['app', client]]));
  expect(await calls.verdict('app', stamp, 'write', never)).toEqual({
    epoch: 4,
    accept: false,
    code: 'stale-epoch',
  });
  await calls.advance('app', stamp, never);
  await calls.seal('app', stamp, never);
  expect(
    store.calls.map(({ path, body, headers }) => [path.split('/').at(-1), body, headers['onewriter-access']]),
  ).toEqual([
    ['verdict', stamp, 'write'],
    ['advance', stamp, 'copy'],
    ['seal', stamp, 'copy'],
  ]);
  status = 404;
  expect(await kindOf(calls.seal('app', stamp, never))).toBe('rejected');
  expect(await kindOf(calls.seal('legacy', stamp, never))).toBe('rejected');
});

test('headers of its own go with writes alone, over those of every call', async () => {
  const { store, client } = await rigOf();
  const headers = { authorization: 'Bearer may-write' };
  const writer = new RestWriter(client, connectorFor().records, headers);
  await writer.put(copyOf(1), stamp, false, never);
  await client.call({ method: 'GET', path: '/appointments/1', access: 'read', stamp }, never);
  expect(store.calls.map(({ headers: sent }) => sent.authorization)).toEqual(['Bearer may-write', undefined]);
});

test.each([
  ['a strong ETag', '"7"', { 'if-match': '"7"' }],
  ['a weak ETag, which no store may match', 'W/"7"', {}],
])('a write that must not go over a later change carries %s', async (_, version, sent) => {
  const { store, writer } = await rigOf({}, { version: 'etag' });
  await writer.put(copyOf(1), stamp, true, never, { version });
  await writer.remove({ kind: 'appointment', id: '1' }, stamp, never, { version });
  for (const { headers } of store.writes()) {
    expect(headers['if-match']).toBe('if-match' in sent ? sent['if-match'] : undefined);
  }
});

test('a write of what must not be there yet says so, where the store has ETags, and 412 wrote nothing', async () => {
  const { store, writer } = await rigOf({}, { version: 'etag' });
  store.intercept = ({ headers }) =>
    headers['if-none-match'] === '*' ? { status: 412, body: {} } : undefined;
  expect(await kindOf(writer.put(copyOf(1), stamp, false, never, 'absent'))).toBe('rejected');
  expect(store.records.size).toBe(0);
  const plain = await rigOf();
  await plain.writer.put(copyOf(1), stamp, false, never, 'absent');
  expect(plain.store.writes()[0]?.headers['if-none-match']).toBeUndefined();
});
