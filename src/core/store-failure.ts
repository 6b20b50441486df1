/** How calls to a store fail. */
import type { StoreName } from './ownership.ts';

/** Failures of a platform's API, told apart by what the caller should do. */
export type StoreFailureKind =
  'rate-limited' | 'denied' | 'unavailable' | 'bad-answer' | 'refused-by-guard' | 'rejected';

export class StoreFailure extends Error {
  readonly kind: StoreFailureKind;
  readonly retryAfterMs: number | undefined;
  /** Of the answer to a call that was rejected. */
  readonly status: number | undefined;
  /** A little of what the store said, as it said it: for operators only, because it can hold what users wrote. */
  readonly said: string | undefined;
  #store: StoreName | undefined;
  constructor(
    kind: StoreFailureKind,
    message: string,
    options: { cause?: unknown; retryAfterMs?: number; status?: number; said?: string | undefined } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = 'StoreFailure';
    this.kind = kind;
    this.retryAfterMs = options.retryAfterMs;
    this.status = options.status;
    this.said = options.said;
  }

  /** Undefined where it was no call to a store that failed. */
  get store(): StoreName | undefined {
    return this.#store;
  }

  /** Says which store it was that failed. */
  of(store: StoreName): this {
    this.#store = store;
    return this;
  }
}
