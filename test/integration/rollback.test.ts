/** The clean way back, with the calendar example from end to end: nobody's write is lost on it. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type CalendarAnswer, hour } from '../support/calendar.ts';
import { type CalendarDeployment, startCalendar } from '../support/calendar-deployment.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

let day = 400;
/** No two appointments of these tests overlap. */
function appointment(title: string): Record<string, unknown> {
  day += 1;
  return hour(title, day);
}

const titlesOf = (held: readonly { readonly title: string }[]): string[] =>
  held.map(({ title }) => title).toSorted();

describe.each(['embedded', 'server'])('a cohort whose app has its database %s', (kind) => {
  let calendar: CalendarDeployment;
  let postgres: TestPostgres | undefined;

  beforeAll(async () => {
    if (kind === 'server') postgres = await startPostgres();
    const cohorts = {
      quiet: { partitions: ['u1', 'u2', 'u3'] },
      busy: { partitions: ['u4', 'u5'] },
      alone: { partitions: ['u4'] },
    };
    calendar = await startCalendar({ databaseUrl: postgres?.url, users: 5, cohorts });
  }, 90_000);

  afterAll(async () => {
    await calendar?.stop();
    await postgres?.stop();
  }, 30_000);

  test('goes back while nobody has written, and legacy takes its writes again', async () => {
    expect(await calendar.carryOut('/flips', { cohort: 'quiet', to: 'app' })).toMatchObject({ committed: 3 });
    expect(await calendar.whereIs('u1')).toBe('open app 4');
    const planned = await calendar.order('POST', '/plans', { cohort: 'quiet', to: 'legacy' });
    expect(planned.body).toMatchObject({ flip: ['u1', 'u2', 'u3'], blocked: [], blockers: [] });
    const back = await calendar.carryOut('/rollbacks', { cohort: 'quiet', confirm: 'quiet' });
    expect(back).toMatchObject({ state: 'completed', to: 'legacy', committed: 3, blocked: [] });
    expect(await calendar.whereIs('u1')).toBe('open legacy 7');
    const written = await calendar.write('u1', appointment('after the way back'));
    expect(written.status).toBe(201);
    expect(titlesOf(await calendar.held('legacy', 'u1'))).toContain('after the way back');
  });

  test('has its new writes copied to the app again, under the new epoch, and moves forward again', async () => {
    await until('the write is copied', async () =>
      titlesOf(await calendar.held('app', 'u1')).includes('after the way back'),
    );
    expect(await calendar.carryOut('/flips', { cohort: 'quiet', to: 'app' })).toMatchObject({ committed: 3 });
    expect(await calendar.whereIs('u1')).toBe('open app 10');
    expect((await calendar.write('u1', appointment('at the app'))).status).toBe(201);
    const atApp = titlesOf(await calendar.held('app', 'u1'));
    expect(atApp).toEqual(expect.arrayContaining(['after the way back', 'at the app']));
  });

  test('stays where it is as far as users have written, is told why, and loses nothing', async () => {
    await calendar.carryOut('/flips', { cohort: 'busy', to: 'app' });
    expect((await calendar.write('u4', appointment('only at the app'))).status).toBe(201);
    const planned = await calendar.order('POST', '/plans', { cohort: 'busy', to: 'legacy' });
    expect(planned.body).toMatchObject({
      flip: ['u5'],
      blocked: [{ partition: 'u4', code: 'app-was-written' }],
    });
    const refused = await calendar.order('POST', '/rollbacks', { cohort: 'alone', reason: 'test' });
    expect(refused).toMatchObject({ status: 422, body: { code: 'nothing-can-move' } });
    expect(refused.body['blocked']).toMatchObject([{ partition: 'u4', code: 'app-was-written' }]);
    for (const way of ['sync.rollbackWindow', 'Discarding', 'not available yet', 'correct it forward']) {
      expect(refused.body['detail']).toContain(way);
    }
    const back = await calendar.carryOut('/rollbacks', { cohort: 'busy' });
    expect(back).toMatchObject({ state: 'completed', committed: 1, blocked: [{ partition: 'u4' }] });
    // Never fenced: the epoch is that of the flip.
    expect(await calendar.whereIs('u4')).toBe('open app 4');
    expect(await calendar.whereIs('u5')).toBe('open legacy 7');
    expect(titlesOf(await calendar.held('app', 'u4'))).toContain('only at the app');
  });

  test('does not go back on a confirmation that names another cohort', async () => {
    const order = { cohort: 'quiet', confirm: 'busy', reason: 'test' };
    const refused = await calendar.order('POST', '/rollbacks', order);
    expect(refused).toMatchObject({ status: 422, body: { code: 'not-confirmed' } });
  });
});

describe('a race of users against the way back', () => {
  const rounds = 50;
  const writersPerRound = 3;
  let calendar: CalendarDeployment;
  let postgres: TestPostgres;
  const users = Array.from({ length: rounds }, (_, at) => `u${at + 1}`);

  beforeAll(async () => {
    postgres = await startPostgres();
    const each = users.map((user) => [`only-${user}`, { partitions: [user] }] as const);
    const cohorts = { all: { partitions: users }, ...Object.fromEntries(each) };
    calendar = await startCalendar({ databaseUrl: postgres.url, users: rounds, cohorts });
  }, 60_000);

  afterAll(async () => {
    await calendar?.stop();
    await postgres?.stop();
  }, 30_000);

  /** Writes until told to end, at least until one write was accepted. Titles of what was answered 2xx. */
  async function hammer(user: string, over: () => boolean, accepted: Set<string>): Promise<void> {
    for (let turn = 0; ; turn += 1) {
      const body = appointment(`${user} ${day} ${turn}`);
      const { status } = await calendar.write(user, body);
      if (status === 201) accepted.add(String(body['title']));
      else if (status < 400) throw new Error(`answered ${status}`);
      if (over() && status === 201) return;
    }
  }

  /** When the users of a round begin: before the order, while it is planned and fenced, or under its fence. */
  async function untilTheirTurn(round: number, ordered: Promise<CalendarAnswer>): Promise<void> {
    const user = users[round] ?? '';
    if (round % 5 === 1) {
      await ordered;
      await until('the fence', async () => (await calendar.whereIs(user)) !== 'open app 4');
      return;
    }
    for (let looks = round % 12; looks > 0; looks -= 1) await calendar.whereIs(user);
  }

  test('either a write is accepted before the advance and the app keeps all, or it lands at legacy', async () => {
    const forward = await calendar.carryOut('/flips', { cohort: 'all', to: 'app' });
    expect(forward).toMatchObject({ state: 'completed', committed: rounds });
    const seen = { back: 0, blockedAtOnce: 0, blockedBeforeFence: 0, abortedInFence: 0 };
    const lost: string[] = [];
    for (const [round, user] of users.entries()) {
      const accepted = new Set<string>();
      let over = false;
      const start = (): Promise<void[]> =>
        Promise.all(Array.from({ length: writersPerRound }, () => hammer(user, () => over, accepted)));
      let writers: Promise<void[]> | undefined;
      if (round % 5 === 0) {
        writers = start();
        await until('one write is accepted', () => accepted.size > 0);
      }
      const ordered = calendar.order('POST', '/rollbacks', { cohort: `only-${user}`, reason: 'race' });
      if (writers === undefined) {
        await untilTheirTurn(round, ordered);
        writers = start();
      }
      const answer = await ordered;
      if (answer.status === 202) await calendar.ended(String(answer.body['id']));
      over = true;
      await writers;
      const where = await calendar.whereIs(user);
      if (where === 'open legacy 7') seen.back += 1;
      else if (where === 'open app 6') seen.abortedInFence += 1;
      else if (answer.status === 202) seen.blockedBeforeFence += 1;
      else seen.blockedAtOnce += 1;
      const owner = where.includes('legacy') ? 'legacy' : 'app';
      const held = new Set(titlesOf(await calendar.held(owner, user)));
      for (const title of accepted) if (!held.has(title)) lost.push(`${where}: ${title}`);
      expect(accepted.size).toBeGreaterThanOrEqual(writersPerRound);
    }
    expect(lost).toEqual([]);
    expect(seen.back).toBeGreaterThan(0);
    expect(seen.blockedAtOnce).toBeGreaterThan(0);
  }, 240_000);
});
