/**
 * The store's answer to a keyed write on its way to the client: a bounded copy of it, and the decision what
 * a repetition of the write will get.
 *
 * - Every complete answer is kept and given again, an error like a success: also a 500 says what became of
 *   the first write, and sending the write once more could change that. 202 is an answer like any other.
 * - A gateway that lost the store (502, 504, 520 to 527) knows nothing: in doubt.
 * - Some answers say that nothing was done, so they free the key: 401, 408, 421, 425 and 429 by their
 *   definition (RFC 9110, 15.5; RFC 8470, 5.2; RFC 6585, 4), 503 where Retry-After asks for the same request
 *   again (a bare 503 can come from a gateway that had sent it already, so it is kept), and a refusal of the
 *   guard, whose transaction ended with it.
 */
import type { KeyEnding } from '../core/idempotency.ts';
import type { ByteBudget } from './byte-budget.ts';
import { responseHeaders } from './headers.ts';
import { outcomeUnknownAt } from './trouble.ts';

export const keptBodyBytesMax = 65_536;

/** Belong to the connection or the moment of the first answer; a cookie is a secret besides. */
const notKept = new Set(['content-length', 'trailer', 'date', 'age', 'set-cookie', 'idempotency-replayed']);
const nothingDone = new Set([401, 408, 421, 425, 429]);
const guardRefusals = new Set(
  [
    ...['stale-epoch', 'closed-epoch', 'legacy-owns'],
    ...['unsigned', 'bad-signature', 'expired', 'several-partitions'],
  ].map((code) => `urn:onewriter:problem:${code}`),
);

export class AnswerCopy {
  readonly #budget: ByteBudget;
  readonly #guarded: boolean;
  #status = 0;
  #headers: string[] = [];
  #retryAfter = false;
  #problem = false;
  /** Bytes until the client takes the answer for complete; undefined where its end says so. */
  #bytesLeft: number | undefined;
  #chunks: Buffer[] | undefined = [];
  #keptBytes = 0;

  /** `guarded`: the store has a guard, so a refusal in the guard's words is the guard's. */
  constructor(budget: ByteBudget, guarded: boolean) {
    this.#budget = budget;
    this.#guarded = guarded;
  }

  head(status: number, rawHeaders: readonly string[], headRequest: boolean): void {
    this.#status = status;
    const headers = responseHeaders(rawHeaders);
    for (let at = 0; at < headers.length; at += 2) {
      const [name = '', value = ''] = headers.slice(at, at + 2);
      const lower = name.toLowerCase();
      if (lower === 'retry-after') this.#retryAfter = true;
      if (lower === 'content-length') this.#bytesLeft = Number(value);
      if (lower === 'content-type') this.#problem = value.startsWith('application/problem+json');
      if (!notKept.has(lower)) this.#headers.push(name, value);
    }
    if (headRequest || status === 204 || status === 304) this.#bytesLeft = 0;
  }

  data(chunk: Buffer): void {
    if (this.#bytesLeft !== undefined) this.#bytesLeft -= chunk.byteLength;
    if (this.#chunks === undefined) return;
    const fits = this.#keptBytes + chunk.byteLength <= keptBodyBytesMax;
    if (!fits || !this.#budget.take(chunk.byteLength)) {
      this.drop();
      return;
    }
    this.#keptBytes += chunk.byteLength;
    this.#chunks.push(chunk);
  }

  /** Passed on so far, it would look complete to the client. */
  get looksComplete(): boolean {
    return this.#bytesLeft !== undefined && this.#bytesLeft <= 0;
  }

  /** Of a complete answer. */
  ending(): KeyEnding {
    const status = this.#status;
    if (outcomeUnknownAt(status)) return { ending: 'in-doubt' };
    if (nothingDone.has(status) || (status === 503 && this.#retryAfter)) return { ending: 'not-done' };
    if (this.#chunks === undefined) return { ending: 'not-kept', status };
    const body = Buffer.concat(this.#chunks);
    if (this.#guarded && this.#problem && isGuardRefusal(body)) return { ending: 'not-done' };
    return { ending: 'answered', answer: { status, headers: this.#headers, body } };
  }

  /** The copy is not needed any more. */
  drop(): void {
    this.#chunks = undefined;
    this.#budget.give(this.#keptBytes);
    this.#keptBytes = 0;
  }
}

function isGuardRefusal(body: Buffer): boolean {
  try {
    const problem: unknown = JSON.parse(body.toString('utf8'));
    const type = typeof problem === 'object' && problem !== null && 'type' in problem && problem.type;
    return typeof type === 'string' && guardRefusals.has(type);
  } catch {
    // Not JSON after all: then it is the app's own answer.
    return false;
  }
}
