/**
 * Bodies that must be read before their request is admitted, because they say who it is from. What is read
 * stays in memory until the request is over, also while it is held, so all of it together is bounded.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Failure } from '../core/failure.ts';
import { ByteBudget } from './byte-budget.ts';
import type { BodySource } from './credential.ts';
import { bodyKindOf, bodyWasRead, readBeginning } from './upload.ts';

export interface BodyLimits {
  /** Of all bodies together. */
  readonly bytesMax: number;
  /** For a body to arrive. */
  readonly timeoutMs: number;
}

export class Bodies {
  readonly #budget: ByteBudget;
  readonly #timeoutMs: number;

  constructor({ bytesMax, timeoutMs }: BodyLimits) {
    this.#budget = new ByteBudget(bytesMax);
    this.#timeoutMs = timeoutMs;
  }

  /** Bytes of unfinished requests that are kept now. */
  get kept(): number {
    return this.#budget.taken;
  }

  /** Of one request. Its promise never settles where the client goes away: then nobody waits for it. */
  of(request: IncomingMessage, response: ServerResponse): BodySource {
    let read: Promise<Buffer | Failure> | undefined;
    return {
      read: async (bytesMax) => {
        read ??= this.#read(request, response, bytesMax);
        const body = await read;
        return Buffer.isBuffer(body) && body.byteLength > bytesMax ? tooLarge(bytesMax) : body;
      },
    };
  }

  async #read(
    request: IncomingMessage,
    response: ServerResponse,
    bytesMax: number,
  ): Promise<Buffer | Failure> {
    if (bodyKindOf(request) === 'none') return Buffer.alloc(0);
    if (Number(request.headers['content-length'] ?? 0) > bytesMax) return tooLarge(bytesMax);
    if (request.headers.expect !== undefined && request.httpVersionMinor > 0) response.writeContinue();
    return new Promise((resolve) => {
      let taken = 0;
      const late = setTimeout(() => {
        stop();
        resolve(tooSlow);
      }, this.#timeoutMs);
      const stop = readBeginning(
        request,
        bytesMax,
        (bytes) => {
          if (!this.#budget.take(bytes)) return false;
          taken += bytes;
          return true;
        },
        (body) => {
          clearTimeout(late);
          if (body === undefined) resolve(noRoom);
          else {
            // A mere beginning is longer than the limit: `read` refuses it.
            if (body.whole) bodyWasRead(request, body.bytes);
            resolve(body.bytes);
          }
        },
      );
      response.once('close', () => {
        clearTimeout(late);
        stop();
        this.#budget.give(taken);
        taken = 0;
      });
    });
  }
}

const nothing = 'Nothing was forwarded and nothing was changed';

function tooLarge(bytesMax: number): Failure {
  return {
    code: 'body-too-large',
    detail: `The body says who the request is from, and bodies are read up to ${bytesMax} bytes. ${nothing}; send a smaller one.`,
  };
}

const tooSlow: Failure = {
  code: 'request-timeout',
  detail: `The body says who the request is from, and it did not arrive in time. ${nothing}; try again shortly.`,
};

const noRoom: Failure = {
  code: 'identity-unavailable',
  detail: `The body says who the request is from, and too many bodies are being read. ${nothing}; try again shortly.`,
  retryAfterSeconds: 1,
};
