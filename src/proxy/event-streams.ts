/**
 * Event streams are reads that never end by themselves. One whose partition has moved away would go on showing what
 * nobody changes any more, so it is ended then, when other rules apply, and when the proxy ends: clients connect again
 * by themselves (HTML, 9.2: a stream that ends is connected to anew).
 */
import type { WriteGate } from '../core/ports.ts';
import type { Passage } from './admit.ts';

type Gate = Pick<WriteGate, 'onWake' | 'ownershipOf'>;

/** Those that were begun under the same rules. */
export class EventStreams {
  readonly #open = new Set<() => void>();
  #closed = false;

  /** `end` is called at most once; at once where all were ended already. Returns the way out. */
  watch(gate: Gate, { partition, also = [], store }: Passage, end: () => void): () => void {
    const touched = partition === undefined ? [] : [partition, ...also.map((other) => other.partition)];
    const stops = touched.map((name) =>
      gate.onWake(name, () => {
        if (gate.ownershipOf(name).owner !== store) endNow();
      }),
    );
    const leave = (): void => {
      this.#open.delete(endNow);
      for (const stop of stops) stop();
    };
    const endNow = (): void => {
      leave();
      end();
    };
    this.#open.add(endNow);
    if (this.#closed) endNow();
    return leave;
  }

  /** Also those that begin later: their request was on its way already. */
  endAll(): void {
    this.#closed = true;
    for (const end of this.#open) end();
  }
}

/** Of an answer's head, flat. */
export function isEventStream(headers: readonly string[]): boolean {
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] ?? '';
    if (name.length !== 12 || name.toLowerCase() !== 'content-type') continue;
    return /^text\/event-stream\s*(?:;|$)/i.test((headers[at + 1] ?? '').trim());
  }
  return false;
}
