/**
 * Held writes: requests that wait, bodies unread, until their partition is open again. Bounded per
 * partition, in total and in time; who waits counts nowhere else, and who goes away is forgotten at once.
 */
import type { WriteGate } from '../core/ports.ts';

export interface HoldBounds {
  readonly perPartition: number;
  readonly total: number;
  readonly holdMs: number;
}

export interface Waiting {
  readonly partition: string;
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

  constructor(gate: Pick<WriteGate, 'onWake'>, bounds: HoldBounds) {
    this.#gate = gate;
    this.#bounds = bounds;
  }

  /** Requests that wait at the moment. */
  get size(): number {
    return this.#timers.size;
  }

  /** False where a bound is reached; then nothing is held. */
  hold(waiting: Waiting): boolean {
    if (this.#timers.size >= this.#bounds.total) return false;
    const queue = this.#queueOf(waiting.partition);
    if (queue.waiting.size >= this.#bounds.perPartition) return false;
    queue.waiting.add(waiting);
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
    const queue = this.#queues.get(waiting.partition);
    queue?.waiting.delete(waiting);
    if (queue?.waiting.size === 0) {
      this.#queues.delete(waiting.partition);
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

  /** Every request must decide now, because the proxy ends. */
  expireAll(): void {
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
