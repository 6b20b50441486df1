/** What the proxy counts: plain numbers that the admin side reads and shows. */
import type { FailureCode } from '../core/failure.ts';
import type { StoreName } from '../core/ownership.ts';
import type { Access } from '../core/route.ts';
import { newReadCounters, type ReadCounters } from './read-counters.ts';

export type StatusClass = '1xx' | '2xx' | '3xx' | '4xx' | '5xx' | 'broken';

export interface ProxyCounters {
  /** Forwarded requests by store, access, and class of the store's answer; `broken`: there was none, or half. */
  readonly requests: Readonly<Record<StoreName, Readonly<Record<Access, Record<StatusClass, number>>>>>;
  /** Answers that the proxy gave itself, by code. */
  readonly refused: Partial<Record<FailureCode, number>>;
  /** Writes that were held at some time; of them, those whose client went away. */
  held: number;
  abandonedHolds: number;
  /** Keyed writes that got the stored answer of the first one. */
  replayed: number;
  readonly copyReads: ReadCounters;
  /** Writes that ended with an unknown outcome. */
  inDoubt: number;
  /** Long-lived connections that were closed because of a fence. */
  closedAtFence: number;
  /** Now: held writes, requests under way, upgraded connections. */
  holding: number;
  underWay: number;
  upgraded: number;
}

export function newCounters(): ProxyCounters {
  const classes = (): Record<StatusClass, number> => ({
    '1xx': 0,
    '2xx': 0,
    '3xx': 0,
    '4xx': 0,
    '5xx': 0,
    broken: 0,
  });
  const accesses = (): Record<Access, Record<StatusClass, number>> => ({ read: classes(), write: classes() });
  return {
    requests: { legacy: accesses(), app: accesses() },
    refused: {},
    held: 0,
    abandonedHolds: 0,
    replayed: 0,
    copyReads: newReadCounters(),
    inDoubt: 0,
    closedAtFence: 0,
    holding: 0,
    underWay: 0,
    upgraded: 0,
  };
}

/** Flat, by the rest of a Prometheus name: `requests_total{store="app",access="write",status="2xx"}`. */
export function flatCounters(counters: ProxyCounters): Record<string, number> {
  const flat: Record<string, number> = {
    held_writes_total: counters.held,
    abandoned_holds_total: counters.abandonedHolds,
    replayed_answers_total: counters.replayed,
    in_doubt_writes_total: counters.inDoubt,
    closed_at_fence_total: counters.closedAtFence,
    held_writes: counters.holding,
    requests_under_way: counters.underWay,
    upgraded_connections: counters.upgraded,
  };
  for (const [store, accesses] of Object.entries(counters.requests)) {
    for (const [access, classes] of Object.entries(accesses)) {
      for (const [status, count] of Object.entries(classes)) {
        flat[`requests_total{store="${store}",access="${access}",status="${status}"}`] = count;
      }
    }
  }
  const { byCopy, byOwner } = counters.copyReads;
  flat['copy_reads_total{answered="copy"}'] = byCopy;
  for (const [because, count] of Object.entries(byOwner)) {
    flat[`copy_reads_total{answered="owner",because="${because}"}`] = count;
  }
  for (const [code, count] of Object.entries(counters.refused)) flat[`refused_total{code="${code}"}`] = count;
  return flat;
}

export function statusClass(status: number): StatusClass {
  if (status < 100) return 'broken';
  if (status < 200) return '1xx';
  if (status < 300) return '2xx';
  if (status < 400) return '3xx';
  return status < 500 ? '4xx' : '5xx';
}
