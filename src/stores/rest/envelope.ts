/** Answers whose body says that the call has failed, on platforms that answer 200 to everything. */
import type { ErrorConfig, FailureKind } from '../../config/rest-errors.ts';
import type { StoreName } from '../../core/ownership.ts';
import { StoreFailure } from '../../core/ports.ts';
import { type Json, sameValue } from '../../core/records.ts';
import type { RestCall } from './answers.ts';
import { valueAt } from './paths.ts';

const messageLengthMax = 200;
const usualWaitMs = 1_000;
const longestWaitMs = 3_600_000;

/**
 * Undefined where the body tells of no failure. `status`: where it is no success, only codes that the
 * configuration names say more than it does.
 */
export function failureInBody(
  store: StoreName,
  call: Pick<RestCall, 'method' | 'path' | 'access'>,
  config: ErrorConfig,
  status: number,
  body: Json | undefined,
): StoreFailure | 'not-found' | undefined {
  const told = valueAt(body, config.path);
  const isFailure =
    config.unless === undefined ? !isNothing(told) : !config.unless.some((one) => sameValue(one, told));
  if (!isFailure) return undefined;
  const code = codeOf(config.code === undefined ? told : valueAt(body, config.code));
  const named = code !== undefined && Object.hasOwn(config.kinds, code) ? config.kinds[code] : undefined;
  if (named === undefined && (status < 200 || status >= 300)) return undefined;
  const kind = named ?? kindOfStatus(code);
  if (kind === 'not-found') return 'not-found';
  const shown = code === undefined ? '' : ` (${code.slice(0, messageLengthMax)})`;
  const where = `${store} answered ${call.method} ${call.path} with ${status} and an error${shown}${messageIn(config, body)}`;
  if (kind === undefined) {
    // What a write has done before it failed, nobody can tell from a code that is not known.
    return call.access === 'copy'
      ? new StoreFailure('unavailable', `${where}; name its meaning in connector.error.kinds`)
      : new StoreFailure(
          'bad-answer',
          `${where}; nothing was concluded from it; name its meaning in connector.error.kinds`,
        );
  }
  if (kind !== 'rate-limited') return new StoreFailure(kind, where, { status });
  return new StoreFailure(kind, where, { retryAfterMs: waitIn(config, body) });
}

/** Codes that are written as HTTP status mean the same. */
function kindOfStatus(code: string | undefined): FailureKind | undefined {
  const status = /^[45]\d\d$/.test(code ?? '') ? Number(code) : 0;
  if (status === 0) return undefined;
  if (status === 404 || status === 410) return 'not-found';
  if (status === 401 || status === 403) return 'denied';
  if (status === 429) return 'rate-limited';
  return status >= 500 ? 'unavailable' : 'rejected';
}

function isNothing(value: Json | undefined): boolean {
  if (value === undefined || value === null || value === false || value === 0 || value === '') return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

function codeOf(value: Json | undefined): string | undefined {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
    ? String(value)
    : undefined;
}

function messageIn({ message }: ErrorConfig, body: Json | undefined): string {
  const text = message === undefined ? undefined : valueAt(body, message);
  return typeof text === 'string' && text !== '' ? `: ${text.slice(0, messageLengthMax)}` : '';
}

function waitIn({ retryAfter }: ErrorConfig, body: Json | undefined): number {
  const told = retryAfter === undefined ? undefined : Number(valueAt(body, retryAfter) ?? Number.NaN);
  if (told === undefined || !Number.isFinite(told) || told < 0) return usualWaitMs;
  return Math.min(longestWaitMs, told * 1_000);
}
