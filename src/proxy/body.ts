/**
 * Bodies that must be read before their request is admitted, because they say who it is from or what it is. What is read
 * stays in memory until the request is over, also while it is held, so all of it together is bounded.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Failure } from '../core/failure.ts';
import { ByteBudget } from './byte-budget.ts';
import type { BodySource } from './credential.ts';
import { opensJson } from './json-text.ts';
import {
  bodyKindOf,
  bodyWasBegun,
  bodyWasRead,
  askForBody,
  readBeginning,
  wholeBodyBytesMax,
} from './upload.ts';

export interface BodyLimits {
  /** Of all bodies together. */
  readonly bytesMax: number;
  /** For a body to arrive. */
  readonly timeoutMs: number;
}

/** Blanks before a body's first byte that are read at most. */
const blanksMax = 4_096;

export class Bodies {
  /** Of bytes of unfinished requests that are kept now; others who keep some take of it, too. */
  readonly budget: ByteBudget;
  readonly #timeoutMs: number;

  constructor({ bytesMax, timeoutMs }: BodyLimits) {
    this.budget = new ByteBudget(bytesMax);
    this.#timeoutMs = timeoutMs;
  }

  /** Of one request. Its promise never settles where the client goes away: then nobody waits for it. */
  of(request: IncomingMessage, response: ServerResponse, says: Saying = 'who'): BodySource {
    let read: Promise<Buffer | Failure> | undefined;
    return {
      read: async (bytesMax) => {
        read ??= this.#read(request, response, bytesMax, says);
        const body = await read;
        return Buffer.isBuffer(body) && body.byteLength > bytesMax ? tooLarge(bytesMax, says) : body;
      },
      beginning: async () => {
        if (bodyKindOf(request) === 'whole') return this.#read(request, response, wholeBodyBytesMax, says);
        // Nobody waits for more of a long body than shows what it is.
        for (let have = 0; ;) {
          const body = await this.#take(request, response, have, says);
          if (!Buffer.isBuffer(body) || body.byteLength <= have || body.byteLength > blanksMax) return body;
          if (opensJson(body) !== undefined) return body;
          have = body.byteLength;
        }
      },
    };
  }

  async #read(
    request: IncomingMessage,
    response: ServerResponse,
    bytesMax: number,
    says: Saying,
  ): Promise<Buffer | Failure> {
    if (bodyKindOf(request) === 'none') return Buffer.alloc(0);
    if (Number(request.headers['content-length'] ?? 0) > bytesMax) return tooLarge(bytesMax, says);
    return this.#take(request, response, bytesMax, says);
  }

  /** The whole body, or a beginning that is longer than `bytesMax`. */
  async #take(
    request: IncomingMessage,
    response: ServerResponse,
    bytesMax: number,
    says: Saying,
  ): Promise<Buffer | Failure> {
    if (bodyKindOf(request) === 'none') return Buffer.alloc(0);
    askForBody(request, response);
    return new Promise((resolve) => {
      let taken = 0;
      const late = setTimeout(() => {
        stop();
        resolve(tooSlow(says));
      }, this.#timeoutMs);
      const stop = readBeginning(
        request,
        bytesMax,
        (bytes) => {
          if (!this.budget.take(bytes)) return false;
          taken += bytes;
          return true;
        },
        (body) => {
          clearTimeout(late);
          if (body === undefined) resolve(noRoom(says));
          else {
            // A mere beginning is longer than the limit: `read` refuses it. Whoever goes on without it forwards it.
            if (body.whole) bodyWasRead(request, body.bytes);
            else bodyWasBegun(request, body.bytes);
            resolve(body.bytes);
          }
        },
      );
      response.once('close', () => {
        clearTimeout(late);
        stop();
        this.budget.give(taken);
        taken = 0;
      });
    });
  }
}

const nothing = 'Nothing was forwarded and nothing was changed';

/** What stands in the body. */
export type Saying = 'who' | 'what';
const beginnings: Readonly<Record<Saying, string>> = {
  who: 'The body says who the request is from',
  what: 'The body says what the request is and where it belongs',
};

function tooLarge(bytesMax: number, says: Saying): Failure {
  return {
    code: 'body-too-large',
    detail: `${beginnings[says]}, and bodies are read up to ${bytesMax} bytes. ${nothing}; send a smaller one.`,
  };
}

function tooSlow(says: Saying): Failure {
  return {
    code: 'request-timeout',
    detail: `${beginnings[says]}, and it did not arrive in time. ${nothing}; try again shortly.`,
  };
}

function noRoom(says: Saying): Failure {
  return {
    code: says === 'who' ? 'identity-unavailable' : 'body-unavailable',
    detail: `${beginnings[says]}, and too many bodies are being read. ${nothing}; try again shortly.`,
    retryAfterSeconds: 1,
  };
}
