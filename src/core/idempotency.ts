/** Idempotency keys: what the proxy asks of whoever keeps them, and what it is told. */
import type { StoreName } from './ownership.ts';

/** One attempt at a write that its client named by a key. Nothing in it is a credential. */
export interface KeyedAttempt {
  readonly partition: string;
  /** Digest of who sent it: a key means something only to who chose it. */
  readonly credential: string;
  readonly key: string;
  /** Digest of the write: the same key with another one is a mistake of the client. */
  readonly fingerprint: string;
  /** Random; only this attempt may say how it ended. */
  readonly attempt: string;
  readonly method: string;
  /** Of the admission under which it is sent. */
  readonly owner: StoreName;
  readonly epoch: number;
  /** A claim that heard no ending for this long is in doubt: its process died. */
  readonly doubtAfterMs: number;
}

/** An answer as it is given again: without fields that belonged to its connection or its moment. */
export interface KeptAnswer {
  readonly status: number;
  /** Flat. */
  readonly headers: readonly string[];
  readonly body: Uint8Array;
}

/** Where the first write with a key went, and when. */
export interface FirstWrite {
  readonly owner: StoreName;
  readonly epoch: number;
  /** Redis clock. */
  readonly atMs: number;
}

export type KeyVerdict =
  /** The key was free: this attempt holds it now and must end it. */
  | { readonly verdict: 'claimed' }
  | { readonly verdict: 'answered'; readonly first: FirstWrite; readonly answer: KeptAnswer }
  | { readonly verdict: 'not-kept'; readonly first: FirstWrite; readonly status: number }
  | { readonly verdict: 'pending' | 'in-doubt'; readonly first: FirstWrite }
  | { readonly verdict: 'reused' }
  /** Redis is away, and was not asked. */
  | { readonly verdict: 'unavailable' }
  | { readonly verdict: 'too-many-keys'; readonly retryAfterMs: number };

export type KeyEnding =
  | { readonly ending: 'answered'; readonly answer: KeptAnswer }
  /** Answered, but the answer is too large to keep. */
  | { readonly ending: 'not-kept'; readonly status: number }
  | { readonly ending: 'in-doubt' }
  /** Nothing was changed: the key is free again. */
  | { readonly ending: 'not-done' };

export interface ResolvedKey extends FirstWrite {
  readonly key: string;
  readonly method: string;
  readonly member: string;
}

/** Throws where Redis did not answer; then nobody knows whether the call took effect. */
export interface IdempotencyKeys {
  claim(attempt: KeyedAttempt): Promise<KeyVerdict>;
  /** Takes effect once, for the attempt that holds the key; later calls and others change nothing. */
  end(attempt: KeyedAttempt, ending: KeyEnding): Promise<void>;
  /** An operator has looked into the writes in doubt of the partition: their keys are free again. */
  resolve(partition: string): Promise<ResolvedKey[]>;
}
