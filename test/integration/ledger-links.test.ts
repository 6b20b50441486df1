/** Which partitions are written together: noted for good, known to every member, forgotten by an operator only. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { LinkShareSpent, type Pair, pairOf } from '../../src/core/links.ts';
import { LinkShares } from '../../src/ledger/link-shares.ts';
import { LinkMemory, RedisLinks } from '../../src/ledger/links.ts';
import { type AdminRig, startAdmin, tokens } from '../support/admin.ts';
import { runCli } from '../support/cli.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
beforeAll(async () => {
  server = await startRedis();
});
afterAll(() => server.stop());

describe('the book of links', () => {
  let rig: TestLedger;
  beforeEach(async () => {
    rig = await openLedger(server);
    await rig.redis.flushall();
  });
  afterEach(() => rig.close());

  const pairs = (...all: [string, string][]): Pair[] => all.map((pair) => pairOf(...pair));
  const partners = async (...names: string[]) => Object.fromEntries(await rig.links.partnersOf(names));

  test('says from either side who is written together, and since when', async () => {
    await rig.links.note(pairs(['u2', 'u1'], ['u2', 'u3']), '/batch');
    expect(await partners('u1', 'u2', 'u3', 'u4')).toEqual({ u1: ['u2'], u2: ['u1', 'u3'], u3: ['u2'] });
    const [first] = (await rig.links.page('', 10)).links;
    expect(first).toMatchObject({ partitions: ['u1', 'u2'], route: '/batch' });
    await rig.links.note(pairs(['u1', 'u2']), '/other');
    expect((await rig.links.page('', 10)).links[0]).toEqual(first);
  });

  test('takes no name for the beginning of another', async () => {
    await rig.links.note(pairs(['u1', 'x'], ['u11', 'y'], ['u1 1', 'z'], ['é', 'ü']), '');
    expect(await partners('u1', 'u11', 'u1 1', 'u', 'é')).toEqual({
      ...{ u1: ['x'], u11: ['y'], 'u1 1': ['z'], é: ['ü'] },
    });
  });

  test('shows them page by page, of all or of one partition', async () => {
    const names = Array.from({ length: 25 }, (_, at) => `p${String(at).padStart(2, '0')}`);
    await rig.links.note(
      names.map((name) => pairOf('hub', name)),
      '',
    );
    await rig.links.note(pairs(['p00', 'p01'], ['a', 'b']), '');
    const seen: string[] = [];
    let after = '';
    for (let pages = 0; pages < 20; pages += 1) {
      const page = await rig.links.page(after, 4);
      expect(page.links.length).toBeLessThanOrEqual(4);
      seen.push(...page.links.map(({ partitions }) => partitions.join(' ')));
      if (page.next === undefined) break;
      after = page.next;
    }
    expect(seen.length).toBe(27);
    expect(new Set(seen).size).toBe(27);
    expect((await rig.links.page('', 100, 'p00')).links.map(({ partitions }) => partitions)).toEqual([
      ['hub', 'p00'],
      ['p00', 'p01'],
    ]);
    const half = await rig.links.page('', 20, 'hub');
    const rest = await rig.links.page(half.next ?? '', 20, 'hub');
    expect([half.links.length, rest.links.length, rest.next]).toEqual([20, 5, undefined]);
  });

  test('is bounded: beyond that nothing is noted, and what is noted already still counts', async () => {
    const small = new RedisLinks(rig.redis, rig.ledger.writes, 2);
    await small.note(pairs(['a', 'b'], ['a', 'c']), '');
    await expect(small.note(pairs(['a', 'd']), '')).rejects.toThrow('2 links are noted already');
    await small.note(pairs(['a', 'b'], ['a', 'c']), '');
    expect(await rig.redis.hlen('{onewriter}:links')).toBe(2);
    expect(await rig.redis.zcard('{onewriter}:links:partners')).toBe(4);
  });

  test('is written to also where the link is there already, so that WAIT covers what somebody else has noted', async () => {
    await rig.links.note(pairs(['a', 'b']), '');
    const dirty = async (): Promise<number> =>
      Number(/rdb_changes_since_last_save:(\d+)/.exec(await rig.redis.info('persistence'))?.[1]);
    const before = await dirty();
    await rig.links.note(pairs(['a', 'b']), '');
    expect(await dirty()).toBeGreaterThan(before);
  });

  test('forgets only what is there, and not while the ledger has lost data', async () => {
    await rig.links.note(pairs(['a', 'b'], ['a', 'c']), '/x');
    expect(await rig.links.forget(['a', 'z'], 'ops', 'test')).toEqual({ result: 'unknown' });
    expect(await rig.links.forget(['a', 'b'], 'ops', 'test')).toMatchObject({
      ...{ result: 'forgotten', link: { partitions: ['a', 'b'], route: '/x' } },
    });
    expect(await partners('a', 'b', 'c')).toEqual({ a: ['c'], c: ['a'] });
    await rig.redis.hset('{onewriter}:meta', 'regressed', 'something is gone');
    expect(await rig.links.forget(['a', 'c'], 'ops', 'test')).toMatchObject({ result: 'ledger-regressed' });
    expect(await partners('a')).toEqual({ a: ['c'] });
  });
});

describe('what a member knows of them', () => {
  let rig: TestLedger;
  let noted: string[];
  const memoryOf = (links: Pick<RedisLinks, 'note'>): LinkMemory =>
    new LinkMemory(async (all, route, freshMax) => {
      noted.push(all.map((pair) => pair.join('-')).join());
      return links.note(all, route, freshMax);
    });

  beforeEach(async () => {
    noted = [];
    rig = await openLedger(server);
    await rig.redis.flushall();
  });
  afterEach(() => rig.close());

  test('is what it has noted itself, each pair once', async () => {
    const memory = memoryOf(rig.links);
    expect(memory.known(['u1'])).toBe(true);
    expect(memory.known(['u1', 'u2', 'u3'])).toBe(false);
    await memory.note(['u1', 'u2', 'u3'], '/batch');
    await memory.note(['u1', 'u3', 'u4'], '/batch');
    expect([memory.known(['u2', 'u1']), memory.known(['u1', 'u4']), memory.known(['u2', 'u3'])]).toEqual([
      ...[true, true, false],
    ]);
    expect(noted).toEqual(['u1-u2,u1-u3', 'u1-u4']);
  });

  test('ends with what an operator says in the ledger, at every member, and before the next fence', async () => {
    const memories = [memoryOf(rig.links), memoryOf(rig.links)];
    for (const links of memories) await rig.join({ links });
    for (const memory of memories) await memory.note(['u1', 'u2'], '');
    expect(await rig.links.forget(['u1', 'u2'], 'ops', 'they moved apart')).toMatchObject({
      result: 'forgotten',
    });
    const fence = { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 60_000 } as const;
    const heard: string[] = [];
    rig.feed.onAcknowledgement(({ member }) => {
      // Whoever has answered the fence has heard of it: it stands behind it in the same stream.
      heard.push(member);
    });
    await rig.ledger.order({ partition: 'u1', order: fence, by: 'test', reason: 'test' });
    await until('both have answered', () => heard.length === 2);
    expect(memories.map((memory) => memory.known(['u1', 'u2']))).toEqual([false, false]);
    await memories[0]?.note(['u1', 'u2'], '');
    expect(noted.length).toBe(3);
    expect((await rig.links.partnersOf(['u1'])).get('u1')).toEqual(['u2']);
  });

  test('is not what was forgotten while it was being noted', async () => {
    let memory: LinkMemory | undefined;
    memory = new LinkMemory(async () => {
      memory?.forgotten(['u8', 'u9']);
      return 1;
    });
    await memory.note(['u1', 'u2'], '');
    expect(memory.known(['u1', 'u2'])).toBe(false);
  });

  test('ends with its view: what a restored ledger holds is not what it knew', async () => {
    const memory = memoryOf(rig.links);
    const member = await rig.join({ links: memory, leaseMs: 600 });
    await memory.note(['u1', 'u2'], '');
    // As after a failover that took the member off the list: it enters anew and loads a snapshot.
    await rig.ledger.removeMember(member.id);
    await until('it has forgotten', () => !memory.known(['u1', 'u2']));
  });

  test('costs a share of its user only where nobody knew it, and nobody else', async () => {
    let nowMs = 0;
    const memory = (): LinkMemory =>
      new LinkMemory(
        (all, route, freshMax) => rig.links.note(all, route, freshMax),
        new LinkShares(() => nowMs, 2),
      );
    const [here, there] = [memory(), memory()];
    await there.note(['u1', 'u2', 'u3'], '', 'bob');
    for (const other of ['u2', 'u3', 'u4']) await here.note(['u1', other], '', 'eve');
    const spent = await here.note(['u1', 'x1', 'x2'], '', 'eve').catch((error: unknown) => error);
    expect(spent).toBeInstanceOf(LinkShareSpent);
    expect(spent).toMatchObject({ againAfterSeconds: 3_600 });
    expect(await rig.redis.hlen('{onewriter}:links')).toBe(3);
    // Together they get no more than one after the other.
    const together = await Promise.allSettled(
      ['x1', 'x2', 'x3'].map((other) => here.note(['u1', other], '', 'eve')),
    );
    expect(together.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    await here.note(['u1', 'u2', 'u3'], '', 'eve');
    await here.note(['u7', 'u8'], '', 'ann');
    await here.note(['u5', 'u6'], '');
    nowMs = 3_600_000;
    await here.note(['u1', 'y1', 'y2'], '', 'eve');
  });

  test('is not waited for without an end', async () => {
    const memory = new LinkMemory(() => new Promise(() => undefined));
    await expect(memory.note(['u1', 'u2'], '')).rejects.toThrow('did not note a link within 1000 ms');
    expect(memory.known(['u1', 'u2'])).toBe(false);
  });
});

describe('links as operators see them', () => {
  let rig: AdminRig;
  beforeEach(async () => {
    rig = await startAdmin(server);
    await rig.parts.links.note([pairOf('u1', 'u2'), pairOf('u1', 'u3')], '/batch');
  });
  afterEach(() => rig.stop());

  const cli = (token: string, ...argv: string[]) => runCli(['--admin', rig.url, '--token', token, ...argv]);

  test('are listed page by page, and named by explain', async () => {
    const first = await rig.call('GET', '/v1/links?limit=1', { token: tokens.viewer });
    expect(first.body).toMatchObject({ links: [{ partitions: ['u1', 'u2'], route: '/batch' }] });
    const next = await rig.call('GET', `/v1/links?limit=1&cursor=${String(first.body['next'])}`);
    expect(next.body).toMatchObject({ links: [{ partitions: ['u1', 'u3'] }] });
    expect(next.body['next']).toBeUndefined();
    expect((await rig.call('GET', '/v1/links?partition=u3')).body['links']).toHaveLength(1);
    expect((await rig.call('GET', '/v1/explain?partition=u1')).body['linkedWith']).toEqual(['u2', 'u3']);
    const shown = await cli(tokens.viewer, 'links', 'list', 'u2');
    expect([shown.exit, shown.stdout]).toEqual([0, expect.stringMatching(/^u1 +u2 +since \S+ +\/batch\n$/)]);
    expect((await cli(tokens.viewer, 'links', 'list', 'nobody')).stdout).toContain('No partitions are noted');
    expect((await cli(tokens.viewer, 'explain', 'u1')).stdout).toMatch(/written with +u2, u3/);
  });

  test('are forgotten by an admin, with a reason, in the audit log', async () => {
    const body = { partitions: ['u2', 'u1'], reason: 'the shared calendar is gone' };
    const path = '/v1/links/forget';
    expect((await rig.call('POST', path, { body })).body['code']).toBe('role-needed');
    const token = tokens.admin;
    const refused = { token, body: { ...body, reason: '' } };
    expect((await rig.call('POST', path, refused)).status).toBe(400);
    const twice = { token, body: { ...body, partitions: ['u1', 'u1'] } };
    expect((await rig.call('POST', path, twice)).status).toBe(400);
    expect((await rig.call('POST', path, { token, body })).body).toMatchObject({
      forgotten: { partitions: ['u1', 'u2'], route: '/batch' },
    });
    expect((await rig.call('POST', path, { token, body })).body).toMatchObject({ code: 'no-such-link' });
    const { entries } = (await rig.call('GET', '/v1/audit')).body as { entries: unknown[] };
    expect(entries[0]).toMatchObject({
      actor: 'anna',
      action: 'link.forget',
      target: 'u1 and u2',
      reason: body.reason,
    });
    const again = await cli(tokens.admin, 'links', 'forget', 'u1', 'u3', '--reason', 'gone, too');
    expect([again.exit, again.stdout]).toEqual([
      0,
      expect.stringContaining('u1 and u3 may be on different stores'),
    ]);
    expect((await cli(tokens.operator, 'links', 'forget', 'u1', 'u3', '--reason', 'x')).exit).toBe(7);
    expect((await rig.parts.links.page('', 10)).links).toEqual([]);
  });
});
