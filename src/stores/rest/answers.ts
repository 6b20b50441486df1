/** What an answer means that is not a success: told apart by what the caller should do next. */
import { z } from 'zod';
import type { StoreName } from '../../core/ownership.ts';
import { type CopyStamp, StoreFailure } from '../../core/ports.ts';
import type { GuardAccess } from '../../core/guard.ts';
import type { Json } from '../../core/records.ts';

export interface RestCall {
  readonly method: string;
  /** Below the store's URL, with its query. */
  readonly path: string;
  readonly body?: Json;
  /** The body is sent as a form. */
  readonly form?: boolean | undefined;
  readonly access: GuardAccess;
  readonly stamp: CopyStamp;
  /** Over those of every call. */
  readonly headers?: Readonly<Record<string, string>>;
  /** With the credentials for writing copies. */
  readonly asWriter?: boolean;
  /** To the store's guard, which answers as docs/guard.md says, whatever else the store does. */
  readonly ofGuard?: boolean;
  /** The budget was charged before (CallBudget.prepay). */
  readonly prepaid?: boolean;
  /** Does not wait for the sync's share of a rate limit. */
  readonly haste?: 'at-once';
}

export interface RestAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Undefined where the body is empty. */
  readonly body: Json | undefined;
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

/** Codes by which a guard refuses; anything else that says 403 or 409 is the application's own matter. */
const guardCodes = new Set([
  'stale-epoch',
  'legacy-owns',
  'app-owns',
  'closed-epoch',
  'unsigned',
  'bad-signature',
  'expired',
]);

const saidLengthMax = 300;

const problemSchema = z.object({ code: z.string().optional(), detail: z.string().optional() });

/** Undefined for 2xx, and for 404 and 410, which are answers: the record is not there. */
export function failureOf(
  store: StoreName,
  call: Pick<RestCall, 'method' | 'path'>,
  answer: RawAnswer,
  nowMs: number,
): StoreFailure | undefined {
  const { status } = answer;
  if (status >= 200 && status < 300) return undefined;
  if (status === 404 || status === 410) return undefined;
  const where = `${store} answered ${call.method} ${call.path} with ${status}`;
  const problem = problemIn(answer.text);
  const said = excerptOf(answer.text);
  if (status >= 400 && status < 500 && problem?.code !== undefined && guardCodes.has(problem.code)) {
    return new StoreFailure(
      'refused-by-guard',
      `${where}: its guard refused the call (${problem.code}); nothing was written`,
    );
  }
  if (status === 401 || status === 403) {
    return new StoreFailure(
      'denied',
      `${where}: it does not let onewriter in; nothing was concluded about any record; check the connector's credentials`,
    );
  }
  if (status === 429) {
    const { headers } = answer;
    const retryAfterMs = retryAfterOf(headers['retry-after'], nowMs) ?? resetOf(headers) ?? 1_000;
    return new StoreFailure('rate-limited', `${where}: its rate limit is used up for ${retryAfterMs} ms`, {
      retryAfterMs,
    });
  }
  if (status >= 500) {
    const retryAfterMs = retryAfterOf(answer.headers['retry-after'], nowMs);
    return new StoreFailure('unavailable', where, {
      said,
      ...(retryAfterMs !== undefined && { retryAfterMs }),
    });
  }
  if (status >= 300 && status < 400) {
    return new StoreFailure(
      'bad-answer',
      `${where}, a redirect, which the connector does not follow; configure the final address`,
    );
  }
  if (status === 412) {
    return new StoreFailure(
      'rejected',
      `${where}: the record has changed since it was read; nothing was written`,
      { status, said },
    );
  }
  const detail = problem?.detail === undefined ? '' : `: ${problem.detail.slice(0, 200)}`;
  return new StoreFailure('rejected', `${where}${detail}`, { status, said });
}

/** On one line, cut, without what a terminal would obey; undefined where nothing is left. */
function excerptOf(text: string): string | undefined {
  const line = text
    .slice(0, 4 * saidLengthMax)
    .replace(/[\p{C}\s]+/gu, ' ')
    .trim();
  if (line === '') return undefined;
  return (line.length > saidLengthMax ? `${line.slice(0, saidLengthMax)}…` : line).toWellFormed();
}

function problemIn(text: string): z.output<typeof problemSchema> | undefined {
  if (!text.startsWith('{')) return undefined;
  try {
    return problemSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

const longestWaitMs = 3_600_000;

/** When the limit is renewed, ms: `RateLimit-Reset: 30`, or `RateLimit: "default";r=0;t=30` (drafts of the IETF, HTTPAPI). */
function resetOf(headers: RawAnswer['headers']): number | undefined {
  const [reset, limit] = [headers['ratelimit-reset'], headers['ratelimit']].map(String);
  const seconds = /^\d{1,9}$/.exec(reset ?? '')?.[0] ?? /;\s*t=(\d{1,9})\b/.exec(limit ?? '')?.[1];
  return seconds === undefined ? undefined : Math.min(longestWaitMs, Number(seconds) * 1_000);
}

/** Retry-After in ms (RFC 9110, 10.2.3: seconds or an HTTP date); undefined when absent or not understood. */
export function retryAfterOf(header: string | string[] | undefined, nowMs: number): number | undefined {
  const text = (Array.isArray(header) ? header[0] : header)?.trim();
  if (text === undefined || text === '') return undefined;
  const waitMs = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowMs;
  return Number.isNaN(waitMs) ? undefined : Math.min(longestWaitMs, Math.max(0, waitMs));
}
