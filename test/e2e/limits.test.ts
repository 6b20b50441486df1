/** What surrounds the proxy runs out, or breaks: files, the disk of the log, the program itself. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ProcessRig } from '../support/processes.ts';
import { headerOf, RawClient, type RawMessage, statusOf } from '../support/raw-http.ts';
import { until as untilWithin } from '../support/until.ts';

const write = 'POST /a HTTP/1.1\r\nHost: a\r\nx-user: u1\r\nContent-Length: 2\r\n\r\n{}';
const health = 'GET /.well-known/onewriter/health HTTP/1.1\r\nHost: a\r\n\r\n';
let rig: ProcessRig;

/** Generous: processes start and end here, and the machine may be busy. */
const until: typeof untilWithin = (what, condition) => untilWithin(what, condition, 60_000);

beforeEach(async () => {
  rig = await ProcessRig.open();
  const { intercept } = rig.legacy;
  rig.legacy.intercept = (call) => (call.method === 'POST' ? { status: 200 } : intercept?.(call));
}, 120_000);
afterEach(() => rig.close(), 120_000);

async function ask(client: RawClient, request = write): Promise<RawMessage> {
  client.send(request);
  return client.answer();
}

/** The status, or that the connection was cut off. */
async function outcome(client: RawClient): Promise<number | string> {
  return ask(client).then(statusOf, () => 'cut off');
}

const opened = (count: number): Promise<RawClient[]> =>
  Promise.all(Array.from({ length: count }, () => RawClient.open(rig.proxyPort)));

describe('a process that may open few files', () => {
  // 64 files are for everything else; half of the others for clients, less a tenth for those who are only told.
  const files = 164;
  const served = 45;
  const shell = `ulimit -n ${files}; exec "$@"`;

  test('serves as many clients as it can, tells some others that there are too many, and goes on', async () => {
    await rig.start('proxy', { proxy: { processes: 1 } }, { shell });
    expect(rig.told('proxy.few-files')).toBe(1);
    const clients = await opened(served);
    const answers = await Promise.all(clients.map((client) => ask(client)));
    expect(new Set(answers.map(statusOf))).toEqual(new Set([200]));

    const [beyond] = await opened(1);
    const refused = await ask(beyond as RawClient);
    expect(statusOf(refused)).toBe(503);
    expect(JSON.parse(refused.body)).toMatchObject({ code: 'too-many-connections', sent: 'no' });
    expect(headerOf(refused, 'retry-after')).toBe('1');
    expect(headerOf(refused, 'connection')).toBe('close');

    const crowd = await opened(300);
    const outcomes = await Promise.all(crowd.map(outcome));
    expect(new Set([...outcomes, 503, 'cut off'])).toEqual(new Set([503, 'cut off']));
    // Whoever was there before notices nothing, and the member has kept its lease.
    expect(statusOf(await ask(clients[0] as RawClient))).toBe(200);
    expect(statusOf(await ask(clients[1] as RawClient, health))).toBe(200);
    expect(rig.told('proxy.crowded')).toBe(1);
    for (const client of [...clients, ...crowd]) client.socket.destroy();
    await until('there is room again', async () => {
      const [client] = await opened(1);
      return (await outcome(client as RawClient)) === 200;
    });
  }, 120_000);

  test('takes a crowd with two processes, and neither dies of it', async () => {
    await rig.start('proxy', {}, { shell });
    const members = await rig.members();
    const crowd = await opened(500);
    const outcomes = await Promise.all(crowd.map(outcome));
    expect(new Set([...outcomes, 503, 'cut off'])).toEqual(new Set([200, 503, 'cut off']));
    for (const client of crowd) client.socket.destroy();
    await until('there is room again', async () => {
      const [client] = await opened(1);
      return (await outcome(client as RawClient)) === 200;
    });
    expect((await rig.members()).map(({ id }) => id)).toEqual(members.map(({ id }) => id));
    expect(rig.told('process.ended')).toBe(0);
  }, 120_000);
});

test.each([1, 2])(
  'a log that cannot be written ends nothing: %i processes',
  async (processes) => {
    const up = await rig.start('proxy', { proxy: { processes } }, { shell: 'exec "$@" 2>/dev/full' });
    up.child.kill('SIGHUP');
    await until('it goes on', async () => {
      const [client] = await opened(1);
      return (await outcome(client as RawClient)) === 200;
    });
    expect(await rig.end()).toMatchObject({ exit: 0 });
  },
  120_000,
);

describe('an error that nobody has thought of', () => {
  function faulty(): { env: Record<string, string> } {
    const file = join(rig.directory, 'fault.mjs');
    writeFileSync(file, `process.on('SIGUSR2', () => { throw new Error('of a test'); });`);
    return { env: { NODE_OPTIONS: `--import=${file}` } };
  }

  test('ends a process at once, with its stack; it stays listed like any that died', async () => {
    const up = await rig.start('proxy', { proxy: { processes: 1 } }, faulty());
    up.child.kill('SIGUSR2');
    const { exit, stderr } = await up.ended;
    expect(exit).toBe(1);
    expect(stderr).toMatch(/an unexpected error; please report it[^]*of a test[^]*fault\.mjs/);
    expect(await rig.members()).toHaveLength(1);
  }, 120_000);

  test('in one of several: another takes its place', async () => {
    await rig.start('proxy', {}, faulty());
    const [member] = await rig.members();
    process.kill(member?.pid ?? 0, 'SIGUSR2');
    await until('another is started', () => rig.told('process.started') === 1);
    expect(rig.stderr()).toMatch(/process\.bug.*of a test/);
    expect(rig.told('process.alone')).toBe(0);
  }, 120_000);

  test('in the one that started them: they end in order', async () => {
    const up = await rig.start('proxy', {}, faulty());
    up.child.kill('SIGUSR2');
    expect(await up.ended).toMatchObject({ exit: 1 });
    expect(rig.told('process.alone')).toBe(2);
    expect(await rig.members()).toEqual([]);
  }, 120_000);
});
