/**
 * Writes to Redis that say whether enough replicas have them. Where replicas must confirm, WAIT goes out behind
 * the writes, in one pipeline on one connection; it holds up everything behind it there, so that connection is
 * for nothing else, and what is asked for meanwhile goes out together, under one WAIT.
 */
import type { ChainableCommander, Redis } from 'ioredis';
import { onlyReplyOf, replyOf, type Result } from './connection.ts';

/** Appends exactly one command. */
export type Write = (pipeline: ChainableCommander) => ChainableCommander;

export interface Written<Reply> {
  readonly reply: Reply;
  /** As many replicas as must confirm it have confirmed it. */
  readonly durable: boolean;
}

interface Waiting {
  readonly write: Write;
  readonly resolve: (written: Written<unknown>) => void;
  readonly reject: (error: unknown) => void;
}

/** How long replicas may take; the writes stand either way. */
export const replicaWaitMs = 1_000;
const groupMax = 1_000;

export class DurableWrites {
  readonly minReplicas: number;
  readonly #redis: Redis;
  #waiting: Waiting[] = [];
  #sending = false;

  constructor(redis: Redis, minReplicas: number) {
    this.#redis = redis;
    this.minReplicas = minReplicas;
  }

  define(name: string, command: { readonly numberOfKeys: number; readonly lua: string }): void {
    this.#redis.defineCommand(name, command);
  }

  /** Throws where the command failed or its answer is missing; then nobody knows whether it took effect. */
  async send<Reply>(write: Write): Promise<Written<Reply>> {
    if (this.minReplicas === 0) {
      return { reply: (await onlyReplyOf(write(this.#redis.pipeline()))) as Reply, durable: true };
    }
    const written = await new Promise<Written<unknown>>((resolve, reject) => {
      this.#waiting.push({ write, resolve, reject });
      void this.#sendAll();
    });
    return written as Written<Reply>;
  }

  /** Like `send`, but a write that too few replicas confirmed counts as failed. */
  async sendSurely<Reply>(write: Write): Promise<Reply> {
    const { reply, durable } = await this.send<Reply>(write);
    if (durable) return reply;
    throw new Error(`fewer than ${this.minReplicas} replicas confirmed a write within ${replicaWaitMs} ms`);
  }

  async #sendAll(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    while (this.#waiting.length > 0) await this.#sendGroup(this.#waiting.splice(0, groupMax));
    this.#sending = false;
  }

  async #sendGroup(group: readonly Waiting[]): Promise<void> {
    let results: Result[];
    try {
      const pipeline = this.#redis.pipeline();
      for (const { write } of group) write(pipeline);
      pipeline.wait(this.minReplicas, replicaWaitMs);
      results = (await pipeline.exec()) ?? [];
    } catch (error) {
      for (const { reject } of group) reject(error);
      return;
    }
    const [waitFailed, confirmed] = results[group.length] ?? [new Error('WAIT was not answered')];
    const durable = waitFailed === null && Number(confirmed) >= this.minReplicas;
    for (const [at, { resolve, reject }] of group.entries()) {
      try {
        resolve({ reply: replyOf(results[at]), durable });
      } catch (error) {
        reject(error);
      }
    }
  }
}
