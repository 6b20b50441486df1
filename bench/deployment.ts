/** onewriter as operators run it: a real Redis whose ledger holds as many partitions as asked, and proxy processes. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { connectRedis, keys, type RedisAddress } from '../src/ledger/connection.ts';
import { startEmbeddedRedis } from '../src/ledger/embedded.ts';
import { pause } from '../src/pause.ts';
import { type Child, startScript } from './child.ts';

export interface Deployment {
  readonly redis: RedisAddress;
  /** Starts a proxy process with these parts of a configuration, and waits until it is up and quiet. */
  startProxy(parts: Readonly<Record<string, unknown>>): Promise<Child & { readonly url: string }>;
  stop(): Promise<void>;
}

const atOnce = 10_000;
export const secret = 'a-secret-for-the-bench-of-32-bytes';

/** Partitions that the ledger lists, from `user-0` on; odd ones belong to legacy, after a move and one back. */
export function partitionName(number: number): string {
  return `user-${number}`;
}

export async function openDeployment(partitions: number): Promise<Deployment> {
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-bench-'));
  const redis = await startEmbeddedRedis(directory, process.env);
  const { redisPid } = JSON.parse(readFileSync(join(directory, 'redis.json'), 'utf8')) as {
    redisPid: number;
  };
  // It is made to outlive a process that dies; here nobody would come for it.
  const endRedis = (): void => void process.kill(redisPid, 'SIGKILL');
  process.once('exit', endRedis);
  const stops = [
    async () => {
      process.off('exit', endRedis);
      await redis.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  ];
  const stop = async (): Promise<void> => {
    for (const end of stops.splice(0).toReversed()) await end();
  };
  try {
    await fillLedger(redis.address, partitions);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    redis: redis.address,
    startProxy: async (parts) => {
      const dataDir = mkdtempSync(join(directory, 'proxy-'));
      const file = join(dataDir, 'config.json');
      const shared = { secret, proxy: { port: 0 }, dataDir: directory, redis: { url: 'embedded' } };
      writeFileSync(file, JSON.stringify({ ...shared, ...parts }));
      const main = '../src/cli/main.ts';
      const child = await startScript(main, ['proxy', '--config', file], /proxy\s+(http:\S+)/);
      stops.push(() => child.stop());
      if (partitions > 0) await untilViewIsKept(directory);
      return { ...child, url: child.said };
    },
    stop,
  };
}

/** As handoffs would have left it; the proxies load it like any other. */
async function fillLedger(address: RedisAddress, partitions: number): Promise<void> {
  if (partitions === 0) return;
  const redis = await connectRedis(address);
  for (let from = 0; from < partitions; from += atOnce) {
    const numbers = Array.from({ length: Math.min(atOnce, partitions - from) }, (_, at) => from + at);
    await redis.hset(
      keys.partitions,
      ...numbers.flatMap((number) => [partitionName(number), JSON.stringify(recordOf(number))]),
    );
  }
  await redis.hset(keys.meta, { version: 6 * partitions, id: randomUUID() });
  redis.disconnect();
}

export function recordOf(number: number): Record<string, unknown> {
  const moved = number % 2 === 0 ? { owner: 'app', epoch: 4 } : { owner: 'legacy', epoch: 7 };
  return {
    ...{ phase: 'open', ...moved },
    ...{ version: 6 * number + 6, transitionId: randomUUID(), changedAtMs: Date.now() },
  };
}

/** A proxy that has just started writes its view to disk once; that must not fall into a measurement. */
async function untilViewIsKept(dataDir: string): Promise<void> {
  const untilMs = performance.now() + 120_000;
  while (performance.now() < untilMs) {
    const names = readNames(resolve(dataDir, 'ledger-views'));
    const kept = names.some((name) => name.endsWith('.ndjson'));
    if (kept && !names.some((name) => name.endsWith('.part'))) return;
    await pause(50);
  }
  throw new Error('the proxy did not write its view to disk in time');
}

function readNames(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
