/** The guard of the app where it lives in the database that the connector reaches (docs/guard.md): asked in SQL. */
import type { GuardAccess } from '../../core/guard.ts';
import type { StoreName } from '../../core/ownership.ts';
import { type CopyStamp, type GuardAnswer, type GuardCalls, StoreFailure } from '../../core/ports.ts';
import { advanceGuard, type GuardState, type Queryable, readVerdict, sealGuard } from '../../guard/guard.ts';
import type { Database } from './database.ts';
import { sqlStateOf } from './failures.ts';

export class PostgresGuardCalls implements GuardCalls {
  readonly #database: Database;

  /** `database`: connections of its own, so that an order never waits for copies to free one. */
  constructor(database: Database) {
    this.#database = database;
  }

  async verdict(
    _store: StoreName,
    { partition, epoch, also = [] }: CopyStamp,
    access: GuardAccess,
    signal: AbortSignal,
  ): Promise<GuardAnswer> {
    const answers: GuardState[] = [];
    for (const one of [{ partition, epoch }, ...also]) {
      answers.push(await this.#ask(signal, (database) => readVerdict(database, { ...one, access })));
    }
    const answer = answers.find(({ accept }) => !accept) ?? answers[0];
    if (answer === undefined) throw new Error('a verdict was asked for no partition');
    return answer;
  }

  async advance(_store: StoreName, stamp: CopyStamp, signal: AbortSignal): Promise<GuardAnswer> {
    const answer = await this.#ask(signal, (database) =>
      advanceGuard(database, stamp.partition, stamp.epoch),
    );
    return this.#taken('advance', stamp, answer);
  }

  async seal(_store: StoreName, stamp: CopyStamp, signal: AbortSignal): Promise<void> {
    const answer = await this.#ask(signal, (database) => sealGuard(database, stamp.partition, stamp.epoch));
    this.#taken('seal', stamp, answer);
  }

  /** Over HTTP the same answer is a 409. */
  #taken(order: 'advance' | 'seal', { partition, epoch }: CopyStamp, answer: GuardState): GuardAnswer {
    if (answer.accept) return answer;
    throw new StoreFailure(
      'refused-by-guard',
      `${this.#database.store} refused to ${order} ${partition} to epoch ${epoch}: its guard has seen ${answer.epoch} (${answer.code ?? 'stale-epoch'})`,
    ).of(this.#database.store);
  }

  async #ask(signal: AbortSignal, call: (database: Queryable) => Promise<GuardState>): Promise<GuardState> {
    try {
      return await call({
        query: async (sql, parameters = []) => ({
          rows: [...(await this.#database.query(sql, parameters, signal))],
        }),
      });
    } catch (error) {
      if (!(error instanceof StoreFailure)) throw error;
      const state = sqlStateOf((error.cause as { code?: unknown } | undefined)?.code);
      const isMissing = state === '3F000' || state === '42883' || state === '42P01';
      if (!isMissing) throw error;
      throw new StoreFailure(
        'rejected',
        `the database of ${this.#database.store} has no guard: install src/guard/guard.sql in it (docs/guard.md); ` +
          'without its guard it cannot be flipped to or from',
        { cause: error },
      ).of(this.#database.store);
    }
  }
}
