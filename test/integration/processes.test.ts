/** What the one that watches over the proxy processes does with their answers. */
import cluster from 'node:cluster';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { ProxyProcesses } from '../../src/processes/processes.ts';
import { loadedWith } from '../support/config.ts';
import { until } from '../support/until.ts';

let dataDir: string;
let processes: ProxyProcesses | undefined;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'onewriter-processes-'));
});
afterEach(async () => {
  await processes?.stop();
  rmSync(dataDir, { recursive: true });
}, 30_000);

test('one that did not come along to rules that are active is replaced by one that runs them', async () => {
  const logged: { readonly event: string; readonly url?: unknown }[] = [];
  const levels: string[] = [];
  const { config } = loadedWith({ dataDir, 'proxy.processes': 2 });
  const started = await ProxyProcesses.start({
    ...{ rules: { config, configHash: 'before' }, redis: { url: 'redis://127.0.0.1:1' } },
    program: pathToFileURL('test/support/stand-in-proxy.ts'),
    ...{ silentMs: 60_000, endWithinMs: 10_000 },
    log: (level, event, fields = {}) => {
      logged.push({ event, url: fields['url'] });
      levels.push(level);
    },
  });
  processes = started.processes;
  expect(started.url).toBe('before');
  expect(await processes.change({ config, configHash: 'after' })).toBe(true);
  await until('another is started', () => logged.some(({ event }) => event === 'process.started'), 20_000);
  expect(logged).toEqual([
    { event: 'process.left-behind' },
    { event: 'process.ended' },
    { event: 'process.started', url: 'after' },
  ]);
  // It was told to end, so its end is no error.
  expect(levels[1]).toBe('info');
}, 60_000);

test('nobody is started in the place of one that ends with the process that started it', async () => {
  const logged: string[] = [];
  const ending = new AbortController();
  const { config } = loadedWith({ dataDir, 'proxy.processes': 2 });
  ({ processes } = await ProxyProcesses.start({
    ...{ rules: { config, configHash: 'before' }, redis: { url: 'redis://127.0.0.1:1' } },
    program: pathToFileURL('test/support/stand-in-proxy.ts'),
    ...{ silentMs: 60_000, endWithinMs: 10_000, ending: ending.signal },
    log: (_level, event) => void logged.push(event),
  }));
  const [first, second] = Object.values(cluster.workers ?? {});
  if (first === undefined || second === undefined) throw new Error('two were to be started');
  first.process.kill('SIGKILL');
  await until('another is started', () => logged.includes('process.started'), 20_000);
  // A signal to all of them ends the processes while the other parts of the first still end in order.
  ending.abort();
  const ended = once(second, 'exit');
  second.process.kill('SIGKILL');
  await ended;
  await processes.stop();
  expect(logged).toEqual(['process.ended', 'process.started']);
}, 60_000);
