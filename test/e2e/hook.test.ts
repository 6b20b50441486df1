/** A hook in the running program: a module of TypeScript beside the configuration, and what doctor says of it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type CliProcess, runCli, startCli } from '../support/cli.ts';
import { exchange, RawUpstream } from '../support/raw-http.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let directory: string;
let redis: TestRedis;
let store: RawUpstream;
let running: CliProcess | undefined;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'onewriter-hook-'));
  redis = await startRedis();
  store = await RawUpstream.start();
}, 60_000);
afterEach(async () => {
  running?.child.kill('SIGTERM');
  await running?.ended;
  running = undefined;
  await store.stop();
  await redis.stop();
  rmSync(directory, { recursive: true });
}, 60_000);

function configure(module: string): string {
  const file = join(directory, 'onewriter.json');
  const hook = { file: join(directory, 'shape.ts') };
  writeFileSync(hook.file, module);
  const whole = {
    proxy: { port: 0 },
    redis: { url: redis.url },
    dataDir: join(directory, 'data'),
    secret: 'a-secret-of-the-hook-tests',
    stores: {
      legacy: { url: store.url, hook },
      app: { url: 'http://127.0.0.1:1', guard: false, settleMs: 1 },
    },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
  };
  writeFileSync(file, JSON.stringify(whole));
  return file;
}

test('a module in TypeScript shapes what the store gets', async () => {
  const module = `
    interface Asked { readonly target: string; readonly user?: string }
    export const hook = { request: ({ target, user }: Asked) => ({ target: \`/of/\${user}\${target}\` }) };`;
  const proxy = startCli(['proxy', '--config', configure(module)]);
  running = proxy;
  const port = await until('it listens', () => /proxy +http:\S+:(\d+)/.exec(proxy.stdout())?.[1], 20_000);
  await exchange(Number(port), 'PUT /a HTTP/1.1\r\nHost: a\r\nx-user: ann\r\nContent-Length: 1\r\n\r\nb');
  expect(store.requests.map(({ startLine }) => startLine)).toEqual(['PUT /of/ann/a HTTP/1.1']);
}, 60_000);

test('what it throws is found by file, line and request', async () => {
  const module = `export const hook = {
    request: () => {
      throw new Error('nobody expected this');
    },
  };`;
  const proxy = startCli(['proxy', '--config', configure(module)]);
  running = proxy;
  let stderr = '';
  proxy.child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const port = await until('it listens', () => /proxy +http:\S+:(\d+)/.exec(proxy.stdout())?.[1], 20_000);
  await exchange(Number(port), 'PUT /a HTTP/1.1\r\nHost: a\r\nx-user: ann\r\nContent-Length: 1\r\n\r\nb');
  const line = await until('it is in the log', () => /^.*"hook\.failed".*$/m.exec(stderr)?.[0]);
  expect(JSON.parse(line)).toMatchObject({
    ...{ store: 'legacy', part: 'request', method: 'PUT', partition: 'ann' },
    at: `${join(directory, 'shape.ts')}:3:13`,
  });
}, 60_000);

test('one that cannot be used stops the start before anything listens, and doctor says the same', async () => {
  const config = configure('export const hook = { asked: () => ({}) };');
  const started = await runCli(['proxy', '--config', config]);
  expect(started.exit).not.toBe(0);
  expect(started.stderr).toMatch(/stores\.legacy\.hook\.file: .*shape\.ts cannot be used: .* no part asked/);
  const { stdout } = await runCli(['doctor', '--config', config]);
  expect(stdout).toMatch(/stores\.legacy\.hook.*no part asked/);
}, 60_000);
