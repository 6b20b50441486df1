/** Reads of copies through real processes: two proxies on one port, a worker, and rules that change at a SIGHUP. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Agent, request } from 'undici';
import { ProcessRig } from '../support/processes.ts';
import { until as untilWithin } from '../support/until.ts';

let rig: ProcessRig;
const until: typeof untilWithin = (what, condition) => untilWithin(what, condition, 60_000);
const routes = [{ path: '/appointments/*', reads: 'copy', maxStalenessMs: 5_000 }];
const debugging = { proxy: { debugHeaders: true } };

beforeEach(async () => {
  rig = await ProcessRig.open();
}, 120_000);
afterEach(() => rig.close(), 120_000);

interface Seen {
  readonly store: unknown;
  readonly title: unknown;
}

/** On a connection of its own, so through any of the processes. */
async function onFreshConnection<Result>(use: (agent: Agent) => Promise<Result>): Promise<Result> {
  const agent = new Agent({ connections: 1, pipelining: 1 });
  try {
    return await use(agent);
  } finally {
    await agent.close();
  }
}

function read(): Promise<Seen> {
  return onFreshConnection(async (dispatcher) => {
    const { headers, body } = await request(`http://127.0.0.1:${rig.proxyPort}/appointments/1`, {
      headers: { 'x-user': 'u1' },
      dispatcher,
    });
    const { title } = (await body.json()) as { readonly title?: unknown };
    return { store: headers['onewriter-store'], title };
  });
}

const write = (title: string) => onFreshConnection((agent) => rig.put('u1', '1', title, agent));
const readByCopy = () => until('a copy answers', async () => (await read()).store === 'app');

test('are made under rules that begin to allow them, and show every write that was answered', async () => {
  const up = await rig.start('up', debugging);
  expect(await write('0')).toBe(201);
  await until('it is copied', () => rig.app.records.has('1'));
  expect((await read()).store).toBe('legacy');
  rig.configure({ ...debugging, routes });
  up.child.kill('SIGHUP');
  await until('both have changed', () => rig.told('rules.changed') === 2);
  for (let round = 1; round <= 4; round += 1) {
    await readByCopy();
    expect(await write(String(round))).toBe(200);
    for (let look = 0; look < 6; look += 1) expect((await read()).title).toBe(String(round));
  }
  const copied = /^onewriter_copy_reads_total\{.*answered="copy".*\} [1-9]/m;
  await until('they are counted', async () => copied.test(await rig.admin('/metrics')));
}, 120_000);
