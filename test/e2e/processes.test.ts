/** Several proxy processes on one port: real processes under traffic, killed, frozen, drained and reloaded. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Agent } from 'undici';
import { startCli } from '../support/cli.ts';
import { type Changes, ProcessRig, Traffic } from '../support/processes.ts';
import { RawClient, statusOf } from '../support/raw-http.ts';
import { startRedis } from '../support/redis.ts';
import { until as untilWithin } from '../support/until.ts';

let rig: ProcessRig;

/** Generous: processes start and end here, and the machine may be busy. */
const until: typeof untilWithin = (what, condition) => untilWithin(what, condition, 60_000);

beforeEach(async () => {
  rig = await ProcessRig.open();
}, 120_000);
afterEach(() => rig.close(), 120_000);

const pidsOf = async (): Promise<number[]> => (await rig.members()).map(({ pid }) => pid);
const flip = () =>
  rig.cli(...['flip', '--cohort', 'all', '--to', 'app', '--reason', 'test', '--yes', '--timeout', '90s']);

/** New connections, one request on each. */
async function statusesOf(connections: number): Promise<(number | string)[]> {
  return Promise.all(
    Array.from({ length: connections }, async (_, at) => {
      const agent = new Agent({ connections: 1, pipelining: 1 });
      const status = await rig.put('u1', `b-${at}`, 'one', agent);
      await agent.close();
      return status;
    }),
  );
}

/** Uploads whose end the test holds back, until every member has one under way. */
async function uploadsEverywhere(): Promise<RawClient[]> {
  const uploads: RawClient[] = [];
  await until('every member has an upload under way', async () => {
    if ((await rig.members()).every(({ inFlight }) => inFlight > 0)) return true;
    if (uploads.length < 60) uploads.push(await startUpload(uploads.length));
    return false;
  });
  return uploads;
}

async function startUpload(at: number): Promise<RawClient> {
  const client = await RawClient.open(rig.proxyPort);
  const body = uploadBody(at);
  client.send(
    `PUT /appointments/c-${at} HTTP/1.1\r\nHost: a\r\nx-user: u1\r\ncontent-type: application/json\r\n` +
      `Content-Length: ${body.length}\r\n\r\n${body.slice(0, 5)}`,
  );
  return client;
}

function uploadBody(at: number): string {
  return JSON.stringify({ id: `c-${at}`, owner_id: 'u1', title: 'an upload' });
}

async function finish(uploads: readonly RawClient[]): Promise<number[]> {
  return Promise.all(
    uploads.map(async (client, at) => {
      client.send(uploadBody(at).slice(5));
      return statusOf(await client.answer());
    }),
  );
}

async function refuses(): Promise<boolean> {
  return RawClient.open(rig.proxyPort).then(
    (client) => {
      client.socket.destroy();
      return false;
    },
    (error: unknown) => (error as { code?: string }).code === 'ECONNREFUSED',
  );
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

test('three members take requests on one port, and a flip under load loses and fails nothing', async () => {
  const up = await rig.start('up', { proxy: { processes: 3 } });
  const members = await rig.members();
  expect(new Set(members.map(({ id }) => id)).size).toBe(3);
  expect(new Set([up.child.pid, ...members.map(({ pid }) => pid)]).size).toBe(4);

  const traffic = new Traffic(rig);
  await until('traffic flows', () => traffic.acknowledged > 100);
  const flipped = await flip();
  expect(flipped).toMatchObject({ exit: 0 });
  const then = traffic.acknowledged;
  await until('traffic flows afterwards', () => traffic.acknowledged > then + 100);
  await traffic.stop();
  expect(traffic.failures).toEqual([]);
  expect(traffic.lost(rig.app)).toEqual([]);
  expect(rig.wroteToBoth()).toEqual([]);

  // Connections go to whoever is free, so with enough of them several have served.
  const served = await until('several have served', async () => {
    await statusesOf(20);
    const counts = [...(await rig.admin('/metrics')).matchAll(/requests_total\{process="(\d)",.*\} (\d+)/g)];
    const busy = new Set(counts.filter(([, , count]) => count !== '0').map(([, place]) => place));
    return busy.size > 1 && busy;
  });
  expect([...served].every((place) => ['1', '2', '3'].includes(place ?? ''))).toBe(true);
  expect(JSON.parse(await rig.admin('/v1/members'))).toMatchObject({ members: { length: 3 } });
  expect(await rig.end()).toMatchObject({ exit: 0 });
  expect(await rig.members()).toEqual([]);
  // All keep what they know of the ledger in one directory.
  const kept = readdirSync(join(rig.directory, 'data', 'ledger-views'));
  expect(kept.filter((name) => name.endsWith('.part'))).toEqual([]);
  expect(kept.some((name) => name.endsWith('.ndjson'))).toBe(true);
}, 180_000);

test('a process that is killed under load costs its own connections; another takes its place, and flips go on', async () => {
  await rig.start('up');
  const [killed = 0, other = 0] = await pidsOf();
  const traffic = new Traffic(rig);
  await until('traffic flows', () => traffic.acknowledged > 100);
  process.kill(killed, 'SIGKILL');
  const atKill = traffic.acknowledged;
  await until('the other goes on', () => traffic.acknowledged > atKill + 50);
  await until('another is started', async () => rig.told('process.started') === 1);
  // The old member stays listed until it is proven gone; only then may anything move.
  const flipped = await flip();
  expect(flipped).toMatchObject({ exit: 0 });
  await traffic.stop();
  const pids = await pidsOf();
  expect(pids.length).toBe(2);
  expect(pids).toContain(other);
  expect(pids).not.toContain(killed);
  expect(traffic.failures.filter(({ outcome }) => typeof outcome === 'number')).toEqual([]);
  expect(new Set(traffic.failures.map(({ user }) => user)).size).toBe(traffic.failures.length);
  expect(traffic.lost(rig.app)).toEqual([]);
  expect(rig.wroteToBoth()).toEqual([]);
}, 180_000);

test('a process that is told to end finishes what it has under way, and another takes its place', async () => {
  await rig.start('proxy', { writeTimeoutMs: 20_000 });
  const uploads = await uploadsEverywhere();
  const [told = 0] = await pidsOf();
  process.kill(told, 'SIGTERM');
  expect(new Set(await statusesOf(20))).toEqual(new Set([201]));
  expect(new Set(await finish(uploads))).toEqual(new Set([201]));
  await until('another is started', () => rig.told('process.started') === 1);
  const pids = await pidsOf();
  expect(pids).toHaveLength(2);
  expect(pids).not.toContain(told);
}, 120_000);

test('one that cannot be started again is tried until it can', async () => {
  await rig.start('proxy');
  const [killed = 0] = await pidsOf();
  const { directory, port } = rig.server;
  await rig.server.kill();
  process.kill(killed, 'SIGKILL');
  await until('it could not be started', () => rig.told('process.not-started') > 0);
  const again = await startRedis({ directory, port });
  await until('it is started', () => rig.told('process.started') === 1);
  expect(new Set(await statusesOf(20))).toEqual(new Set([201]));
  expect(await rig.end()).toMatchObject({ exit: 0 });
  await again.kill();
}, 120_000);

test('with an embedded Redis, a new deployment takes over from one that was killed', async () => {
  const embedded = { redis: { url: 'embedded' } };
  const up = await rig.start('up', embedded);
  expect(new Set(await statusesOf(10))).toEqual(new Set([201]));
  up.child.kill('SIGKILL');
  await until('the port is free', refuses);
  await rig.start('up', embedded);
  expect(new Set(await statusesOf(10))).toEqual(new Set([200]));
  expect(await rig.end()).toMatchObject({ exit: 0 });
}, 120_000);

describe('a process that is frozen', () => {
  test('takes no new connection along, and is ended and replaced when it does not come back', async () => {
    await rig.start('up');
    const [frozen = 0] = await pidsOf();
    process.kill(frozen, 'SIGSTOP');
    // Whatever was queued for the port is taken by the other.
    expect(new Set(await statusesOf(40))).toEqual(new Set([201]));
    await until('it is ended', () => rig.told('process.silent') === 1);
    await until('another is started', () => rig.told('process.started') === 1);
    expect(isAlive(frozen)).toBe(false);
    await until('it is proven gone', async () => (await rig.members()).length === 2);
  }, 120_000);

  test('holds a flip up, and no write goes to two stores when it comes back', async () => {
    await rig.start('up', { ledger: { leaseMs: 10_000 }, writeTimeoutMs: 10_000 });
    const [frozen = 0] = await pidsOf();
    const traffic = new Traffic(rig);
    await until('traffic flows', () => traffic.acknowledged > 100);
    process.kill(frozen, 'SIGSTOP');
    let reopened = 0;
    rig.ledger.feed.onTransition(({ before, after }) => {
      if (before.phase === 'fenced' && after.phase === 'open') reopened += 1;
    });
    const flipping = flip();
    await until(
      'no fence began, or one was lifted again',
      async () => reopened > 0 || (await rig.admin('/v1/flips')).includes('stale-member'),
    );
    expect(rig.took.filter(({ store }) => store === 'app')).toEqual([]);
    process.kill(frozen, 'SIGCONT');
    await flipping;
    expect(await flip()).toMatchObject({ exit: 0 });
    await traffic.stop();
    expect(traffic.lost(rig.app)).toEqual([]);
    expect(rig.wroteToBoth()).toEqual([]);
  }, 180_000);
});

describe('the end', () => {
  test('at a SIGTERM every process ends what it has under way, and the exit code is 0', async () => {
    const up = await rig.start('proxy', { writeTimeoutMs: 20_000 });
    const uploads = await uploadsEverywhere();
    up.child.kill('SIGTERM');
    await until('no new connection is taken', refuses);
    expect(new Set(await finish(uploads))).toEqual(new Set([201]));
    expect(await up.ended).toMatchObject({ exit: 0 });
    expect(await rig.members()).toEqual([]);
  }, 120_000);

  test('at a second signal all end at once', async () => {
    const up = await rig.start('proxy', { writeTimeoutMs: 60_000 });
    await uploadsEverywhere();
    up.child.kill('SIGTERM');
    await until('no new connection is taken', refuses);
    up.child.kill('SIGTERM');
    // All write to the same standard error; it ends with the last of them.
    expect(await up.ended).toMatchObject({ exit: 143 });
  }, 120_000);

  test('when the process that started them is killed, they end what is under way and leave the port', async () => {
    const up = await rig.start('proxy', { writeTimeoutMs: 20_000 });
    const uploads = await uploadsEverywhere();
    up.child.kill('SIGKILL');
    await until('no new connection is taken', refuses);
    expect(new Set(await finish(uploads))).toEqual(new Set([201]));
    await up.ended;
    expect(await rig.members()).toEqual([]);
    expect(rig.told('process.alone')).toBe(2);
  }, 120_000);
});

describe('other rules at a SIGHUP', () => {
  const byOrg = { partition: [{ header: 'x-org' }, { by: 'user' }] };

  test('apply in all processes at once, without a refused write, and in those that are started later', async () => {
    const up = await rig.start('proxy');
    const traffic = new Traffic(rig);
    await until('traffic flows', () => traffic.acknowledged > 50);
    const [before] = await rig.members();
    rig.configure(byOrg);
    up.child.kill('SIGHUP');
    await until('both have changed', () => rig.told('rules.changed') === 2);
    const then = traffic.acknowledged;
    await until('traffic flows', () => traffic.acknowledged > then + 50);
    await traffic.stop();
    expect(traffic.failures).toEqual([]);
    const after = await rig.members();
    expect(after.length).toBe(2);
    expect(after.map(({ configHash }) => configHash)).not.toContain(before?.configHash);

    const [killed = 0] = await pidsOf();
    process.kill(killed, 'SIGKILL');
    await until('another is started', () => rig.told('process.started') === 1);
    expect(new Set((await rig.members()).map(({ configHash }) => configHash)).size).toBe(1);
  }, 120_000);

  test('do not apply anywhere while one process is frozen, and the others go on', async () => {
    const up = await rig.start('proxy', { ledger: { leaseMs: 10_000 }, writeTimeoutMs: 10_000 });
    const [frozen = 0] = await pidsOf();
    const ids = (await rig.members()).map(({ id }) => id);
    process.kill(frozen, 'SIGSTOP');
    rig.configure({ ledger: { leaseMs: 10_000 }, writeTimeoutMs: 10_000, ...byOrg });
    up.child.kill('SIGHUP');
    expect(new Set(await statusesOf(10))).toEqual(new Set([201]));
    await until('it says why', () => rig.stderr().includes(`process ${frozen} does not answer`));
    expect(rig.told('rules.not-changed')).toBe(1);
    expect((await rig.members()).map(({ id }) => id)).toEqual(ids);
    process.kill(frozen, 'SIGCONT');
  }, 120_000);

  test('do not apply anywhere while one process cannot change, and nobody waits', async () => {
    const up = await rig.start('proxy');
    const { intercept } = rig.legacy;
    // What a gateway says that does not know what became of it.
    rig.legacy.intercept = () => ({ status: 502 });
    expect(await statusesOf(1)).toEqual([502]);
    rig.legacy.intercept = intercept;
    rig.configure(byOrg);
    const ids = (await rig.members()).map(({ id }) => id);
    up.child.kill('SIGHUP');
    await until('it says why', () => rig.stderr().includes('a write is in doubt'));
    expect(rig.told('rules.not-changed')).toBe(1);
    expect((await rig.members()).map(({ id }) => id)).toEqual(ids);
    expect(new Set(await statusesOf(10))).toEqual(new Set([201]));
  }, 120_000);
});

describe('a start that fails', () => {
  const failing: [string, RegExp, () => Record<string, unknown>][] = [
    ['a port that is taken', /is in use by another process/, () => ({ port: rig.server.port })],
    ['a host elsewhere', /is not an address of this machine/, () => ({ host: '203.0.113.1', port: 1_234 })],
    [
      'no certificate',
      /proxy\.tls\.cert, \/no, cannot be read/,
      () => ({ tls: { cert: '/no', key: '/no' } }),
    ],
  ];

  test.each(failing)(
    'says the same as with one process, and leaves none behind: %s',
    async (_, why, proxy) => {
      await expectSameRefusal(why, { proxy: proxy() });
      expect(await rig.members()).toEqual([]);
    },
    120_000,
  );

  test('says the same as with one process where Redis does not answer', async () => {
    await expectSameRefusal(/Redis does not answer at/, { redis: { url: 'redis://127.0.0.1:1' } });
  }, 120_000);

  test('is what happens under a process manager that has made it a worker of a cluster', async () => {
    rig.configure();
    const code =
      `const cluster = require('node:cluster');` +
      `cluster.setupPrimary({ exec: process.argv[3], args: process.argv.slice(4), execArgv: [] });` +
      `cluster.fork();`;
    const manager = startCli(['proxy', '--config', rig.config], { shell: `exec "$1" -e "${code}" -- "$@"` });
    let stderr = '';
    manager.child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    await until('it says so', () => stderr.includes('is itself a worker of node:cluster'));
    manager.child.kill('SIGKILL');
    await manager.ended;
  }, 120_000);

  async function expectSameRefusal(why: RegExp, changes: Changes): Promise<void> {
    const results = [];
    for (const processes of [1, 2]) {
      rig.configure({ ...changes, proxy: { ...changes.proxy, processes } });
      results.push(await rig.cli('proxy'));
    }
    const [one, two] = results;
    expect(sentences(two?.stderr)).toMatch(why);
    expect(sentences(two?.stderr)).toEqual(sentences(one?.stderr));
    expect(two).toMatchObject({ exit: 1, stdout: one?.stdout });
  }
});

/** Without the log. */
function sentences(stderr = ''): string {
  return stderr
    .split('\n')
    .filter((line) => !line.startsWith('{'))
    .join('\n');
}
