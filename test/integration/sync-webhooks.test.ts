/** Webhooks from the socket to the copy: what is proven rings, and only what the stores say is copied. */
import { createHmac } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { syncKeys } from '../../src/sync/keys.ts';
import { Inbox, inboxLimits } from '../../src/sync/webhooks/inbox.ts';
import { Whereabouts } from '../../src/sync/webhooks/whereabouts.ts';
import { connectorFor } from '../support/rest-store.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig, type SyncRigOptions } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: SyncRig;
let url: string;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

const secret = 'the-secret-of-the-webhooks';
const signatures = [{ scheme: 'stripe', secrets: [secret] }];
const named = { kind: 'appointment', id: 'data.id', partition: 'data.owner_id' };
const nameless = { kind: 'appointment', id: 'data.id' };
const slowPolls = { pollMs: 3_600_000 };

/** Without polls that would copy by themselves: the first one is through before anything happens. */
async function start(event: object, options: SyncRigOptions = {}, more: object = {}): Promise<void> {
  const webhook = { signatures, events: [event] };
  rig = await startSyncRig(server, {
    ...options,
    legacyConnector: { ...options.legacyConnector, webhook },
    sync: { ...slowPolls, ...options.sync },
    more: { webhooks: { port: 0, ...more } },
  });
  const listening = await rig.sync.startWorkers();
  url = listening.webhooks ?? '';
  await until('a first poll', async () => (await rig.sync.desk.lagMs()) !== undefined);
}

interface Sent {
  readonly key?: string;
  readonly atSeconds?: number;
  readonly path?: string;
  readonly headers?: Record<string, string>;
}

function send(body: object | string, sent: Sent = {}): Promise<Response> {
  const { key = secret, atSeconds = Math.floor(Date.now() / 1_000), path = '/webhooks/legacy' } = sent;
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const mac = createHmac('sha256', key).update(`${atSeconds}.${text}`).digest('hex');
  const headers = { 'stripe-signature': `t=${atSeconds},v1=${mac}`, ...sent.headers };
  return fetch(`${url}${path}`, { method: 'POST', headers, body: text });
}

function event(id: string, owner?: string, delivery = `delivery of ${id}`) {
  return { id: delivery, data: { id, title: 'from the webhook', ...(owner && { owner_id: owner }) } };
}

const inApp = (id: string) => rig.app.records.get(id)?.['title'];
const outcomes = async () =>
  Object.fromEntries(
    (await rig.sync.webhooks()).deliveries.map(({ outcome, deliveries }) => [outcome, deliveries]),
  );
const nothingWaits = () =>
  until('nothing waits', async () => {
    const { waiting } = await rig.sync.webhooks();
    return waiting === 0 && (await rig.sync.backlog()) === 0;
  });

describe('a delivery', () => {
  test('rings for its record, and carries nothing into the copy', async () => {
    await start(named);
    rig.legacy.set(appointment('1', 'ann', 'as legacy has it'));
    expect((await send(event('1', 'ann'))).status).toBe(204);
    await until('the copy', () => inApp('1') === 'as legacy has it');
    rig.legacy.remove('1');
    expect((await send({ ...event('1', 'ann', 'gone'), type: 'deleted' })).status).toBe(204);
    await until('the copy is gone', () => !rig.app.records.has('1'));
    // One that says "deleted" of a record that is there removes nothing.
    rig.legacy.set(appointment('2', 'ann'));
    await send({ ...event('2', 'ann'), type: 'deleted' });
    await until('the copy', () => inApp('2') === 'appointment 2');
    expect(rig.legacy.writes()).toEqual([]);
  });

  test('that is not proven is refused, and nothing is stored', async () => {
    await start(named);
    rig.legacy.set(appointment('1', 'ann'));
    const old = Math.floor(Date.now() / 1_000) - 301;
    const refused = [
      await send(event('1', 'ann'), { key: 'another-secret' }),
      await send(event('1', 'ann'), { atSeconds: old }),
      await send(event('1', 'ann'), { headers: { 'stripe-signature': 'none' } }),
      await fetch(`${url}/webhooks/legacy`, { method: 'POST', body: '{}' }),
    ];
    expect(refused.map(({ status }) => status)).toEqual([401, 401, 401, 401]);
    const codes = await Promise.all(refused.map(async (answer) => (await answer.json()) as { code: string }));
    expect(codes.map(({ code }) => code)).toEqual(['wrong', 'too-old', 'wrong', 'unsigned']);
    await until('they are counted', async () => (await outcomes())['wrong'] === 2);
    expect(await rig.sync.webhooks()).toMatchObject({ waiting: 0 });
    expect(rig.app.records.size).toBe(0);
    const told = JSON.stringify(rig.events.filter((one) => one.event === 'sync.delivery-refused'));
    expect(told).toContain('signatures do not match stores.legacy.connector.webhook.signatures');
    expect(told).toContain('copied after the next poll instead');
  });

  test('of a wrong kind gets an answer that says so', async () => {
    await start(named, {}, { bodyBytes: 1_024 });
    const status = async (answer: Promise<Response>) => (await answer).status;
    expect(await status(send('not json'))).toBe(400);
    expect(await status(send(event('1'), { path: '/webhooks/app' }))).toBe(404);
    expect(await status(send(event('1'), { path: '/webhooks/legacy/more' }))).toBe(404);
    expect(await status(fetch(`${url}/webhooks/legacy`))).toBe(405);
    expect(await status(send({ data: 'x'.repeat(2_000) }))).toBe(413);
    expect(await status(send(event('1', 'ann'), { headers: { 'content-encoding': 'gzip' } }))).toBe(400);
    // Unknown events are the sender's business: it need not send them again.
    expect(await status(send({ id: 'other', data: {} }))).toBe(204);
    expect(await outcomes()).toMatchObject({ ignored: 1 });
  });

  test('that comes twice counts once', async () => {
    await start(named);
    expect((await send(event('1', 'ann', 'same'))).status).toBe(204);
    expect((await send(event('1', 'ann', 'same'))).status).toBe(204);
    expect((await send(event('1', 'ann', 'other'))).status).toBe(204);
    expect(await outcomes()).toMatchObject({ stored: 2, double: 1 });
  });

  test('is answered 503 while Redis is away, and taken when it comes again', async () => {
    await start(named);
    rig.legacy.set(appointment('1', 'ann'));
    const answers: Response[] = [];
    await rig.redis.client('PAUSE', 3_500, 'WRITE');
    answers.push(await send(event('1', 'ann')));
    expect(answers[0]?.status).toBe(503);
    expect(answers[0]?.headers.get('retry-after')).toBe('5');
    await until('it is taken', async () => (await send(event('1', 'ann'))).status === 204);
    await until('the copy', () => inApp('1') === 'appointment 1');
  });

  test('that a process took before it died is rung for by another one', async () => {
    await start(named);
    await rig.sync.stop();
    rig.legacy.set(appointment('1', 'ann'));
    const record = { kind: 'appointment', id: '1', partition: 'ann' };
    await new Inbox(rig.redis).store({ store: 'legacy', delivery: undefined, records: [record] });
    await rig.restartSync();
    expect((await rig.sync.webhooks()).waiting).toBe(1);
    expect(await rig.sync.desk.lagMs()).toBeGreaterThanOrEqual(0);
    await rig.sync.startWorkers();
    await until('the copy', () => inApp('1') === 'appointment 1');
    await nothingWaits();
  });

  test('of a store that does not own the partition rings for nothing', async () => {
    await start(named);
    await rig.flip('ann');
    await rig.restartSync();
    url = (await rig.sync.startWorkers()).webhooks ?? '';
    rig.legacy.set(appointment('1', 'ann'));
    rig.legacy.set(appointment('2', 'bob'));
    await send(event('1', 'ann'));
    await send(event('2', 'bob'));
    await until('the copy', () => rig.app.records.has('2'));
    await nothingWaits();
    expect(rig.app.records.has('1')).toBe(false);
    expect(rig.legacy.calls.filter(({ path }) => path === '/appointments/1')).toEqual([]);
  });

  test('of the app about the copies that are made in it rings for nothing', async () => {
    const ofApp = { ...connectorFor(), webhook: { signatures, events: [named] } };
    await start(named, { appStore: { connector: ofApp } });
    const before = rig.legacy.calls.length;
    rig.app.set(appointment('1', 'ann'));
    expect((await send(event('1', 'ann'), { path: '/webhooks/app' })).status).toBe(204);
    await nothingWaits();
    expect(rig.legacy.calls.slice(before)).toEqual([]);
  });
});

describe('a delivery that names only an id', () => {
  test('is placed by what the lists have shown, without asking a store', async () => {
    await start(nameless, { legacy: { records: [appointment('1', 'ann')] } });
    await until('the first copy', () => rig.app.records.has('1'));
    await nothingWaits();
    rig.legacy.remove('1');
    const before = rig.legacy.calls.length;
    await send(event('1'));
    await until('the copy is gone', () => !rig.app.records.has('1'));
    // The one question is whether it is really gone.
    expect(rig.legacy.calls.slice(before).map(({ method, path }) => `${method} ${path}`)).toEqual([
      'GET /appointments/1',
    ]);
  });

  test('is placed by the store, and a deleted one by its copy', async () => {
    await start(nameless, { app: { records: [appointment('9', 'bob')] }, legacy: {} });
    rig.legacy.set(appointment('1', 'ann'));
    await send(event('1'));
    await until('the copy', () => rig.app.records.has('1'));
    rig.app.set(appointment('8', 'bob'));
    await send(event('8'));
    await until('the copy is gone', () => !rig.app.records.has('8'));
    await send(event('nowhere'));
    await nothingWaits();
  });

  test('waits while the store does not let it be looked up, and stops nothing else', async () => {
    await start(nameless);
    rig.legacy.set(appointment('1', 'ann'));
    let down = true;
    rig.legacy.intercept = ({ path }) =>
      down && path === '/appointments/1' ? { status: 503, body: {} } : undefined;
    await send(event('1'));
    await until('it waits', async () => (await rig.redis.xlen(syncKeys.unplaced)) === 1);
    expect((await rig.sync.desk.lagMs()) ?? -1).toBeGreaterThanOrEqual(0);
    down = false;
    await until('the copy', () => rig.app.records.has('1'));
    await nothingWaits();
  });
});

test('records that nobody can ask for, or that their store will not show, keep no others from being placed', async () => {
  await start(nameless);
  const isBad = (path: string): boolean => path.startsWith('/appointments/bad');
  rig.legacy.intercept = ({ path }) => (isBad(path) ? { status: 500, body: {} } : undefined);
  for (const id of [0, 1, 2, 3, 4]) {
    expect((await send(event(`x${id}\ud800`))).status).toBe(204);
    expect((await send(event(`bad${id}`))).status).toBe(204);
  }
  await until('the bad ones wait', async () => (await rig.redis.xlen(syncKeys.unplaced)) === 5);
  for (const id of ['1', '2', '3']) {
    rig.legacy.set(appointment(id, 'ann'));
    await send(event(id));
  }
  await until('the copies', () => rig.app.records.size === 3);
  // They are given up one day: what waits counts for the lag.
  await until('nothing waits', async () => (await rig.sync.webhooks()).waiting === 0, 60_000);
  expect(rig.events.filter((logged) => logged.event === 'sync.record-not-placed')).toHaveLength(5);
});

test('the inbox is bounded: a delivery is stored whole or refused, and the memory of doubles ends', async () => {
  rig = await startSyncRig(server);
  const inbox = new Inbox(rig.redis, { ...inboxLimits, entries: 5, unplaced: 100, seen: 2 });
  const three = ['1', '2', '3'].map((id) => ({ kind: 'appointment', id, partition: 'ann' }));
  const store = (delivery: string, records = three) => inbox.store({ store: 'legacy', delivery, records });
  expect(await store('a')).toBe('stored');
  expect(await store('b')).toBe('full');
  expect(await inbox.waiting()).toBe(3);
  const [first, ...others] = await inbox.take(10);
  expect(first).toMatchObject({ store: 'legacy', kind: 'appointment', id: '1', partition: 'ann' });
  await inbox.settle(others, first === undefined ? [] : [first]);
  expect(await inbox.take(10)).toEqual([]);
  expect(await inbox.takeUnplaced(10)).toMatchObject([{ id: '1' }]);
  // What was refused as too much is no double when it comes again.
  expect(await store('b')).toBe('stored');
  for (const delivery of ['c', 'd', 'e']) await store(delivery, []);
  expect(await rig.redis.zcard(syncKeys.deliveries)).toBe(2);
});

test('what is known of partitions is bounded, and takes little memory', async () => {
  rig = await startSyncRig(server);
  const known = new Whereabouts(rig.redis, 'legacy', { buckets: 4, perBucket: 100 });
  const records = Array.from({ length: 2_000 }, (_, at) => ({
    kind: 'appointment',
    id: `record-${at}`,
    partition: `user-${at % 50}`,
  }));
  const before = await memory();
  await known.learn(records);
  const found = await known.find(records.map(({ kind, id }) => ({ kind, id })));
  const right = found.filter((partition, at) => partition === records[at]?.partition);
  expect(found.filter((partition) => partition !== undefined)).toHaveLength(right.length);
  expect(right.length).toBeGreaterThan(300);
  expect(right.length).toBeLessThanOrEqual(400);
  expect(((await memory()) - before) / right.length).toBeLessThan(200);
  // What has moved is learned anew.
  const [one] = records.filter((_, at) => found[at] !== undefined);
  await known.learn([{ kind: 'appointment', id: one?.id ?? '', partition: 'moved' }]);
  expect(await known.find([{ kind: 'appointment', id: one?.id ?? '' }])).toEqual(['moved']);
});

async function memory(): Promise<number> {
  return Number(/used_memory_dataset:(\d+)/.exec(await rig.redis.info('memory'))?.[1]);
}
