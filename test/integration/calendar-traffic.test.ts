/** The example's users against a real platform and the new application, judged by the example's check. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { AcceptedWrite, Appointment } from '../../examples/calendar/appointment.ts';
import { checkJournal, parseJournal } from '../../examples/calendar/check.ts';
import { type PlatformOptions, startPlatform } from '../../examples/calendar/platform.ts';
import { runTraffic, type TrafficSummary } from '../../examples/calendar/traffic.ts';
import { loadConfig } from '../../src/config/load.ts';
import { until } from '../support/until.ts';

let directory: string;
let journal: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'onewriter-traffic-'));
  journal = join(directory, 'journal.ndjson');
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

async function evidenceOf(url: string) {
  const read = async (path: string): Promise<unknown> => (await fetch(`${url}${path}`)).json();
  return checkJournal({
    journal: parseJournal(await readFile(journal, 'utf8')),
    legacyDump: (await read('/_dump')) as Appointment[],
    legacyLog: (await read('/_log')) as AcceptedWrite[],
    appDump: [],
    appLog: [],
    ownership: {},
  });
}

async function runOn(
  options: Partial<PlatformOptions>,
  urls: (platform: string) => string[],
  writes: number,
): Promise<{ summary: TrafficSummary; evidence: Awaited<ReturnType<typeof evidenceOf>> }> {
  const platform = await startPlatform(options);
  const stop = new AbortController();
  try {
    const running = runTraffic({
      ...{ proxies: urls(platform.url), users: 10, rate: 500, seed: 3, journal, seconds: 0 },
      signal: stop.signal,
    });
    await until('enough writes', async () => {
      const log = (await (await fetch(`${platform.url}/_log`)).json()) as unknown[];
      return log.length >= writes;
    });
    stop.abort();
    const summary = await running;
    return { summary, evidence: await evidenceOf(platform.url) };
  } finally {
    stop.abort();
    await platform.close();
  }
}

test('the users’ journal agrees with the platform, and nothing overlaps', async () => {
  const { summary, evidence } = await runOn({}, (url) => [url], 300);
  expect(evidence.findings).toEqual([]);
  expect(evidence.acknowledgedWrites).toBe(summary.acknowledgedWrites);
  expect(summary).toMatchObject({ failed: 0, unknown: 0 });
});

test('errors of the platform are in doubt for the users, and break nothing', async () => {
  const { summary, evidence } = await runOn({ errorRate: 0.2 }, (url) => [url, url], 200);
  expect(evidence.findings).toEqual([]);
  expect(summary.byCode['overloaded']).toBeGreaterThan(0);
});

test('users whose proxy is gone go on through the other', async () => {
  const probe = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => probe.once('listening', resolve));
  const address = probe.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  await new Promise((resolve) => probe.close(resolve));
  const gone = `http://127.0.0.1:${address.port}`;
  const { summary, evidence } = await runOn({}, (url) => [gone, url], 200);
  expect(evidence.findings).toEqual([]);
  expect(summary.byCode['connection-refused']).toBeGreaterThan(0);
  expect(evidence.brokenConnections).toBe(summary.byCode['connection-refused']);
});

test('as a process it ends at SIGTERM, with a complete journal and a summary', async () => {
  const platform = await startPlatform();
  const child = spawn(
    process.execPath,
    // prettier-ignore
    ['examples/calendar/traffic.ts', '--proxy', platform.url, '--users', '5', '--rate', '200', '--journal', journal],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  try {
    let out = '';
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
    const ended = new Promise((resolve) => child.once('close', resolve));
    await until('some writes', async () => {
      const log = (await (await fetch(`${platform.url}/_log`)).json()) as unknown[];
      return log.length >= 20;
    });
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
    const summary = JSON.parse(out) as TrafficSummary;
    const evidence = await evidenceOf(platform.url);
    expect(evidence.findings).toEqual([]);
    expect(evidence.acknowledgedWrites).toBe(summary.acknowledgedWrites);
  } finally {
    child.kill('SIGKILL');
    await platform.close();
  }
});

test('the example’s configuration loads without a warning', () => {
  const env = { ONEWRITER_SECRET: 'the secret of the example', OPS_TOKEN: 'operators-token' };
  const loaded = loadConfig({ path: 'examples/calendar/onewriter.yaml', env });
  expect(loaded).toMatchObject({ ok: true, warnings: [] });
});
