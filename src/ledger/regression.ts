/** The mark in the ledger that says it lost data, and what a process makes of it when it starts. */
import type { Redis } from 'ioredis';
import type { Regression } from '../core/regression.ts';
import { keys, luaSource } from './connection.ts';
import type { KeptView, KeptViews } from './kept-views.ts';
import type { RedisLedger } from './ledger.ts';

export async function readRegression(redis: Redis): Promise<Regression | undefined> {
  const [detail, atMs, by] = await redis.hmget(keys.meta, 'regressed', 'regressedAtMs', 'regressedBy');
  if (typeof detail !== 'string') return undefined;
  return { detail, atMs: Number(atMs ?? 0), by: by ?? '' };
}

/**
 * Before this process does anything: does the ledger still hold what the file says was confirmed? Returns the
 * sentence for the operator where it does not.
 *
 * A mark that rests on a file of this data directory alone is withdrawn once that file is deleted: that is how somebody
 * says that the ledger was emptied on purpose. Any process that knows better sets it again.
 */
export async function checkOnStart(
  redis: Redis,
  ledger: RedisLedger,
  views: KeptViews,
  kept: KeptView | undefined,
): Promise<string | undefined> {
  const marked = await readRegression(redis);
  if (marked !== undefined && (await views.wasDeleted(marked.by))) {
    await redis.eval(luaSource('withdraw'), 1, keys.meta, marked.by);
  }
  const position = kept?.confirmed ?? { version: 0, id: '' };
  const witness = kept === undefined ? '' : await views.witnessOf(kept);
  const answer = await ledger.testify({ confirmed: position, applied: position }, witness);
  return answer.answer === 'ledger-regressed' ? sentenceFor(answer.detail, kept) : undefined;
}

function sentenceFor(detail: string, kept: KeptView | undefined): string {
  const says = kept === undefined ? '' : ` ${kept.file} says what was confirmed.`;
  const deleting = kept === undefined ? '' : `, or stop every process, delete ${kept.file} and start again`;
  return (
    `The ledger has lost data (${detail}).${says} So nobody knows for certain which store takes whose writes: ` +
    'writes are refused, nothing is copied and nothing is moved, reads go on. ' +
    'Restore it with "onewriter ledger restore --from member --reason TEXT", or --from FILE with an export; ' +
    `if it was emptied on purpose: "onewriter ledger restore --from empty --reason TEXT"${deleting}. ` +
    'See docs/ledger-loss.md.'
  );
}
