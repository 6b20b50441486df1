/**
 * The examples of docs/connectors-rest.md, as they stand there: platforms that onewriter knows by configuration alone
 * are left by their users while these write; nothing that was acknowledged is lost, and nothing comes back.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { Agent, request } from 'undici';
import type { Fields } from '../../src/core/records.ts';
import { stablePort } from '../faults/children.ts';
import { type CliProcess, type CliResult, runCli, startCli } from '../support/cli.ts';
import { pause } from '../../src/pause.ts';
import { yamlBelow } from '../support/document.ts';
import { AppointmentPlatform, type ExamplePlatform, TaskPlatform } from '../support/example-platforms.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const document = 'docs/connectors-rest.md';
const users = ['u1', 'u2', 'u3', 'u4'];
const token = 'operator-token-1';
const betweenMs = 20;
const ends: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

interface Deployment {
  readonly proxy: string;
  cli(...argv: string[]): Promise<CliResult>;
  log(): string;
}

async function deploy(heading: string, legacy: ExamplePlatform, app: ExamplePlatform): Promise<Deployment> {
  ends.push(
    () => legacy.http.stop(),
    () => app.http.stop(),
  );
  const server: TestRedis = await startRedis();
  ends.push(() => server.stop());
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-connector-'));
  ends.push(async () => rmSync(directory, { recursive: true }));
  const config = join(directory, 'onewriter.yaml');
  writeFileSync(config, yamlBelow(document, heading));
  const [proxyPort, adminPort] = [await stablePort(), await stablePort()];
  const env = {
    ...{ PROXY_PORT: String(proxyPort), ADMIN_PORT: String(adminPort), OPS_TOKEN: token },
    ...{ REDIS_URL: server.url, ONEWRITER_DATA_DIR: join(directory, 'data') },
    ...{ ONEWRITER_SECRET: 'a-secret-of-the-connector-tests' },
    ...{ LEGACY_URL: legacy.http.url, APP_URL: app.http.url },
    ...{ LEGACY_CLIENT_SECRET: 's3cret', LEGACY_KEY: 'legacy-key', APP_KEY: 'app-key' },
  };
  const up: CliProcess = startCli(['up', '--config', config], { env });
  let log = '';
  up.child.stderr?.on('data', (chunk: Buffer) => (log += chunk.toString()));
  let ended = false;
  void up.ended.then(() => (ended = true));
  ends.push(async () => {
    up.child.kill('SIGTERM');
    await up.ended;
  });
  await until(
    'it says where it listens',
    () => {
      if (ended) throw new Error(log);
      return /admin +http/.test(up.stdout());
    },
    60_000,
  );
  return {
    proxy: `http://127.0.0.1:${proxyPort}`,
    cli: (...argv) => runCli(['--config', config, '--token', token, ...argv], { env }),
    log: () => log,
  };
}

type Send = (
  user: string,
  call: Call,
  agent: Agent,
) => Promise<{ readonly ok: boolean; readonly id?: string }>;
type Call =
  | { readonly do: 'add'; readonly title: string }
  | { readonly do: 'set'; readonly id: string; readonly title: string }
  | { readonly do: 'delete'; readonly id: string };

/** Each user adds, changes and deletes, one write after the other, and notes what was acknowledged. */
class Traffic {
  /** The title that each record must have; undefined: it must be gone. */
  readonly expected = new Map<string, string | undefined>();
  readonly failures: unknown[] = [];
  acknowledged = 0;
  readonly #send: Send;
  readonly #ending = new AbortController();
  readonly #running: Promise<void>[];

  constructor(send: Send) {
    this.#send = send;
    this.#running = users.map((user) => this.#write(user));
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#running);
  }

  wrongIn(store: ExamplePlatform): unknown[] {
    return [...this.expected]
      .map(([id, wanted]) => ({ id, wanted, found: store.titleOf(id) }))
      .filter(({ wanted, found }) => wanted !== found);
  }

  async #write(user: string): Promise<void> {
    const agent = new Agent({ connections: 1, pipelining: 1 });
    const mine: string[] = [];
    for (let at = 0; !this.#ending.signal.aborted; at += 1) {
      // A platform that did nothing else would leave no time to anything else on this machine.
      await pause(betweenMs);
      const title = `${user} ${at}`;
      const id = mine[at % Math.max(1, mine.length)] ?? '';
      const call: Call =
        mine.length < 10
          ? { do: 'add', title }
          : at % 7 === 0
            ? { do: 'delete', id }
            : { do: 'set', id, title };
      const answer = await this.#send(user, call, agent);
      if (!answer.ok) {
        this.failures.push({ user, call, answer });
        continue;
      }
      this.acknowledged += 1;
      const changed = call.do === 'add' ? (answer.id ?? '') : id;
      if (call.do === 'add') mine.push(changed);
      if (call.do === 'delete') mine.splice(mine.indexOf(id), 1);
      this.expected.set(changed, call.do === 'delete' ? undefined : title);
    }
    await agent.close();
  }
}

async function exchange(
  url: string,
  method: string,
  user: string,
  body: unknown,
  agent: Agent,
): Promise<{ readonly status: number; readonly body: Fields }> {
  const answer = await request(url, {
    ...{ method: method as 'POST', dispatcher: agent },
    headers: { 'x-user': user, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.body.text();
  return { status: answer.statusCode, body: text.startsWith('{') ? (JSON.parse(text) as Fields) : {} };
}

async function flip(deployment: Deployment, cohort: string): Promise<void> {
  const done = await deployment.cli('flip', '--cohort', cohort, '--to', 'app', '--reason', 'test', '--yes');
  expect({ exit: done.exit, stderr: done.stderr, log: done.exit === 0 ? '' : deployment.log() }).toEqual({
    ...{ exit: 0, stderr: '', log: '' },
  });
}

/** Writes all the while; then the copies of those who stayed are compared, and everybody moves. */
async function migrate(deployment: Deployment, app: ExamplePlatform, send: Send): Promise<Traffic> {
  const traffic = new Traffic(send);
  ends.push(() => traffic.stop());
  await until('there is something to move', () => traffic.acknowledged > 200, 60_000);
  let plan = '';
  await until(
    'the plan is good',
    async () => {
      const planned = await deployment.cli('plan', '--cohort', 'pilot', '--to', 'app');
      plan = planned.stdout;
      return planned.exit === 2 && plan.includes('2 to flip, 0 blocked');
    },
    60_000,
  ).catch((error: unknown) => {
    throw new Error(`${plan}\n${deployment.log()}`, { cause: error });
  });
  await flip(deployment, 'pilot');
  const before = traffic.acknowledged;
  await until('they write on', () => traffic.acknowledged > before + 100, 60_000);
  // Those who stay are compared while they write; of those who have moved nothing is copied any more.
  const verified = await deployment.cli('verify', '--cohort', 'all');
  expect([verified.exit, verified.exit === 0 ? '' : verified.stdout]).toEqual([0, '']);
  await flip(deployment, 'all');
  const moved = traffic.acknowledged;
  await until('they write on in the app', () => traffic.acknowledged > moved + 100, 60_000);
  await traffic.stop();
  expect(traffic.failures).toEqual([]);
  expect(traffic.wrongIn(app)).toEqual([]);
  const there = [...traffic.expected].filter(([, title]) => title !== undefined);
  expect([...app.records.keys()].toSorted()).toEqual(there.map(([id]) => id).toSorted());
  return traffic;
}

test('a platform that assigns ids, deletes for good, and takes the right to write away', async () => {
  const legacy = await AppointmentPlatform.start({ firstId: 1_000 });
  const app = await AppointmentPlatform.start({ firstId: 900_000, isApp: true });
  const deployment = await deploy(
    'Example: ids that the platform assigns, hard deletes, OAuth2',
    legacy,
    app,
  );
  const url = `${deployment.proxy}/api/appointments`;
  const traffic = await migrate(deployment, app, async (user, call, agent) => {
    const partner = { u1: 'u2', u3: 'u4' }[user];
    const attendees = partner === undefined ? [] : [{ user: partner }];
    const body = call.do === 'delete' ? undefined : { title: call.title, attendees };
    const [method, target] =
      call.do === 'add' ? ['POST', url] : [call.do === 'set' ? 'PUT' : 'DELETE', `${url}/${call.id}`];
    const answer = await exchange(target ?? '', method ?? '', user, body, agent);
    const { id } = (answer.body['data'] ?? {}) as { id?: string };
    return { ok: answer.status >= 200 && answer.status < 300, ...(id === undefined ? {} : { id }) };
  });
  expect(legacy.roles).toEqual(new Map(users.map((user) => [user, 'viewer'])));
  // Every token lives for two seconds.
  expect(legacy.tokensGiven).toBeGreaterThan(1);
  expect(deployment.log()).not.toMatch(/s3cret|token-\d/);
  expect(traffic.acknowledged).toBeGreaterThan(400);
  const links = await deployment.cli('links', 'list');
  expect(links.stdout).toMatch(/u1.*u2/);
  expect(links.stdout).toMatch(/writers of appointment/);
}, 240_000);

test('a platform that takes nothing but POST, and answers nothing but 200', async () => {
  const legacy = await TaskPlatform.start({ firstId: 1_000 });
  const app = await TaskPlatform.start({ firstId: 900_000 });
  const deployment = await deploy(
    'Example: one address, POST for everything, 200 for everything',
    legacy,
    app,
  );
  await migrate(deployment, app, async (user, call, agent) => {
    const args = call.do === 'add' ? { title: call.title } : { ...call, id: Number(call.id), do: undefined };
    const body = { call: `task.${call.do}`, args };
    const answer = await exchange(`${deployment.proxy}/rpc`, 'POST', user, body, agent);
    const { id } = (answer.body['result'] ?? {}) as { id?: number };
    return { ok: answer.body['ok'] === true, ...(id === undefined ? {} : { id: String(id) }) };
  });
  expect(deployment.log()).not.toContain('legacy-key');
}, 240_000);
