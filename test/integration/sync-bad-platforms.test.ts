/** Platforms that are not what the configuration says: something clear is said, and no copy is harmed. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { connectorFor, type RestStoreOptions } from '../support/rest-store.ts';
import { failureOf } from '../support/rest-client.ts';
import { appointment, startSyncRig, type SyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: SyncRig;
const never = new AbortController().signal;
const records = () => [appointment('a1', 'ann'), appointment('a2', 'ann'), appointment('b1', 'bob')];
const paged: RestStoreOptions = { paging: 'cursor', pageSize: 2 };

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

/** Copies of everything, as they were made before the platform went wrong. */
async function start(intercept: NonNullable<RestStoreOptions['intercept']>): Promise<void> {
  rig = await startSyncRig(server, {
    legacy: { ...paged, records: records(), intercept },
    legacyConnector: connectorFor(paged),
    app: { records: records() },
  });
}

const lists = (path: string): boolean => path === '/appointments';

const wrong: [
  what: string,
  answer: NonNullable<RestStoreOptions['intercept']>,
  kind: string,
  said: RegExp,
][] = [
  ['that does not let us in', () => ({ status: 401 }), 'denied', /check the connector's credentials/],
  [
    'that answers with a page for people',
    () => ({ status: 200, body: '<h1>Welcome</h1>', headers: { 'content-type': 'text/html' } }),
    'bad-answer',
    /not with JSON \(text\/html\); nothing was concluded/,
  ],
  [
    'whose list repeats its cursor for ever',
    ({ path }) =>
      lists(path) ? { status: 200, body: { data: records().slice(1, 2), next: 'x' } } : undefined,
    'bad-answer',
    /goes in circles: it gave the same cursor twice/,
  ],
  [
    'whose list gives the same page under ever new cursors',
    ({ path, query }) =>
      lists(path)
        ? { status: 200, body: { data: [appointment('a1', 'ann')], next: `${query.get('cursor') ?? ''}x` } }
        : undefined,
    'bad-answer',
    /goes in circles: it gave the same page 6 times/,
  ],
  [
    'whose list stands elsewhere',
    ({ path }) => (lists(path) ? { status: 200, body: { items: [] } } : undefined),
    'bad-answer',
    /without an array at "data"; nothing was concluded/,
  ],
];

test.each(wrong)('a platform %s: no copy is changed or deleted', async (_, answer, kind, said) => {
  await start(answer);
  const failure = await failureOf(rig.sync.desk.bringUp('ann', never));
  expect([failure.kind, failure.message]).toEqual([kind, expect.stringMatching(said)]);
  await rig.sync.startWorkers();
  await until('it is said', () =>
    rig.events.some(({ fields }) => said.test(JSON.stringify(fields).replaceAll('\\"', '"'))),
  );
  expect(rig.app.writes()).toEqual([]);
  expect(rig.app.records.size).toBe(3);
});

test('a record that appears in two partitions stays where it is, and that is said', async () => {
  // Each user's list shows it as theirs; the record itself is ann's.
  await start(({ path, query }) => {
    if (!lists(path)) return undefined;
    const owner = query.get('owner');
    const shared = [...records(), appointment('a1', 'bob')];
    return {
      status: 200,
      body: { data: shared.filter((one) => owner === null || one.owner_id === owner), next: null },
    };
  });
  const ofAnn = await rig.sync.desk.bringUp('ann', never);
  expect(ofAnn.problems).toEqual([]);
  const ofBob = await rig.sync.desk.bringUp('bob', never);
  expect(ofBob.problems).toEqual([
    expect.objectContaining({
      detail: expect.stringMatching(
        /appointment a1: app holds appointment a1 for another partition, legacy for bob; it was left alone/,
      ),
    }),
  ]);
  await rig.order('bob', { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 10_000 });
  expect((await failureOf(rig.sync.desk.catchUp('bob', 'a', never))).message).toMatch(/left alone/);
  await rig.sync.startWorkers();
  await until('it is said', () =>
    rig.events.some(({ fields }) =>
      /the list of legacy shows record a1 in ann and in bob/.test(JSON.stringify(fields)),
    ),
  );
  expect(rig.app.records.get('a1')).toEqual(appointment('a1', 'ann'));
});
