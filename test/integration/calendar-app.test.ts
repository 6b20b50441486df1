/** The calendar example's new application, embedded and on a PostgreSQL server, behind the real guard. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startApp } from '../../examples/calendar/app.ts';
import type { Listening } from '../../examples/calendar/network.ts';
import { ask, askSigned, calendarSecret, type CalendarAnswer, guardCall, hour } from '../support/calendar.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

describe.each(['embedded', 'server'])('the application with its database %s', (kind) => {
  let app: Listening;
  let postgres: TestPostgres | undefined;

  beforeAll(async () => {
    if (kind === 'server') postgres = await startPostgres();
    app = await startApp({ secret: calendarSecret, databaseUrl: postgres?.url });
  }, 60_000);

  afterAll(async () => {
    await app?.close();
    await postgres?.stop();
  });

  const user = (name: string, epoch: number) =>
    ({ user: name, partition: name, epoch, access: 'write' }) as const;
  const create = (name: string, epoch: number, body: unknown): Promise<CalendarAnswer> =>
    askSigned(app.url, user(name, epoch), { method: 'POST', path: '/api/appointments', body });
  const copy = (name: string, epoch: number, id: string, body: unknown): Promise<CalendarAnswer> =>
    askSigned(
      app.url,
      { user: '', partition: name, epoch, access: 'copy' },
      { method: body === undefined ? 'DELETE' : 'PUT', path: `/api/appointments/${id}`, body },
    );
  const list = async (name: string): Promise<unknown[]> => {
    const claims = { user: name, partition: name, epoch: 1, access: 'read' } as const;
    return (await askSigned(app.url, claims, { path: '/api/appointments' })).body['data'] as unknown[];
  };

  test('refuses a write and a read that the proxy did not sign', async () => {
    const request = { path: '/api/appointments', headers: { 'x-user': 'u1' } };
    const written = await ask(app.url, { ...request, method: 'POST', body: hour('a', 1) });
    expect(written).toMatchObject({ status: 403, body: { code: 'unsigned' } });
    expect(await ask(app.url, request)).toMatchObject({ status: 403, body: { code: 'unsigned' } });
  });

  test('refuses a user’s write for a partition that legacy owns, and takes it after the seal', async () => {
    expect(await create('moving', 1, hour('a', 1))).toMatchObject({
      status: 409,
      body: { code: 'legacy-owns' },
    });
    expect((await copy('moving', 1, 'L1', hour('before', 1))).status).toBe(200);
    const sealed = await guardCall(app.url, 'seal', 'moving', 2);
    expect(sealed).toMatchObject({
      status: 200,
      body: { epoch: 2, owner: 'app', closed: true, accept: true },
    });
    expect(await copy('moving', 2, 'L2', hour('late', 2))).toMatchObject({
      status: 409,
      body: { code: 'closed-epoch' },
    });
    expect((await create('moving', 4, hour('after', 3))).status).toBe(201);
    expect(await copy('moving', 4, 'L2', hour('late', 2))).toMatchObject({
      status: 409,
      body: { code: 'app-owns' },
    });
    expect(await list('moving')).toHaveLength(2);
  });

  test('refuses a user’s write of an epoch that an advance has ended', async () => {
    await guardCall(app.url, 'seal', 'leaving', 2);
    expect((await create('leaving', 4, hour('a', 1))).status).toBe(201);
    expect((await guardCall(app.url, 'advance', 'leaving', 5)).status).toBe(200);
    expect(await create('leaving', 4, hour('b', 2))).toMatchObject({
      status: 409,
      body: { code: 'stale-epoch' },
    });
    expect(await guardCall(app.url, 'advance', 'leaving', 4)).toMatchObject({
      status: 409,
      body: { code: 'stale-epoch', epoch: 5, accept: false },
    });
    expect((await create('leaving', 6, hour('b', 2))).status).toBe(201); // the handoff was aborted
  });

  test('the verdict changes nothing', async () => {
    const verdict = await guardCall(app.url, 'verdict', 'asked', 3, 'write');
    expect(verdict).toMatchObject({ status: 200, body: { epoch: 0, accept: false, code: 'legacy-owns' } });
    expect((await guardCall(app.url, 'verdict', 'asked', 3)).body['accept']).toBe(true);
    expect((await copy('asked', 1, 'L9', hour('x', 1))).status).toBe(200);
  });

  test('advance and seal are taken only from onewriter itself, and only for what was signed', async () => {
    expect((await guardCall(app.url, 'seal', 'forged', 2, 'write')).status).toBe(400);
    const path = '/.well-known/onewriter/guard/seal';
    const unsigned = await ask(app.url, { method: 'POST', path, body: { partition: 'forged', epoch: 2 } });
    expect(unsigned).toMatchObject({ status: 403, body: { code: 'unsigned' } });
    const claims = { user: '', partition: 'forged', epoch: 2, access: 'copy' } as const;
    for (const body of [{ partition: 'other', epoch: 2 }, { partition: 'forged', epoch: 9 }, [], undefined]) {
      expect((await askSigned(app.url, claims, { method: 'POST', path, body })).status).toBe(400);
    }
    const unknown = await askSigned(app.url, claims, { method: 'POST', path: `${path}s`, body: {} });
    expect(unknown.status).toBe(404);
    expect((await guardCall(app.url, 'verdict', 'forged', 0)).body).toMatchObject({
      epoch: 0,
      owner: 'legacy',
    });
  });

  test('refuses two appointments of one calendar at the same time', async () => {
    await guardCall(app.url, 'seal', 'busy', 2);
    const [first, second] = await Promise.all([
      create('busy', 4, hour('a', 1)),
      create('busy', 4, hour('b', 1)),
    ]);
    expect([first.status, second.status].toSorted((a, b) => a - b)).toEqual([201, 409]);
    expect([first, second].find(({ status }) => status === 409)?.body['code']).toBe('overlap');
    expect((await ask(app.url, { path: '/_overlaps' })).body).toEqual([]);
  });

  test('an overlap among copies is a finding, not a merge', async () => {
    expect((await copy('found', 1, 'L21', hour('a', 1))).status).toBe(200);
    expect(await copy('found', 1, 'L22', hour('b', 1))).toMatchObject({
      status: 409,
      body: { code: 'overlap' },
    });
  });

  test('a copy makes the record equal its original, also after a deletion, and sends no mail', async () => {
    expect((await copy('copied', 1, 'L31', hour('a', 1))).status).toBe(200);
    expect((await copy('copied', 1, 'L31', hour('b', 2))).body['title']).toBe('b');
    expect((await copy('copied', 1, 'L31', undefined)).status).toBe(204);
    expect((await copy('copied', 1, 'L31', undefined)).status).toBe(404);
    expect((await copy('copied', 1, 'L31', hour('c', 3))).body['deleted_at']).toBeNull();
    await guardCall(app.url, 'seal', 'copied', 2);
    await create('copied', 4, hour('own', 4));
    type Logged = { owner_id: string; mailed: boolean; hand: string };
    const log = (await ask(app.url, { path: '/_log' })).body as unknown as Logged[];
    const mailed = log
      .filter(({ owner_id }) => owner_id === 'copied')
      .map(({ hand, mailed }) => [hand, mailed]);
    expect(mailed).toEqual([...Array.from({ length: 4 }, () => ['copy', false]), ['user', true]]);
  });

  test('nobody reaches the record of another partition', async () => {
    await guardCall(app.url, 'seal', 'mine', 2);
    await guardCall(app.url, 'seal', 'yours', 2);
    const { body } = await create('yours', 4, hour('private', 1));
    const path = `/api/appointments/${String(body['id'])}`;
    const me = user('mine', 4);
    expect((await askSigned(app.url, me, { path })).status).toBe(404);
    expect((await askSigned(app.url, me, { method: 'PUT', path, body: hour('x', 1) })).status).toBe(404);
    expect((await askSigned(app.url, me, { method: 'DELETE', path })).status).toBe(404);
    expect((await askSigned(app.url, me, { path: '/api/appointments?owner=yours' })).status).toBe(403);
    const foreign = { ...hour('x', 1), owner_id: 'yours' };
    expect((await create('mine', 4, foreign)).status).toBe(403);
    expect((await copy('mine', 9, String(body['id']), hour('taken over', 1))).status).toBe(404);
  });

  test('a request without a user sees no more than its partition', async () => {
    const claims = { user: '', partition: 'mine', epoch: 4, access: 'read' } as const;
    const { body } = await askSigned(app.url, claims, { path: '/api/appointments' });
    expect(body['data']).toEqual([]);
    expect((await askSigned(app.url, claims, { path: '/api/appointments?owner=yours' })).status).toBe(403);
  });

  test('a request signed as a read cannot write', async () => {
    await guardCall(app.url, 'seal', 'reading', 2);
    const claims = { ...user('reading', 4), access: 'read' } as const;
    const request = { method: 'POST', path: '/api/appointments', body: hour('x', 1) };
    expect(await askSigned(app.url, claims, request)).toMatchObject({
      status: 403,
      body: { code: 'read-access' },
    });
  });

  test('onewriter’s own reads see every calendar, page by page', async () => {
    const claims = { user: '', partition: '', epoch: 0, access: 'read' } as const;
    const dump = (await ask(app.url, { path: '/_dump' })).body as unknown as { deleted_at: unknown }[];
    const ids = new Set<unknown>();
    let seen = 0;
    let cursor: string | null = '';
    while (cursor !== null) {
      const from = cursor === '' ? '' : `&cursor=${cursor}`;
      const path = `/api/appointments?limit=2&updated_since=2020-01-01T00:00:00Z${from}`;
      const { body } = await askSigned(app.url, claims, { path });
      for (const { id } of body['data'] as { id: string }[]) ids.add(id);
      seen += (body['data'] as unknown[]).length;
      cursor = body['next_cursor'] as string | null;
    }
    expect([seen, ids.size]).toEqual([dump.length, dump.length]);
  });

  test('shows its evidence only to direct callers', async () => {
    const forwarded = { 'x-forwarded-for': '10.0.0.1' };
    expect((await ask(app.url, { path: '/_dump', headers: forwarded })).status).toBe(404);
  });

  test('a body that is no appointment is refused', async () => {
    expect((await create('busy', 4, { title: 'x' })).status).toBe(400);
    expect((await create('busy', 4, { ...hour('x', 9), notes: 'x'.repeat(70_000) })).status).toBe(413);
  });
});
