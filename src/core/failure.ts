/**
 * Every way in which onewriter refuses or fails a user's request. One table, so that the HTTP status, the
 * sentence, and the promise about the write are decided in one place (RFC 9457 problem details).
 */
export interface FailureKind {
  readonly status: number;
  readonly title: string;
  /** Worth trying again without changing the request. */
  readonly retry: boolean;
}

export const failureKinds = {
  'bad-target': { status: 400, title: 'The request target cannot be matched safely', retry: false },
  'ambiguous-route': {
    status: 400,
    title: 'The request matches more than one route, depending on who reads it',
    retry: false,
  },
  'bad-framing': {
    status: 400,
    title: 'The request body is framed in a way that is not taken',
    retry: false,
  },
  'bad-request': { status: 400, title: 'The request cannot be read', retry: false },
  'expectation-failed': { status: 417, title: 'What the request expects is not known', retry: false },
  'head-too-large': { status: 431, title: 'The head of the request is longer than allowed', retry: false },
  'no-route': { status: 404, title: 'Nothing is served at this path', retry: false },
  'method-not-allowed': { status: 405, title: 'This method is not forwarded', retry: false },
  'no-identity': { status: 401, title: 'The request does not say who it acts for', retry: false },
  'bad-credential': { status: 401, title: 'The credential did not pass verification', retry: false },
  'untrusted-peer': {
    status: 401,
    title: 'The identity header came from a peer that may not set it',
    retry: false,
  },
  'identity-unavailable': {
    status: 503,
    title: 'The credential cannot be verified at the moment',
    retry: true,
  },
  'no-partition': { status: 400, title: 'The record to be changed names no partition', retry: false },
  'cross-partition-write': {
    status: 409,
    title: 'The write touches partitions of different stores',
    retry: false,
  },
  'cross-partition-read': {
    status: 409,
    title: 'The read asks for partitions of different stores',
    retry: false,
  },
  'copy-too-old': { status: 503, title: 'What the app shows is older than is allowed here', retry: true },
  'too-many-partitions': {
    status: 400,
    title: 'The request touches more partitions than are taken at once',
    retry: false,
  },
  'link-unavailable': {
    status: 503,
    title: 'That the accounts belong together cannot be noted at the moment',
    retry: true,
  },
  'link-share-spent': {
    status: 429,
    title: 'The user has joined too many accounts that were not joined before',
    retry: true,
  },
  'request-timeout': { status: 408, title: 'The request did not arrive in time', retry: true },
  'body-too-large': { status: 413, title: 'The request body is larger than allowed', retry: false },
  'body-unavailable': {
    status: 503,
    title: 'The request body cannot be looked into at the moment',
    retry: true,
  },
  'lease-lapsed': { status: 503, title: 'This proxy may not admit writes at the moment', retry: true },
  fenced: { status: 503, title: 'The account is being moved', retry: true },
  'commit-not-durable': {
    status: 503,
    title: 'Who owns the account is not confirmed yet',
    retry: true,
  },
  unclaimed: { status: 503, title: 'Where the new account is kept is not settled yet', retry: true },
  'rules-not-active': { status: 503, title: 'The proxies do not all run the same rules yet', retry: true },
  'directory-unavailable': {
    status: 503,
    title: 'Which partition the user belongs to cannot be looked up at the moment',
    retry: true,
  },
  'hold-full': { status: 503, title: 'Too many writes wait for accounts being moved', retry: true },
  'too-many-connections': { status: 503, title: 'Too many clients are connected', retry: true },
  'pool-full': { status: 503, title: 'Too many requests wait for the store', retry: true },
  'out-of-connections': {
    status: 503,
    title: 'This proxy can open no further connection at the moment',
    retry: true,
  },
  'shutting-down': { status: 503, title: 'This proxy is shutting down', retry: true },
  'upstream-refused': { status: 502, title: 'The store refused the connection', retry: true },
  'upstream-connect-timeout': {
    status: 504,
    title: 'The store did not accept the connection in time',
    retry: true,
  },
  'upstream-tls': { status: 502, title: 'No trusted connection to the store could be made', retry: true },
  'hook-failed': {
    status: 502,
    title: 'The request or its answer could not be given the form of the other side',
    retry: false,
  },
  'hook-cannot-read': {
    status: 400,
    title: 'The request cannot be read, so it was not given to the store',
    retry: false,
  },
  'hook-refused': {
    status: 422,
    title: 'What the request says cannot be given to the store',
    retry: false,
  },
  'upstream-failed': { status: 502, title: 'The store broke off the exchange', retry: true },
  'upstream-timeout': { status: 504, title: 'The store did not answer in time', retry: true },
  'idempotency-key-invalid': { status: 400, title: 'The Idempotency-Key cannot be used', retry: false },
  'idempotency-key-reused': {
    status: 422,
    title: 'The Idempotency-Key stands for another write already',
    retry: false,
  },
  'idempotency-pending': { status: 409, title: 'The first write with this key has not ended', retry: true },
  'idempotency-in-doubt': {
    status: 409,
    title: 'The outcome of the first write with this key is unknown',
    retry: false,
  },
  'idempotency-answer-not-kept': {
    status: 409,
    title: 'The first write with this key was answered, but its answer was not kept',
    retry: false,
  },
  'idempotency-too-many-keys': { status: 429, title: 'Too many keys are in use', retry: true },
  'idempotency-unavailable': {
    status: 503,
    title: 'Writes with an Idempotency-Key cannot be taken at the moment',
    retry: true,
  },
  'outcome-unknown': { status: 502, title: 'The write was sent and its outcome is unknown', retry: false },
  'outcome-unknown-timeout': {
    status: 504,
    title: 'The write was sent and its outcome is unknown',
    retry: false,
  },
} as const satisfies Record<string, FailureKind>;

export type FailureCode = keyof typeof failureKinds;

/** Whether a failed write reached a store: not at all, completely, or nobody knows. */
export type Sent = 'no' | 'yes' | 'unknown';

export interface Failure {
  readonly code: FailureCode;
  /** One sentence: what happened, what it means for the data, what to do next. */
  readonly detail: string;
  /** Only for writes. */
  readonly sent?: Sent;
  readonly retryAfterSeconds?: number;
  /** Further members of the problem document, for example the partitions involved. */
  readonly members?: Readonly<Record<string, unknown>>;
}

export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly sent?: Sent;
}

export function problemOf(failure: Failure): Problem {
  const { status, title } = failureKinds[failure.code];
  return {
    ...failure.members,
    type: `urn:onewriter:problem:${failure.code}`,
    title,
    status,
    detail: failure.detail,
    code: failure.code,
    ...(failure.sent === undefined ? {} : { sent: failure.sent }),
  };
}
