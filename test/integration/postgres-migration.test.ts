/**
 * The worked example of docs/connectors-postgres.md, as it stands there: users write through the proxy while their
 * cohort moves from a REST platform to an application whose records, and whose guard, are in a PostgreSQL server.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Pool } from 'pg';
import { ask, hour } from '../support/calendar.ts';
import { type CalendarDeployment, startCalendar } from '../support/calendar-deployment.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

const users = Array.from({ length: 6 }, (_, at) => `u${at + 1}`);
const directory = mkdtempSync(join(tmpdir(), 'onewriter-postgres-migration-'));
let postgres: TestPostgres;
let pool: Pool;
let calendar: CalendarDeployment;

beforeAll(async () => {
  const [, example = ''] =
    /```yaml\n([\s\S]*?)```/.exec(readFileSync('docs/connectors-postgres.md', 'utf8')) ?? [];
  const config = join(directory, 'onewriter.yaml');
  writeFileSync(config, example);
  postgres = await startPostgres();
  calendar = await startCalendar({
    ...{ databaseUrl: postgres.url, users: users.length, config },
    cohorts: { all: { partitions: users } },
  });
  pool = new Pool({ connectionString: postgres.url });
  pool.on('error', () => undefined);
  await pool.query(readFileSync('src/stores/postgres/notice.sql', 'utf8'));
  const [, trigger = ''] =
    /```sql\n([\s\S]*?)```/.exec(readFileSync('docs/connectors-postgres.md', 'utf8')) ?? [];
  await pool.query(trigger);
}, 90_000);
afterAll(async () => {
  await calendar?.stop();
  await pool?.end();
  await postgres?.stop();
  rmSync(directory, { recursive: true, force: true });
}, 30_000);

/** What one user did, as the answers said it. */
interface Done {
  readonly titles: Map<string, string>;
  readonly refused: string[];
}

async function work(user: string, at: number, isOver: () => boolean): Promise<Done> {
  const done: Done = { titles: new Map(), refused: [] };
  const headers = { 'x-user': user };
  const send = async (method: string, path: string, body?: unknown) => {
    const answer = await ask(calendar.proxyUrl, { method, path, body, headers });
    if (answer.status >= 300) done.refused.push(`${method} ${answer.status} ${String(answer.body['code'])}`);
    return answer;
  };
  for (let turn = 0; !isOver() && turn < 300; turn += 1) {
    // No two appointments of a user overlap: the application does not allow it.
    const day = 1_000 + turn;
    const made = await send('POST', '/api/appointments', hour(`${user} ${turn}`, day));
    if (made.status >= 300) continue;
    const id = String(made.body['id']);
    done.titles.set(id, `${user} ${turn}`);
    if (turn % 3 === 1) {
      const changed = await send('PUT', `/api/appointments/${id}`, {
        ...hour(`${user} ${turn} changed`, day),
        owner_id: user,
      });
      if (changed.status < 300) done.titles.set(id, `${user} ${turn} changed`);
    }
    if (turn % 5 === 4) {
      const removed = await send('DELETE', `/api/appointments/${id}`);
      if (removed.status < 300) done.titles.delete(id);
    }
    await new Promise((resolve) => setTimeout(resolve, 40 + at));
  }
  return done;
}

test('everybody moves under writes, every acknowledged write is there, and legacy gets nothing more', async () => {
  let over = false;
  const before = new Map(
    await Promise.all(users.map(async (user) => [user, await calendar.held('legacy', user)] as const)),
  );
  const working = users.map((user, at) => work(user, at, () => over));
  let atCommit: Awaited<ReturnType<typeof calendar.held>>[] = [];
  try {
    const flip = await calendar.carryOut('/flips', { cohort: 'all', to: 'app' });
    expect(flip).toMatchObject({ state: 'completed', committed: users.length, blocked: [] });
    atCommit = await Promise.all(users.map((user) => calendar.held('legacy', user)));
    const rowsAtFlip = (await pool.query('SELECT FROM accepted_writes')).rowCount ?? 0;
    await until(
      'users write to the application',
      async () => ((await pool.query('SELECT FROM accepted_writes')).rowCount ?? 0) > rowsAtFlip + 12,
    );
  } finally {
    over = true;
    await Promise.allSettled(working);
  }
  const done = await Promise.all(working);
  for (const [at, user] of users.entries()) {
    const { titles, refused } = done[at] as Done;
    expect(refused).toEqual([]);
    const mine = (await calendar.held('app', user)).filter(({ title }) => title.startsWith(`${user} `));
    const found = Object.fromEntries(mine.map(({ id, title }) => [id, title]));
    const old = (before.get(user) ?? []).filter(({ title }) => title.startsWith(`${user} `));
    expect(found).toEqual({
      ...Object.fromEntries(old.map(({ id, title }) => [id, title])),
      ...Object.fromEntries(titles),
    });
    expect(mine).toHaveLength(Object.keys(found).length);
    expect(await calendar.held('legacy', user)).toEqual(atCommit[at]);
    expect(await calendar.whereIs(user)).toMatch(/^open app /);
  }
  // The copies went into the database itself: the application's API has taken none of them.
  const { rows } = await pool.query<{ hand: string }>('SELECT DISTINCT hand FROM accepted_writes');
  expect(rows).toEqual([{ hand: 'user' }]);
}, 120_000);

test('whoever has written since cannot go back without copies: so the guard in the database says', async () => {
  const planned = await calendar.order('POST', '/plans', { cohort: 'all', to: 'legacy' });
  expect(JSON.stringify(planned.body)).toContain('app-was-written');
}, 60_000);
