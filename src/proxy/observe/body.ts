/**
 * A look at a body that passes by: what of it has come is kept for a moment, within bounds, and nobody waits for
 * the rest but who wants to know.
 */
import type { IncomingMessage } from 'node:http';
import type { Failure, FailureCode } from '../../core/failure.ts';
import type { ByteBudget } from '../byte-budget.ts';
import type { BodySource } from '../credential.ts';
import { opensJson } from '../json-text.ts';
import { bodyKindOf } from '../upload.ts';

export interface SeenBodyLimits {
  readonly budget: ByteBudget;
  /** Longest body that anybody looks into. */
  readonly bytesMax: number;
  /** What enforcing gives a body to arrive, ms. */
  readonly withinMs: number;
}

const beginningBytesMax = 4_096;

export class PassingBody implements BodySource {
  readonly #limits: SeenBodyLimits;
  readonly #sinceMs = performance.now();
  #chunks: Buffer[] = [];
  #beginning = Buffer.alloc(0);
  #bytes = 0;
  #taken = 0;
  #noRoom = false;
  #tookMs = 0;
  readonly #end: Promise<'whole' | 'broken-off'>;
  #settle: (how: 'whole' | 'broken-off') => void = () => {};

  constructor(request: IncomingMessage, limits: SeenBodyLimits) {
    this.#limits = limits;
    this.#end = new Promise((resolve) => {
      this.#settle = resolve;
    });
    if (bodyKindOf(request) === 'none') this.#settle('whole');
  }

  /** A part of it, as it passes. */
  take(chunk: Buffer): void {
    this.#bytes += chunk.byteLength;
    if (opensJson(this.#beginning) === undefined && this.#beginning.byteLength < beginningBytesMax) {
      this.#beginning = Buffer.concat([this.#beginning, chunk.subarray(0, beginningBytesMax)]);
    }
    if (this.#noRoom || this.#bytes > this.#limits.bytesMax) {
      this.#give();
    } else if (this.#limits.budget.take(chunk.byteLength)) {
      this.#taken += chunk.byteLength;
      this.#chunks.push(chunk);
    } else {
      this.#noRoom = true;
      this.#give();
    }
  }

  ended(how: 'whole' | 'broken-off'): void {
    this.#tookMs = performance.now() - this.#sinceMs;
    this.#settle(how);
  }

  /** The body, or the code with which enforcing would have refused it. */
  async read(bytesMax: number): Promise<Buffer | Failure> {
    const how = await this.#end;
    if (this.#bytes > bytesMax) return failure('body-too-large');
    if (how === 'broken-off' || this.#tookMs > this.#limits.withinMs) return failure('request-timeout');
    return this.#noRoom ? failure('body-unavailable') : Buffer.concat(this.#chunks);
  }

  async beginning(): Promise<Buffer | Failure> {
    const how = await this.#end;
    return how === 'broken-off' ? failure('request-timeout') : this.#beginning;
  }

  /** Nobody looks any more. */
  forget(): void {
    this.#give();
    this.#settle('broken-off');
  }

  #give(): void {
    this.#limits.budget.give(this.#taken);
    this.#taken = 0;
    this.#chunks = [];
  }
}

/** Nobody is sent it. */
function failure(code: FailureCode): Failure {
  return { code, detail: '' };
}
