/** What an error of the database means, told apart by what the caller should do next. */
import type { StoreName } from '../../core/ownership.ts';
import { StoreFailure, type StoreFailureKind } from '../../core/ports.ts';
import { guardRefusalOf } from '../../guard/guard.ts';

/** SQLSTATE by class or code: https://www.postgresql.org/docs/current/errcodes-appendix.html. The longest that fits counts. */
const kinds: readonly (readonly [state: string, kind: StoreFailureKind, meaning: string])[] = [
  ['22', 'rejected', 'a value does not fit its column; nothing was written'],
  ['23', 'rejected', 'a constraint does not allow the record; nothing was written'],
  // For example two records of one call with the same id.
  ['21', 'rejected', 'nothing was written'],
  // Raised by a trigger of the application.
  ['P0', 'rejected', 'the database refused it; nothing was written'],
  ['28', 'denied', 'it does not let onewriter in; check user and password of the connector'],
  ['3D', 'denied', 'the database is not there; check the connector'],
  ['42501', 'denied', 'the role lacks a privilege; nothing was concluded about any record'],
  ['42', 'bad-answer', 'the connector does not fit the database; nothing was concluded about any record'],
  ['3F', 'bad-answer', 'the connector does not fit the database; nothing was concluded about any record'],
  ['0A', 'bad-answer', 'the database cannot do this; nothing was concluded about any record'],
];

/** What the server said, without the values in it: they belong to a user, and into no log. */
class ServerError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

interface Said {
  readonly code?: unknown;
  readonly message: string;
  readonly column?: unknown;
  readonly constraint?: unknown;
}

/** `what` says what was asked of which database. */
export function failureOf(store: StoreName, what: string, error: unknown): StoreFailure {
  if (error instanceof StoreFailure) return error.of(store);
  const refusal = guardRefusalOf(error);
  if (refusal !== undefined) {
    const detail = `its guard refused the copy (${refusal}); nothing was written`;
    return new StoreFailure('refused-by-guard', `${store}, ${what}: ${detail}`).of(store);
  }
  const { code, message, column, constraint } = error as Said;
  const state = sqlStateOf(code);
  if (state === undefined) {
    const lost = typeof code === 'string' ? `no connection (${code})` : message;
    const [, kind, meaning] = unknownOutcome;
    return new StoreFailure(kind, `${store}, ${what}: ${lost}; ${meaning}`).of(store);
  }
  const [, kind, meaning] = meaningOf(state) ?? unknownOutcome;
  const about = [column, constraint].find((one) => typeof one === 'string');
  const cause = new ServerError(state, withoutValue(message));
  const said = `${cause.message} [${state}]${about === undefined ? '' : ` (${about})`}`;
  return new StoreFailure(kind, `${store}, ${what}: ${said}; ${meaning}`, { cause }).of(store);
}

const unknownOutcome = ['', 'unavailable', 'what became of it is not known'] as const;

function meaningOf(state: string): (typeof kinds)[number] | undefined {
  const fitting = kinds.filter(([prefix]) => state.startsWith(prefix));
  return fitting.toSorted(([left], [right]) => right.length - left.length)[0];
}

/** PostgreSQL ends with the value that it could not take. */
function withoutValue(message: string): string {
  return message.replace(/: ".*$/s, '').slice(0, 200);
}

export function sqlStateOf(code: unknown): string | undefined {
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code)
    ? code
    : undefined;
}

/** A text that is no value of the column's type at all, an id for example: no row can have it. */
export function isNoValue(error: unknown): boolean {
  const state = sqlStateOf((error as { readonly code?: unknown } | undefined)?.code);
  return (
    state === '22P02' || state === '22003' || state === '22007' || state === '22008' || state === '22021'
  );
}

/** The table is not any more what it was when its catalog was read. */
export function isOutdated(error: unknown): boolean {
  const state = sqlStateOf((error as { readonly code?: unknown } | undefined)?.code);
  return (
    state === '42703' || state === '42P01' || state === '42804' || state === '42704' || state === '428C9'
  );
}
