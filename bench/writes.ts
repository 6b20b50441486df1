/** Users at work: so many writes a second, over all partitions and proxies, whether or not the last was answered. */
import { Pool } from 'undici';
import type { NoteStore } from './note-store.ts';

export interface Writes {
  readonly failures: readonly string[];
  /** Of answered writes, ms; sorted. */
  readonly latenciesMs: readonly number[];
  /** Acknowledged writes that no store shows as its partition's last; asked when all is quiet. */
  lostFrom(store: NoteStore): string[];
  stop(): Promise<void>;
}

const tickMs = 10;

export function startWrites(
  proxies: readonly string[],
  partitions: readonly string[],
  perSecond: number,
): Writes {
  const pools = proxies.map((url) => new Pool(url, { connections: 64 }));
  const failures: string[] = [];
  const latenciesMs: number[] = [];
  const acknowledged = new Map<string, number>();
  const busy = new Set<string>();
  const pending = new Set<Promise<void>>();
  let count = 0;
  const write = async (owner: string, number: number): Promise<void> => {
    const pool = pools[number % pools.length];
    const sentMs = performance.now();
    try {
      const answer = await pool?.request({
        method: 'PUT',
        path: `/notes/${owner}-1`,
        headers: { 'x-user': owner, 'content-type': 'application/json' },
        body: JSON.stringify({ id: `${owner}-1`, owner, text: `write ${number}` }),
      });
      const text = await answer?.body.text();
      if (answer?.statusCode === 200) {
        acknowledged.set(owner, number);
        latenciesMs.push(performance.now() - sentMs);
      } else failures.push(`${owner}: ${answer?.statusCode} ${text}`);
    } catch (error) {
      failures.push(`${owner}: ${String(error)}`);
    }
  };
  const startedMs = performance.now();
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - startedMs) * perSecond) / 1_000);
    while (count < due) {
      count += 1;
      // Spread over the cohort, and never two of one user at once: their order would be anybody's guess.
      const owner = partitions[(count * 7_919) % partitions.length] ?? '';
      if (busy.has(owner)) continue;
      busy.add(owner);
      const done = write(owner, count).finally(() => {
        busy.delete(owner);
        pending.delete(done);
      });
      pending.add(done);
    }
  }, tickMs);
  return {
    failures,
    latenciesMs,
    lostFrom: (store) =>
      [...acknowledged]
        .filter(([owner, number]) => store.note(owner, `${owner}-1`)?.text !== `write ${number}`)
        .map(([owner]) => owner),
    stop: async () => {
      clearInterval(timer);
      await Promise.all(pending);
      await Promise.all(pools.map((pool) => pool.close()));
      latenciesMs.sort((a, b) => a - b);
    },
  };
}
