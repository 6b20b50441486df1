/**
 * The guard as Express middleware: it lets through only what the proxy signed, says who asks (as
 * `request.onewriter`), and answers the proxy's calls to the guard. It does not decide on ownership:
 * handlers that write call `guardCheck` inside their own transaction.
 *
 * Mount it before anything that changes `request.method` or reads the body of a guard call.
 */
import express, { type Request, type RequestHandler, type Response } from 'express';
import {
  advanceGuard,
  type GuardState,
  type Queryable,
  readVerdict,
  sealGuard,
  type WriteRefusal,
} from './guard.ts';
import { type GuardClaims, guardKey, type SignatureRefusal, verifyGuard } from './signature.ts';

declare global {
  // oxlint-disable-next-line typescript/no-namespace
  namespace Express {
    interface Request {
      /** What the proxy says about this request; absent only for reads let in unsigned. */
      onewriter?: GuardClaims;
    }
  }
}

export interface GuardOptions {
  /** The same secret as in the proxy's configuration. */
  readonly secret: string;
  /** Runs each guard call in a transaction of its own: a pool, or an embedded database. */
  readonly database: Queryable;
  /**
   * The handlers respect every partition of a request: they check with `guardCheck`, and take `also` of
   * `request.onewriter` for allowed beside `partition`. Default: false, and requests that touch several partitions
   * are refused.
   */
  readonly severalPartitions?: boolean;
  /** Lets GET and HEAD without a signature through, without claims. Default: false. */
  readonly allowUnsignedReads?: boolean;
  /** Unix time in seconds; for tests. */
  readonly nowSeconds?: () => number;
}

export type GuardProblemCode = SignatureRefusal | WriteRefusal | 'not-found' | 'bad-guard-call';

const wellKnown = '/.well-known/onewriter/';
const guardCall = /^\/\.well-known\/onewriter\/guard\/(verdict|advance|seal)$/;
const guardCallBytesMax = 8192;

const problems: Readonly<Record<GuardProblemCode, { status: number; title: string; detail: string }>> = {
  unsigned: {
    status: 403,
    title: 'The request does not come from the proxy',
    detail: 'It carries no onewriter signature, so nothing was done. Send it through the proxy.',
  },
  'bad-signature': {
    status: 403,
    title: 'The signature of the proxy is not valid',
    detail:
      'The onewriter headers were forged, altered or incomplete, so nothing was done. Check that proxy and app share one secret and that nothing between them rewrites the request.',
  },
  expired: {
    status: 403,
    title: 'The signature of the proxy has expired',
    detail:
      'It is more than 60 seconds away from the clock of the app, so nothing was done. Check the clocks.',
  },
  'several-partitions': {
    status: 403,
    title: 'The request touches several partitions',
    detail:
      'The app takes only requests that touch one, so nothing was done. Once its handlers check all of them, switch severalPartitions on (docs/guard.md).',
  },
  'stale-epoch': {
    status: 409,
    title: 'The account has moved on since this request was sent',
    detail: 'It was sent under an older epoch of its partition, so nothing was changed. Send it again.',
  },
  'closed-epoch': {
    status: 409,
    title: 'The epoch of this request is over',
    detail: 'Its partition is being moved, so nothing was changed. Send it again in a moment.',
  },
  'legacy-owns': {
    status: 409,
    title: 'The legacy platform takes the writes of this partition',
    detail: 'The app does not own the partition, so nothing was changed.',
  },
  'app-owns': {
    status: 409,
    title: 'The app takes the writes of this partition',
    detail: 'A copy may not overwrite what the app owns, so nothing was changed.',
  },
  'read-access': {
    status: 403,
    title: 'The proxy forwarded this request as a read',
    detail: 'A read may not change anything, so nothing was changed. Correct the access of its route.',
  },
  'not-found': {
    status: 404,
    title: 'There is no such call of the guard',
    detail: 'The guard answers POST to verdict, advance and seal.',
  },
  'bad-guard-call': {
    status: 400,
    title: 'The call to the guard is not understood',
    detail:
      'Its body must be {"partition", "epoch"} as in the signed headers; advance and seal need the access "copy". Nothing was changed.',
  },
};

export function guardMiddleware(options: GuardOptions): RequestHandler {
  const secret = guardKey(options.secret);
  const nowSeconds = options.nowSeconds ?? (() => Math.floor(Date.now() / 1000));
  const parseBody = express.json({ limit: guardCallBytesMax, type: () => true });
  return async (request, response, next) => {
    const target = request.originalUrl;
    const verdict = verifyGuard({
      secret,
      nowSeconds: nowSeconds(),
      method: request.method,
      target,
      headers: request.headers,
      severalPartitions: options.severalPartitions === true,
    });
    const path = target.split('?', 1)[0] ?? '';
    const forGuard = path.startsWith(wellKnown);
    if (!verdict.ok) {
      const reads = request.method === 'GET' || request.method === 'HEAD';
      const unsignedRead = options.allowUnsignedReads === true && reads && verdict.code === 'unsigned';
      if (unsignedRead && !forGuard) next();
      else sendGuardProblem(response, verdict.code);
      return;
    }
    if (!forGuard) {
      request.onewriter = verdict.claims;
      next();
      return;
    }
    const call = guardCall.exec(path)?.[1];
    if (call === undefined || request.method !== 'POST') {
      sendGuardProblem(response, 'not-found');
      return;
    }
    const parsed = await new Promise<boolean>((resolve) => {
      parseBody(request, response, (problem?: unknown) => resolve(problem === undefined));
    });
    if (!parsed) sendGuardProblem(response, 'bad-guard-call');
    else await answerCall(call, verdict.claims, request, response, options.database);
  };
}

async function answerCall(
  call: string,
  claims: GuardClaims,
  request: Request,
  response: Response,
  database: Queryable,
): Promise<void> {
  // Only onewriter itself signs `copy`, so that no user's request can move the guard.
  const allowed = call === 'verdict' || (claims.access === 'copy' && claims.also === undefined);
  if (!allowed || claims.partition === '' || !sameAsSigned(request.body, claims)) {
    sendGuardProblem(response, 'bad-guard-call');
    return;
  }
  if (call === 'verdict') {
    response.json(await readVerdict(database, claims));
    return;
  }
  const order = call === 'advance' ? advanceGuard : sealGuard;
  const state = await order(database, claims.partition, claims.epoch);
  if (state.accept) response.json(state);
  else sendGuardProblem(response, state.code ?? 'stale-epoch', state);
}

function sameAsSigned(body: unknown, claims: GuardClaims): boolean {
  if (typeof body !== 'object' || body === null) return false;
  const { partition, epoch } = body as { partition?: unknown; epoch?: unknown };
  return partition === claims.partition && epoch === claims.epoch;
}

/** Answers with the problem document (RFC 9457) of this code; `state` adds what the guard knows. */
export function sendGuardProblem(response: Response, code: GuardProblemCode, state?: GuardState): void {
  const problem = { type: `urn:onewriter:problem:${code}`, ...problems[code], ...state, code };
  response.status(problem.status).type('application/problem+json').send(JSON.stringify(problem));
}
