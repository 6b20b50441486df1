/**
 * Every partition that the ledger lists, at one moment. A large ledger (a million are 200 MB of text) is no command
 * like others: it has a connection of its own, where nothing waits behind it and more time to answer, and its texts
 * are read a few at a time, so that requests and heartbeats go on meanwhile.
 */
import { setImmediate } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import type { LedgerRecord } from '../core/ports.ts';
import type { Position, Rules } from '../core/view.ts';
import { keys, repliesOf } from './connection.ts';
import { parseRecordOnce, parseRules } from './records.ts';

export interface AllPartitions<Value> {
  /** Of the same moment, as it stands in the ledger. */
  readonly meta: { readonly position: Position; readonly rules: Rules | undefined };
  readonly entries: [partition: string, value: Value][];
}

const answerWithinMs = 60_000;
/** A few milliseconds of work. */
const textsAtOnce = 1_000;

/** `valueOf`: what is wanted of each record. Rejects where Redis does not answer, or where a record is none. */
export async function readAllPartitions<Value>(
  redis: Redis,
  valueOf: (record: LedgerRecord) => Value,
): Promise<AllPartitions<Value>> {
  const [[version, id, rules], flat] = await ask(redis);
  const entries: [string, Value][] = [];
  for (let at = 0; at < flat.length; at += 2) {
    entries.push([flat[at] ?? '', valueOf(parseRecordOnce(flat[at + 1] ?? ''))]);
    // Read and done with: of a million only what they say stays.
    flat[at + 1] = '';
    if (entries.length % textsAtOnce === 0) await setImmediate();
  }
  const meta = {
    position: { version: Number(version ?? 0), id: id ?? '' },
    rules: typeof rules === 'string' ? parseRules(rules) : undefined,
  };
  return { meta, entries };
}

async function ask(redis: Redis): Promise<[meta: (string | null)[], flat: string[]]> {
  const patient = redis.duplicate({ commandTimeout: answerWithinMs, lazyConnect: true });
  patient.on('error', () => undefined); // whoever waits gets it
  try {
    await patient.connect();
    // Not hgetall: its answer would become one object with a million properties.
    const asked = patient.multi().hmget(keys.meta, 'version', 'id', 'rules').call('HGETALL', keys.partitions);
    const [meta, flat] = await repliesOf(asked);
    return [meta as (string | null)[], flat as string[]];
  } finally {
    patient.disconnect();
  }
}
