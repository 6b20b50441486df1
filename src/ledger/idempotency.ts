/**
 * Idempotency keys in Redis: one record for each key of each partition and credential, whichever store the
 * write went to, so that it outlives a handoff. Everything expires `keepMs` after it was last written.
 *
 *   free ─claim▶ pending ─┬─ answered ▶ answered, or not-kept (only its status)
 *    ▲                    ├─ outcome unknown, or no word within doubtAfterMs ▶ in-doubt ─ resolve ─┐
 *    └──── not-done ──────┘◀──────────────────────────────────────────────────────────────────────┘
 */
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { inBatches } from '../batches.ts';
import type {
  FirstWrite,
  IdempotencyKeys,
  KeptAnswer,
  KeyedAttempt,
  KeyEnding,
  KeyVerdict,
  ResolvedKey,
} from '../core/idempotency.ts';
import { keys, luaSource, repliesOf } from './connection.ts';

export interface IdempotencySettings {
  readonly keepMs: number;
  readonly keysPerPartition: number;
  /** Of all answers that a partition keeps at one time, as they are stored. */
  readonly answerBytesPerPartition: number;
  /** As for the ledger: a claim that a failover could lose is no claim. */
  readonly minReplicas: number;
  /** Named in every record, for who looks into one. */
  readonly member: () => string;
}

const replicaWaitMs = 500;
const resolvedAtOnce = 200;

const text = z.string();
const whole = z.string().regex(/^\d+$/).transform(Number);
const first = [z.enum(['legacy', 'app']), whole, whole] as const;
const repliesSchema = z.union([
  z.tuple([z.enum(['claimed', 'reused'])]),
  z.tuple([z.literal('too-many-keys'), whole]),
  z.tuple([z.enum(['pending', 'in-doubt', 'not-kept', 'answered']), ...first, text, text]),
]);
const resolvedSchema = z.tuple([...first, text, text, text]);
const answerSchema = z.object({ status: z.int(), headers: z.array(z.string()), body: z.base64() });

/** On a connection of its own: an answer on its way must not delay a heartbeat, nor WAIT a transition. */
export class RedisIdempotencyKeys implements IdempotencyKeys {
  readonly #redis: Redis;
  readonly #settings: IdempotencySettings;

  constructor(redis: Redis, settings: IdempotencySettings) {
    this.#redis = redis;
    this.#settings = settings;
    redis.defineCommand('onewriterKeyClaim', { numberOfKeys: 2, lua: luaSource('key-claim') });
    redis.defineCommand('onewriterKeyEnd', { numberOfKeys: 3, lua: luaSource('key-end') });
    redis.defineCommand('onewriterKeyResolve', { numberOfKeys: 2, lua: luaSource('key-resolve') });
  }

  async claim(attempt: KeyedAttempt): Promise<KeyVerdict> {
    if (this.#redis.status !== 'ready') return { verdict: 'unavailable' };
    const { keepMs, keysPerPartition, minReplicas, member } = this.#settings;
    const { record, name, inUse } = placesOf(attempt);
    const pipeline = this.#redis
      .pipeline()
      .onewriterKeyClaim(
        ...[record, inUse, name, attempt.fingerprint, attempt.attempt, attempt.owner, attempt.epoch],
        ...[attempt.key, attempt.method, member(), attempt.doubtAfterMs, keepMs, keysPerPartition],
      );
    if (minReplicas > 0) pipeline.wait(minReplicas, replicaWaitMs);
    const [reply, confirmed] = await repliesOf(pipeline);
    const verdict = verdictOf(reply);
    if (verdict.verdict === 'claimed' && minReplicas > 0 && Number(confirmed) < minReplicas) {
      throw new Error(`fewer than ${minReplicas} replicas confirmed the claim within ${replicaWaitMs} ms`);
    }
    return verdict;
  }

  async end(attempt: KeyedAttempt, ending: KeyEnding): Promise<void> {
    const { keepMs, answerBytesPerPartition } = this.#settings;
    const { record, name, inUse, bytes } = placesOf(attempt);
    const [status, answer] = storedForm(ending);
    const { ending: how } = ending;
    await repliesOf(
      this.#redis
        .pipeline()
        .onewriterKeyEnd(
          ...[record, inUse, bytes, name, attempt.attempt, how, status, answer],
          ...[keepMs, answerBytesPerPartition],
        ),
    );
  }

  async resolve(partition: string): Promise<ResolvedKey[]> {
    const inUse = inUseOf(partition);
    const names = await this.#redis.zrange(inUse, 0, -1);
    const resolved: ResolvedKey[] = [];
    for (const some of inBatches(names, resolvedAtOnce)) {
      const pipeline = this.#redis.pipeline();
      for (const name of some) pipeline.onewriterKeyResolve(recordOf(name), inUse, name);
      for (const reply of await repliesOf(pipeline)) {
        if (!Array.isArray(reply) || reply.length === 0) continue;
        const [owner, epoch, atMs, key, method, member] = resolvedSchema.parse(reply);
        resolved.push({ owner, epoch, atMs, key, method, member });
      }
    }
    return resolved;
  }
}

/** Keys of the partition that are in use. */
export function countKeys(redis: Redis, partition: string): Promise<number> {
  return redis.zcard(inUseOf(partition));
}

/** All of them, with the answers that are kept: a repeated write counts as a new one. */
export async function forgetKeys(redis: Redis, partition: string): Promise<void> {
  const names = await redis.zrange(inUseOf(partition), 0, -1);
  for (const some of inBatches(names, resolvedAtOnce)) await redis.del(...some.map(recordOf));
  await redis.del(inUseOf(partition), bytesOf(partition));
}

interface Places {
  readonly name: string;
  readonly record: string;
  readonly inUse: string;
  readonly bytes: string;
}

function placesOf({ partition, credential, key }: KeyedAttempt): Places {
  // Lengths, so that no two scopes run together into one text.
  const scope = [partition, credential, key].map((part) => `${part.length}:${part}`).join('');
  const name = createHash('sha256').update(scope).digest('base64url');
  return { name, record: recordOf(name), inUse: inUseOf(partition), bytes: bytesOf(partition) };
}

function recordOf(name: string): string {
  return `${keys.idempotency}:record:${name}`;
}

function inUseOf(partition: string): string {
  return `${keys.idempotency}:in-use:${partition}`;
}

function bytesOf(partition: string): string {
  return `${keys.idempotency}:bytes:${partition}`;
}

function verdictOf(reply: unknown): KeyVerdict {
  const parsed = repliesSchema.parse(reply);
  switch (parsed[0]) {
    case 'claimed':
    case 'reused':
      return { verdict: parsed[0] };
    case 'too-many-keys':
      return { verdict: parsed[0], retryAfterMs: parsed[1] };
    case 'pending':
    case 'in-doubt':
    case 'not-kept':
    case 'answered': {
      const [verdict, owner, epoch, atMs, status, answer] = parsed;
      const first: FirstWrite = { owner, epoch, atMs };
      if (verdict === 'answered') return { verdict, first, answer: parseAnswer(answer) };
      if (verdict === 'not-kept') return { verdict, first, status: Number(status) };
      return { verdict, first };
    }
  }
}

function storedForm(ending: KeyEnding): [status: number | '', answer: string] {
  switch (ending.ending) {
    case 'answered': {
      const { status, headers, body } = ending.answer;
      return [status, JSON.stringify({ status, headers, body: Buffer.from(body).toString('base64') })];
    }
    case 'not-kept':
      return [ending.status, ''];
    case 'in-doubt':
    case 'not-done':
      return ['', ''];
  }
}

function parseAnswer(stored: string): KeptAnswer {
  const { status, headers, body } = answerSchema.parse(JSON.parse(stored));
  return { status, headers, body: Buffer.from(body, 'base64') };
}

declare module 'ioredis' {
  interface ChainableCommander {
    onewriterKeyClaim(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterKeyEnd(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterKeyResolve(...keysAndArguments: (string | number)[]): ChainableCommander;
  }
}
