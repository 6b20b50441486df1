/**
 * What an observing proxy writes down: one line for each request with what enforcing would have made of it, and
 * beside them how much was seen and lost. src/config/observation.ts reads the lines back.
 */
import type { FailureCode } from './failure.ts';
import type { StoreName } from './ownership.ts';
import type { Access, AccessReason } from './route.ts';

/** Grows when a reader of older lines would misread newer ones. */
export const observationFormat = 1;

export const identityKinds = [
  ...(['header', 'jwt', 'cookie', 'basic', 'bearer', 'body'] as const),
  /** `none`: no credential. `wrong`: one that was not accepted. `unavailable`: it could not be checked. */
  ...(['none', 'wrong', 'unavailable'] as const),
  /** Nobody looked: the route is open to everybody, the request would be refused before, or it broke off. */
  'not-asked',
] as const;
export type IdentityKind = (typeof identityKinds)[number];

/** What enforcing would do, were every partition still at legacy. */
export type Would =
  | { readonly do: 'forward'; readonly store: StoreName; readonly because: ForwardReason }
  | { readonly do: 'refuse'; readonly code: FailureCode }
  /** Look up in the directory which partition the user belongs to. */
  | { readonly do: 'look-up' }
  /** Answer by itself (`OPTIONS *`). */
  | { readonly do: 'answer' }
  /** The request broke off before anybody could tell. */
  | { readonly do: 'unknown' };

export const forwardReasons = ['owner', 'pinned', 'anonymous-read'] as const;
export type ForwardReason = (typeof forwardReasons)[number];

export const endings = [
  'answered',
  /** The client went away, or broke off what it sent. */
  'client-left',
  /** Legacy ended the connection before its answer was complete. */
  'store-broke-off',
  /** No connection to legacy could be made; nothing was sent. */
  'unreachable',
  /** Not passed on: CONNECT. */
  'refused',
] as const;
export type Ending = (typeof endings)[number];

export interface Observation {
  readonly type: 'request';
  /** When its head had arrived, ISO 8601. */
  readonly at: string;
  /** Fingerprint of the rules that judged it; absent in lines of before 0.1. */
  readonly rules?: string | undefined;
  readonly method: string;
  /** Without the query; what looks like an id, the user or the partition is a placeholder. */
  readonly path: string;
  /** The route that matches, by its place in the configuration; null where none does. */
  readonly route: { readonly index: number; readonly path: string } | null;
  readonly identity: IdentityKind;
  /** By default a keyed hash. */
  readonly user: string | null;
  readonly partitions: readonly string[];
  /** The rule that found them, as the configuration writes it. */
  readonly partitionBy: string | null;
  /** Null where enforcing would not get as far. */
  readonly access: Access | null;
  readonly accessBy: AccessReason | null;
  readonly would: Would;
  /** Enforcing has a time limit that this one would have passed. */
  readonly tooSlow: boolean;
  /** Of legacy's answer; null where there was none. */
  readonly status: number | null;
  readonly ended: Ending;
  /** Of the bodies; of a WebSocket, of all that passed. */
  readonly requestBytes: number;
  readonly answerBytes: number;
  readonly durationMs: number;
}

/** First line of every file. */
export interface ObservationStart {
  readonly type: 'start';
  readonly format: number;
  /** Of the process, random. */
  readonly run: string;
  readonly at: string;
  readonly host: string;
  readonly pid: number;
  readonly users: 'hash' | 'plain';
}

/** Lines that should stand here and could not be written. */
export interface ObservationsDropped {
  readonly type: 'dropped';
  readonly at: string;
  readonly count: number;
  /** `queue-full`: the disk is too slow. Else what the system said, for example ENOSPC. */
  readonly because: string;
}

/** What the process has seen since it began, whatever became of the lines. */
export interface ObservationSummary {
  readonly type: 'summary';
  readonly run: string;
  readonly at: string;
  readonly since: string;
  readonly requests: number;
  /** Lines of requests that were lost. */
  readonly dropped: number;
  /** Connections on which something came that is no HTTP; answered with 4xx here. */
  readonly notHttp: number;
  readonly rows: readonly ObservedRow[];
}

export type ObservationLine = Observation | ObservationStart | ObservationsDropped | ObservationSummary;

/** Requests of one route, or, where none matches, of one method and path. */
export interface ObservedRow {
  readonly route: { readonly index: number; readonly path: string } | null;
  /** Of requests that no route matches; null for a route, and for what found no room. */
  readonly method: string | null;
  /** As the route has it; null for what found no room. */
  readonly path: string | null;
  readonly requests: number;
  readonly reads: number;
  readonly writes: number;
  /** Would be refused, by code. */
  readonly refused: Readonly<Record<string, number>>;
  /** No credential, a wrong one, or one that could not be checked; routes open to everybody left out. */
  readonly withoutIdentity: number;
  /** Belongs to no partition, though it is not pinned. */
  readonly withoutPartition: number;
  readonly severalPartitions: number;
  /** Exact up to some hundreds, then an estimate. */
  readonly partitions: number;
  /** Would go to the app: pinned, or anonymous reads. */
  readonly toApp: number;
  readonly lookUps: number;
  readonly tooSlow: number;
  /** Legacy gave no answer, or half of one. */
  readonly unanswered: number;
}
