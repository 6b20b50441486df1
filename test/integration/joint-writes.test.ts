/**
 * Writes over pairs of partitions from two proxies while a flip moves them, on a real ledger. What the stores saw is
 * the judge: no write in a store that did not own all of it, none lost between the stores of its partitions (I1, I4).
 */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { configSchema } from '../../src/config/schema.ts';
import {
  type GuardRow,
  guardAdvance,
  guardSeal,
  guardVerdict,
  unknownToGuard,
} from '../../src/core/guard.ts';
import type { StoreName } from '../../src/core/ownership.ts';
import { type GuardClaims, verifyGuard } from '../../src/guard/signature.ts';
import { LinkMemory } from '../../src/ledger/links.ts';
import { createProxy, type Proxy } from '../../src/proxy/proxy.ts';
import { FlipRig, leaseMs, names } from '../support/flip.ts';
import { RawUpstream, type RawMessage } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

const secret = 'a-secret-of-the-joint-writes';
/** u00 with u01, u02 with u03, …: each pair is written together. */
const pairs = names.flatMap((name, at) => (at % 2 === 0 ? [[name, names[at + 1] ?? ''] as const] : []));

interface Arrived {
  readonly store: StoreName;
  readonly partitions: readonly { readonly partition: string; readonly epoch: number }[];
}

let rig: FlipRig;
let stores: Record<StoreName, RawUpstream>;
let arrived: Arrived[];
let rows: Map<string, GuardRow>;
let proxies: Proxy[];

beforeEach(async () => {
  rig = await FlipRig.start();
  [arrived, rows, proxies] = [[], new Map(), []];
  stores = { legacy: await RawUpstream.start(), app: await RawUpstream.start() };
  for (const store of ['legacy', 'app'] as const) {
    stores[store].answer = (request, socket) => {
      const status = take(store, request) ? '200 OK' : '409 Conflict';
      socket.write(`HTTP/1.1 ${status}\r\nContent-Length: 0\r\n\r\n`);
    };
  }
  const rowOf = (partition: string): GuardRow => rows.get(partition) ?? unknownToGuard;
  rig.guards = {
    verdict: async (_store, { partition }) => rowOf(partition),
    advance: async (_store, { partition, epoch }) => {
      rows.set(partition, guardAdvance(rowOf(partition), epoch));
      return rowOf(partition);
    },
    seal: async (_store, { partition, epoch }) => {
      rows.set(partition, guardSeal(rowOf(partition), epoch));
    },
  };
});
afterEach(async () => {
  for (const proxy of proxies) await proxy.stop();
  await rig.close();
  await Promise.all([stores.legacy.stop(), stores.app.stop()]);
});

/** The app asks its guard for every partition; the platform takes what it gets. */
function take(store: StoreName, request: RawMessage): boolean {
  const headers = Object.fromEntries(
    request.headers.map((line) => [
      line.slice(0, line.indexOf(':')).toLowerCase(),
      line.slice(line.indexOf(':') + 2),
    ]),
  );
  const [method = '', target = ''] = request.startLine.split(' ');
  const nowSeconds = Math.floor(Date.now() / 1_000);
  const verdict = verifyGuard({ secret, nowSeconds, method, target, headers, severalPartitions: true });
  if (!verdict.ok) throw new Error(verdict.code);
  const { claims } = verdict;
  const partitions = touched(claims);
  if (store === 'app') {
    const said = partitions.map(({ partition, epoch }) => ({
      partition,
      verdict: guardVerdict(rows.get(partition) ?? unknownToGuard, 'write', epoch),
    }));
    if (!said.every((one) => one.verdict.accept)) return false;
    for (const { partition, verdict: judged } of said) rows.set(partition, judged.row);
  }
  arrived.push({ store, partitions });
  return true;
}

function touched({ partition, epoch, also = [] }: GuardClaims): Arrived['partitions'] {
  return [{ partition, epoch }, ...also];
}

async function startProxy(): Promise<string> {
  const links = new LinkMemory((all, route) => rig.ledger.links.note(all, route));
  const member = await rig.ledger.join({ leaseMs, links });
  const store = (name: StoreName) => ({ url: stores[name].url, guard: true });
  const proxy = createProxy({
    config: configSchema.parse({
      ...{ secret, proxy: { port: 0 }, identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }] },
      stores: { legacy: store('legacy'), app: store('app') },
      routes: [{ path: '/batch', partitions: 'body.requests[*].owner' }],
    }),
    ...{ gate: member, links, log: () => undefined, doubts: { note: () => undefined } },
    doorbell: { ring: () => undefined },
  });
  proxies.push(proxy);
  return `http://127.0.0.1:${(await proxy.listen()).port}/batch`;
}

interface Answered {
  readonly status: number;
  readonly code: string | undefined;
}

async function write(url: string, owners: readonly string[]): Promise<Answered> {
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'x-user': 'ann', 'content-type': 'application/json' },
    body: JSON.stringify({ requests: owners.map((owner) => ({ owner })) }),
  });
  const text = await answer.text();
  return {
    status: answer.status,
    code: text === '' ? undefined : (JSON.parse(text) as { code: string }).code,
  };
}

/** For each partition: once the app took a write of it, none of an older epoch, and none by legacy, comes after. */
function judge(): string[] {
  const wrong: string[] = [];
  const last = new Map<string, { readonly store: StoreName; readonly epoch: number }>();
  for (const { store, partitions } of arrived) {
    for (const { partition, epoch } of partitions) {
      const before = last.get(partition);
      if (before !== undefined && epoch < before.epoch)
        wrong.push(`${partition}: epoch ${epoch} after ${before.epoch}`);
      if (before?.store === 'app' && store === 'legacy') wrong.push(`${partition}: in legacy after the app`);
      last.set(partition, { store, epoch });
    }
  }
  return wrong;
}

test('while pairs move under them, writes over both go to the one store that owns both, wait, or are refused', async () => {
  const urls = [await startProxy(), await startProxy()];
  // Each pair has been written together before, so that the plan knows.
  for (const pair of pairs) expect(await write(urls[0] ?? '', pair)).toMatchObject({ status: 200 });
  const desk = await rig.openDesk({ batch: 3, waves: ['25%', '100%'], attempts: 20 });
  const plan = await desk.plan({ cohort: 'early', to: 'app', by: 'ops' });
  expect('refused' in plan ? plan : plan.blocked).toEqual([]);
  const work = new AbortController();
  const answers: Answered[] = [];
  const user = async (at: number): Promise<void> => {
    for (let turn = at; !work.signal.aborted; turn += 1) {
      const [one, other] = pairs[turn % pairs.length] ?? ['', ''];
      const owners = turn % 4 === 0 ? [one] : turn % 2 === 0 ? [one, other] : [other, one];
      answers.push(await write(urls[turn % 2] ?? '', owners));
    }
  };
  const users = Array.from({ length: 6 }, (_, at) => user(at));
  await until('they are at work', () => answers.length > 30);
  const ended = await rig.ended(desk, (await rig.start(desk)).id);
  const before = answers.length;
  await until('they went on after it', () => answers.length > before + 60);
  work.abort();
  await Promise.all(users);
  expect(ended).toMatchObject({ state: 'completed', committed: names.length });
  expect(judge()).toEqual([]);
  // Nothing but what is promised was said: taken, refused because the pair was apart for a moment, or held too long.
  const said = new Set(answers.map(({ status, code }) => `${status} ${code ?? ''}`.trim()));
  for (const one of said) expect(['200', '409 cross-partition-write', '503 fenced']).toContain(one);
  // Each taken write arrived once, and every pair ended in the app.
  expect(arrived.length - pairs.length).toBe(answers.filter(({ status }) => status === 200).length);
  for (const pair of pairs) expect(await write(urls[1] ?? '', pair)).toMatchObject({ status: 200 });
  expect(arrived.slice(-pairs.length).every(({ store }) => store === 'app')).toBe(true);
}, 60_000);

test('a write that joins a partition of the cohort with one outside keeps it where it is, also in the middle of the flip', async () => {
  const url = await startProxy();
  const desk = await rig.openDesk({ batch: 1, waves: ['100%'] });
  const letGo = rig.holdAt('u00');
  const { id } = await rig.start(desk);
  await until('u00 is under way', async () => (await rig.ownerOf('u00')) === 'fenced legacy');
  // Nobody knew of this when the flip was planned.
  expect(await write(url, ['u05', 'elsewhere'])).toMatchObject({ status: 200 });
  letGo();
  const ended = await rig.ended(desk, id);
  expect(ended).toMatchObject({ state: 'failed', committed: 11, aborted: 1 });
  expect(ended.blocked).toMatchObject([{ partition: 'u05', code: 'cuts-link' }]);
  expect(await write(url, ['elsewhere', 'u05'])).toMatchObject({ status: 200 });
  expect(await write(url, ['u05', 'u06'])).toMatchObject({ status: 409, code: 'cross-partition-write' });
  const plan = await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' });
  expect(plan).toMatchObject({ flip: [], blocked: [{ partition: 'u05', code: 'cuts-link' }] });
  expect(await rig.ledger.links.forget(['elsewhere', 'u05'], 'ops', 'never again')).toMatchObject({
    result: 'forgotten',
  });
  expect(await rig.ended(desk, (await rig.start(desk)).id)).toMatchObject({
    state: 'completed',
    committed: 1,
  });
});
