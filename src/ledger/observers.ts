/**
 * Proxies that only observe, as the ledger lists them: they are no members and admit nothing, but everything that
 * they pass on goes to the default store. While one is listed nothing moves; an entry never expires, since its
 * process goes on without the ledger.
 */
import { hostname } from 'node:os';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { StoreName } from '../core/ownership.ts';
import type { ObserverRecord } from '../core/ports.ts';
import { keys, luaSource } from './connection.ts';
import type { DurableWrites } from './durable-writes.ts';

const observerSchema = z.object({
  id: z.string(),
  host: z.string(),
  pid: z.int(),
  settleMs: z.number(),
  seenAtMs: z.number(),
});

export type ObserverAnswer =
  | { readonly answer: 'listed'; readonly version: string }
  /** This partition does not live at the default store, or is on its way. */
  | { readonly answer: 'moved'; readonly partition: string }
  | { readonly answer: 'ledger-regressed'; readonly detail: string };

export class RedisObservers {
  readonly #redis: Redis;
  readonly #writes: DurableWrites;

  constructor(redis: Redis, writes: DurableWrites) {
    this.#redis = redis;
    this.#writes = writes;
    writes.define('onewriterObserve', { numberOfKeys: 3, lua: luaSource('observe') });
    writes.define('onewriterObserveEnd', { numberOfKeys: 2, lua: luaSource('observe-end') });
  }

  /** `version`: of the ledger, as the answer before said it; undefined where there was none. */
  async renew(
    id: string,
    settleMs: number,
    defaultOwner: StoreName,
    version: string | undefined,
  ): Promise<ObserverAnswer> {
    const record = { id, host: hostname(), pid: process.pid, settleMs };
    const [answer, detail] = await this.#writes.sendSurely<[ObserverAnswer['answer'], string]>((pipeline) =>
      pipeline.onewriterObserve(
        ...[keys.observers, keys.partitions, keys.meta, id, JSON.stringify(record)],
        ...[defaultOwner, version ?? ''],
      ),
    );
    switch (answer) {
      case 'listed':
        return { answer, version: detail };
      case 'moved':
        return { answer, partition: detail };
      case 'ledger-regressed':
        return { answer, detail };
    }
  }

  async list(): Promise<ObserverRecord[]> {
    const all = await this.#redis.hvals(keys.observers);
    return all.map((text) => observerSchema.parse(JSON.parse(text)));
  }

  /** With `seenAtMs` only if it was not seen since. */
  async end(id: string, seenAtMs?: number): Promise<boolean> {
    const ended = await this.#writes.sendSurely<number>((pipeline) =>
      pipeline.onewriterObserveEnd(keys.observers, keys.meta, id, seenAtMs ?? ''),
    );
    return ended === 1;
  }
}

declare module 'ioredis' {
  interface ChainableCommander {
    onewriterObserve(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterObserveEnd(...keysAndArguments: (string | number)[]): ChainableCommander;
  }
}
