/** The guard in a real PostgreSQL: the same rule as core's, and no race that lets an old hand in. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { Pool, type PoolClient } from 'pg';
import {
  type GuardAccess,
  guardAdvance,
  type GuardRow,
  guardSeal,
  guardVerdict,
  unknownToGuard,
} from '../../src/core/guard.ts';
import { advanceGuard, guardCheck, installGuard, readVerdict, sealGuard } from '../../src/guard/guard.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

/** What an app may still have: the table and a function of the guard's first version. */
const guardBeforeTheMark = `
  CREATE SCHEMA onewriter;
  CREATE TABLE onewriter.guard (
    partition text COLLATE "C" PRIMARY KEY, epoch bigint NOT NULL, owner text NOT NULL, closed boolean NOT NULL);
  INSERT INTO onewriter.guard VALUES ('p', 2, 'app', true);
  CREATE FUNCTION onewriter.verdict(of_partition text, access text, at_epoch bigint)
  RETURNS TABLE (partition text, epoch bigint, owner text, closed boolean, accept boolean, code text)
  LANGUAGE sql AS $$ SELECT g.*, true, NULL::text FROM onewriter.guard AS g $$;
  CREATE FUNCTION onewriter.advance(of_partition text, at_epoch bigint)
  RETURNS TABLE (partition text, epoch bigint, owner text, closed boolean, accept boolean, code text)
  LANGUAGE sql AS $$ SELECT g.*, true, NULL::text FROM onewriter.guard AS g $$`;

let server: TestPostgres;
let pool: Pool;

beforeAll(async () => {
  server = await startPostgres();
  pool = new Pool({ connectionString: server.url, max: 120 });
  pool.on('error', () => undefined); // the server is stopped under idle connections at the end
  await installGuard(pool);
  await installGuard(pool);
  await pool.query('CREATE TABLE written (partition text, access text, epoch bigint, n bigserial)');
}, 60_000);

afterAll(async () => {
  await pool?.end();
  await server?.stop();
});

async function inTransaction<Result>(work: (client: PoolClient) => Promise<Result>): Promise<Result> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT'); // of a refused transaction this is a rollback
    return result;
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}

/** What an app does: check first, then write, in one transaction. */
function write(partition: string, access: GuardAccess, epoch: number): Promise<string | undefined> {
  return inTransaction(async (client) => {
    const refusal = await guardCheck(client, { partition, access, epoch });
    if (refusal !== undefined) return refusal;
    await client.query('INSERT INTO written (partition, access, epoch) VALUES ($1, $2, $3)', [
      partition,
      access,
      epoch,
    ]);
    return undefined;
  });
}

async function rowOf(partition: string): Promise<GuardRow> {
  return rowIn(await readVerdict(pool, { partition, access: 'read', epoch: 0 }));
}

function rowIn({ epoch, owner, closed, written }: GuardRow): GuardRow {
  return { epoch, owner, closed, written };
}

type Call = { readonly call: GuardAccess | 'advance' | 'seal' | 'verdict'; readonly epoch: number };
const history = fc.array(
  fc.record<Call>({
    call: fc.constantFrom('read', 'write', 'write', 'copy', 'copy', 'advance', 'seal', 'verdict'),
    epoch: fc.nat({ max: 6 }),
  }),
  { maxLength: 14 },
);

async function waiting(query: string): Promise<void> {
  const sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'";
  const giveUpMs = Date.now() + 10_000;
  while ((await pool.query(sql, [query])).rows.length === 0) {
    if (Date.now() > giveUpMs) throw new Error(`nothing waits in ${query}`);
  }
}

describe('the rule in SQL', () => {
  test('it judges every history as the core does', async () => {
    let runs = 0;
    await fc.assert(
      fc.asyncProperty(history, async (calls) => {
        runs += 1;
        const partition = `history-${runs}`;
        let row = unknownToGuard;
        for (const { call, epoch } of calls) {
          if (call === 'advance' || call === 'seal') {
            row = call === 'advance' ? guardAdvance(row, epoch) : guardSeal(row, epoch);
            const state = await (call === 'advance' ? advanceGuard : sealGuard)(pool, partition, epoch);
            expect(rowIn(state)).toEqual(row);
            expect(state.accept).toBe(row.epoch === epoch && row.closed);
          } else if (call === 'verdict' || call === 'read') {
            const access = call === 'read' ? 'read' : 'write';
            const wanted = guardVerdict(row, access, epoch);
            const state = await readVerdict(pool, { partition, access, epoch });
            expect([state.accept, state.code]).toEqual([
              wanted.accept,
              wanted.accept ? undefined : wanted.code,
            ]);
          } else {
            const wanted = guardVerdict(row, call, epoch);
            const refusal = await write(partition, call, epoch);
            expect(refusal).toBe(wanted.accept ? undefined : wanted.code);
            row = wanted.row;
          }
          expect(await rowOf(partition)).toEqual(row);
        }
      }),
      { numRuns: 150, seed: 7 },
    );
  });

  test('a read under any epoch passes onewriter.check and leaves no row', async () => {
    await pool.query("SELECT onewriter.check('reader', 'read', 0)");
    const { rows } = await pool.query("SELECT 1 FROM onewriter.guard WHERE partition = 'reader'");
    expect(rows).toHaveLength(0);
  });

  test('guardCheck refuses to write under the access read', async () => {
    expect(await write('reader', 'read', 5)).toBe('read-access');
  });

  test('a refusal overlooked by the caller still writes nothing', async () => {
    await inTransaction(async (client) => {
      expect(await guardCheck(client, { partition: 'careless', access: 'write', epoch: 1 })).toBe(
        'legacy-owns',
      );
      await client.query("INSERT INTO written (partition) VALUES ('careless')").catch(() => undefined);
    });
    const { rows } = await pool.query("SELECT 1 FROM written WHERE partition = 'careless'");
    expect(rows).toHaveLength(0);
  });

  test('an error that is not a refusal of the guard reaches the caller', async () => {
    const wrong = { partition: 'p', access: 'write', epoch: -1 } as const;
    await expect(inTransaction((client) => guardCheck(client, wrong))).rejects.toThrow('epoch from 0');
  });

  test('a write that is rolled back leaves no mark: the check is part of its transaction', async () => {
    await sealGuard(pool, 'undone', 2);
    const failed = inTransaction(async (client) => {
      const claims = { partition: 'undone', access: 'write', epoch: 4 } as const;
      expect(await guardCheck(client, claims)).toBeUndefined();
      throw new Error('the application changed its mind');
    });
    await expect(failed).rejects.toThrow('changed its mind');
    expect(await rowOf('undone')).toEqual({ epoch: 2, owner: 'app', closed: true, written: false });
  });
});

describe('a write over several partitions', () => {
  const over = (...all: [partition: string, epoch: number][]): Promise<string | undefined> =>
    inTransaction(async (client) => {
      const [[partition, epoch] = ['', 0], ...others] = all;
      const also = others.map(([name, at]) => ({ partition: name, epoch: at }));
      const refusal = await guardCheck(client, { partition, epoch, access: 'write', also });
      if (refusal === undefined) {
        await client.query("INSERT INTO written (partition, access, epoch) VALUES ($1, 'write', 0)", [
          all.map(([name]) => name).join(),
        ]);
      }
      return refusal;
    });
  const writtenFor = async (names: string): Promise<number> =>
    (await pool.query('SELECT 1 FROM written WHERE partition = $1', [names])).rows.length;

  test('is taken under the epoch of each, and marks each as written', async () => {
    await sealGuard(pool, 'set-a', 2);
    await sealGuard(pool, 'set-b', 5);
    expect(await over(['set-b', 7], ['set-a', 4])).toBeUndefined();
    expect(await rowOf('set-a')).toEqual({ epoch: 4, owner: 'app', closed: false, written: true });
    expect(await rowOf('set-b')).toEqual({ epoch: 7, owner: 'app', closed: false, written: true });
    expect(await writtenFor('set-b,set-a')).toBe(1);
  });

  test('is refused, and leaves no mark anywhere, where the row of any one of them refuses it', async () => {
    await sealGuard(pool, 'set-c', 2);
    await sealGuard(pool, 'set-d', 2);
    await advanceGuard(pool, 'set-d', 5);
    expect(await over(['set-c', 4], ['set-d', 4])).toBe('stale-epoch');
    expect(await over(['set-d', 5], ['set-c', 4])).toBe('closed-epoch');
    expect(await over(['set-c', 4], ['set-nobody', 4])).toBe('legacy-owns');
    expect(await rowOf('set-c')).toMatchObject({ epoch: 2, written: false });
    expect(await writtenFor('set-c,set-d')).toBe(0);
  });

  test('keeps an advance of any one of them waiting until it has committed', async () => {
    await sealGuard(pool, 'set-e', 2);
    await sealGuard(pool, 'set-f', 2);
    let advance: Promise<unknown> | undefined;
    await inTransaction(async (client) => {
      const also = [{ partition: 'set-f', epoch: 4 }];
      const claims = { partition: 'set-e', epoch: 4, access: 'write', also } as const;
      expect(await guardCheck(client, claims)).toBeUndefined();
      advance = advanceGuard(pool, 'set-f', 5);
      await waiting('onewriter.advance');
    });
    expect(await advance).toMatchObject({ epoch: 5, written: true, accept: true });
    expect(await over(['set-e', 4], ['set-f', 4])).toBe('stale-epoch');
  });

  test('does not deadlock with others over the same partitions, however they name them', async () => {
    const names = ['set-g', 'set-h', 'set-i', 'set-j'];
    for (const name of names) await sealGuard(pool, name, 2);
    const turn = (at: number): [string, number][] =>
      [...names.slice(at % 4), ...names.slice(0, at % 4)].map((name) => [name, 4 + Math.floor(at / 40)]);
    const answers = await Promise.all(Array.from({ length: 80 }, (_, at) => over(...turn(at))));
    expect(answers.filter((code) => code !== undefined && code !== 'stale-epoch')).toEqual([]);
  });

  test('takes the rows in the order of their names: while it waits for one, it holds none behind it', async () => {
    await sealGuard(pool, 'set-k', 2);
    await sealGuard(pool, 'set-l', 2);
    let writing: Promise<string | undefined> | undefined;
    await inTransaction(async (client) => {
      await client.query("SELECT 1 FROM onewriter.guard WHERE partition = 'set-k' FOR UPDATE");
      writing = over(['set-l', 4], ['set-k', 4]);
      await waiting('onewriter.check_all');
      await client.query("SELECT 1 FROM onewriter.guard WHERE partition = 'set-l' FOR UPDATE NOWAIT");
    });
    expect(await writing).toBeUndefined();
  });

  test('needs partitions, and an epoch for each', async () => {
    const wrong = [
      ['{}', '{}'],
      ['{a,b}', '{1}'],
      ['{NULL}', '{1}'],
      ['{a}', '{NULL}'],
    ];
    for (const [names, epochs] of wrong) {
      const asked = pool.query("SELECT onewriter.check_all($1, 'write', $2)", [names, epochs]);
      await expect(asked).rejects.toThrow(/needs/);
    }
  });
});

describe('a guard from before the mark', () => {
  test('is replaced in place: its rows count as written until their next seal', async () => {
    await pool.query('CREATE DATABASE older');
    const older = new Pool({ connectionString: server.url.replace(/postgres$/, 'older') });
    older.on('error', () => undefined);
    try {
      await older.query(guardBeforeTheMark);
      await installGuard(older);
      await installGuard(older);
      const asked = { partition: 'p', access: 'read', epoch: 0 } as const;
      const before = { epoch: 2, owner: 'app', closed: true } as const;
      expect(rowIn(await readVerdict(older, asked))).toEqual({ ...before, written: true });
      expect(rowIn(await advanceGuard(older, 'p', 5))).toEqual({ ...before, epoch: 5, written: true });
      expect(rowIn(await sealGuard(older, 'p', 8))).toEqual({ ...before, epoch: 8, written: false });
      // A check that does not mark, as the older one did, cannot open a row of the app.
      const unmarked = older.query('UPDATE onewriter.guard SET epoch = 10, closed = false');
      await expect(unmarked).rejects.toThrow('open_means_written');
    } finally {
      await older.end();
    }
  });
});

describe('locks', () => {
  test('two writers of one epoch run side by side, and an advance waits for both', async () => {
    await sealGuard(pool, 'side', 2);
    expect(await write('side', 'write', 4)).toBeUndefined();
    const [one, two] = [await pool.connect(), await pool.connect()];
    for (const client of [one, two]) {
      await client.query('BEGIN');
      const claims = { partition: 'side', access: 'write', epoch: 4 } as const;
      expect(await guardCheck(client, claims)).toBeUndefined();
    }
    let advanced = false;
    const advance = advanceGuard(pool, 'side', 5).then((state) => {
      advanced = true;
      return state;
    });
    await waiting('onewriter.advance');
    await one.query('COMMIT');
    await waiting('onewriter.advance');
    expect(advanced).toBe(false);
    await two.query('COMMIT');
    expect(await advance).toMatchObject({ epoch: 5, owner: 'app', closed: true, accept: true });
    expect(await write('side', 'write', 4)).toBe('stale-epoch');
    one.release();
    two.release();
  });

  test('an advance waits for the first write of an epoch, and then says that the app was written', async () => {
    await sealGuard(pool, 'first-write', 2);
    const client = await pool.connect();
    await client.query('BEGIN');
    const claims = { partition: 'first-write', access: 'write', epoch: 4 } as const;
    expect(await guardCheck(client, claims)).toBeUndefined();
    // What is not committed is not in the verdict, which therefore proves nothing.
    expect(await rowOf('first-write')).toMatchObject({ epoch: 2, written: false });
    const advance = advanceGuard(pool, 'first-write', 5);
    await waiting('onewriter.advance');
    await client.query('COMMIT');
    client.release();
    expect(rowIn(await advance)).toEqual({ epoch: 5, owner: 'app', closed: true, written: true });
  });

  test('a copy that waits behind a seal is judged by the sealed row', async () => {
    expect(await write('behind', 'copy', 2)).toBeUndefined();
    const client = await pool.connect();
    await client.query('BEGIN');
    await sealGuard(client, 'behind', 3);
    const copy = write('behind', 'copy', 3);
    await waiting('onewriter.check');
    await client.query('COMMIT');
    client.release();
    expect(await copy).toBe('closed-epoch');
  });

  test('two first copies of one partition do not deadlock', async () => {
    for (let round = 0; round < 20; round += 1) {
      const answers = await Promise.all(
        Array.from({ length: 8 }, (_, at) => write(`first-${round}`, 'copy', 1 + (at % 2))),
      );
      expect(answers.filter((code) => code !== undefined && code !== 'stale-epoch')).toEqual([]);
    }
  });
});

describe('races', () => {
  test('of 100 writers against advances and seals, none gets in against the row', async () => {
    // written.n is taken inside the writer's transaction and each order notes the sequence while it holds
    // the row exclusively: whatever an order ended cannot be numbered after it.
    await pool.query('CREATE TABLE ordered (partition text, kind text, epoch bigint, n bigint)');
    const order = (partition: string, kind: 'advance' | 'seal', epoch: number): Promise<void> =>
      inTransaction(async (client) => {
        const { accept } = await (kind === 'advance' ? advanceGuard : sealGuard)(client, partition, epoch);
        if (!accept) return;
        await client.query("INSERT INTO ordered VALUES ($1, $2, $3, nextval('written_n_seq'))", [
          partition,
          kind,
          epoch,
        ]);
      });
    const unexpected: string[] = [];
    const orders = [['seal', 3], ['advance', 6], ['seal', 9], ['advance', 12]] as const; // prettier-ignore
    for (let round = 0; round < 4; round += 1) {
      const partition = `race-${round}`;
      let attempts = 0;
      // Half the rounds begin at legacy, where a copy comes first, half at the app, where a user's write does;
      // who gets in later depends on the machine.
      if (round % 2 === 1) {
        await order(partition, 'seal', 1);
        expect(await write(partition, 'write', 2)).toBeUndefined();
      }
      const writer = async (at: number): Promise<void> => {
        for (let turn = 0; turn < 8; turn += 1) {
          const access = (at + turn) % 2 === 0 ? 'write' : 'copy';
          const epochs = access === 'write' ? [2, 4, 5, 6, 10, 11] : [1, 2, 3, 4, 8, 9];
          // Late turns favour late epochs, so that every order meets writers on both of its sides.
          const epoch = epochs[Math.min(5, Math.floor(turn / 2) + ((at * 7 + round) % 4))] ?? 1;
          await write(partition, access, epoch);
          attempts += 1;
          const next = orders[Math.floor(attempts / 160)];
          if (attempts % 160 === 0 && next !== undefined) await order(partition, next[0], next[1]);
          if (attempts === 60) await order(partition, 'seal', 3);
        }
      };
      const results = await Promise.allSettled(Array.from({ length: 100 }, (_, at) => writer(at)));
      for (const result of results) if (result.status === 'rejected') unexpected.push(String(result.reason));
    }
    expect(unexpected).toEqual([]);
    const late = await pool.query(`SELECT w.*, o.kind, o.epoch AS ended FROM written w
      JOIN ordered o USING (partition) WHERE w.n > o.n AND w.epoch <= o.epoch`);
    expect(late.rows).toEqual([]);
    const older = await pool.query(`SELECT 1 FROM written w JOIN written v USING (partition)
      WHERE w.partition LIKE 'race-%' AND w.n > v.n AND w.epoch = v.epoch AND w.access <> v.access`);
    expect(older.rows).toEqual([]);
    const accepted = await pool.query(
      "SELECT access, count(*) FROM written WHERE partition LIKE 'race-%' GROUP BY 1",
    );
    expect(accepted.rows).toHaveLength(2); // both kinds had their chance
  }, 120_000);
});
