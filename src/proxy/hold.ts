/**
 * Held writes: requests that wait, bodies unread, until their partitions are open again. Bounded per
 * partition, in total and in time; who waits counts nowhere else, and who goes away is forgotten at once.
 */
import type { WriteGate } from '../core/ports.ts';

export interface HoldBounds {
  readonly perPartition: number;
  readonly total: number;
  readonly holdMs: number;
}

export interface Waiting {
  /** Any of them may be what it waits for: it looks again when one of them changes. */
  readonly partitions: readonly string[];
  /** When it began to wait, monotonic ms; a request that is held again does not begin anew. */
  readonly sinceMs?: number;
  /** Decides anew. True: decided, one way or the other; false: it must go on waiting. */
  look(): boolean;
  /** The time is over: it must decide now. */
  expire(): void;
}

interface Queue {
  readonly waiting: Set<Waiting>;
  readonly stopListening: () => void;
}

export class Holds {
  readonly #gate: Pick<WriteGate, 'onWake'>;
  readonly #bounds: HoldBounds;
  readonly #queues = new Map<string, Queue>();
  readonly #timers = new Map<Waiting, NodeJS.Timeout>();
  #closed = false;

  constructor(gate: Pick<WriteGate, 'onWake'>, bounds: HoldBounds) {
    this.#gate = gate;
    this.#bounds = bounds;
  }

  /** Nothing is held any more. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Requests that wait at the moment. */
  get size(): number {
    return this.#timers.size;
  }

  /** False where a bound is reached; then nothing is held. */
  hold(waiting: Waiting): boolean {
    if (this.#closed || this.#timers.size >= this.#bounds.total) return false;
    const full = (partition: string): boolean =>
      (this.#queues.get(partition)?.waiting.size ?? 0) >= this.#bounds.perPartition;
    if (waiting.partitions.some(full)) return false;
    for (const partition of waiting.partitions) this.#queueOf(partition).waiting.add(waiting);
    const expire = (): void => {
      if (this.release(waiting)) waiting.expire();
    };
    const waitedMs = waiting.sinceMs === undefined ? 0 : performance.now() - waiting.sinceMs;
    this.#timers.set(waiting, setTimeout(expire, Math.max(0, this.#bounds.holdMs - waitedMs)));
    return true;
  }

  /** Forgets the request; false where it was not waiting any more. */
  release(waiting: Waiting): boolean {
    const timer = this.#timers.get(waiting);
    if (timer === undefined) return false;
    clearTimeout(timer);
    this.#timers.delete(waiting);
    for (const partition of waiting.partitions) {
      const queue = this.#queues.get(partition);
      queue?.waiting.delete(waiting);
      if (queue?.waiting.size !== 0) continue;
      this.#queues.delete(partition);
      queue.stopListening();
    }
    return true;
  }

  /** Every request looks again, whatever it waits for. */
  lookAll(): void {
    for (const waiting of [...this.#timers.keys()]) {
      if (this.#timers.has(waiting) && waiting.look()) this.release(waiting);
    }
  }

  /** Every request must decide now, and none waits any more, because the proxy ends. */
  close(): void {
    this.#closed = true;
    for (const waiting of [...this.#timers.keys()]) {
      if (this.release(waiting)) waiting.expire();
    }
  }

  #queueOf(partition: string): Queue {
    const known = this.#queues.get(partition);
    if (known !== undefined) return known;
    const queue: Queue = {
      waiting: new Set(),
      stopListening: this.#gate.onWake(partition, () => this.#wake(partition)),
    };
    this.#queues.set(partition, queue);
    return queue;
  }

  /** In the order of arrival. */
  #wake(partition: string): void {
    for (const waiting of [...(this.#queues.get(partition)?.waiting ?? [])]) {
      if (this.#timers.has(waiting) && waiting.look()) this.release(waiting);
    }
  }
}
