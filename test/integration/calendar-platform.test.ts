/** The calendar example's old platform. */
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { afterEach, describe, expect, test } from '@jest/globals';
import { listen, type Listening } from '../../examples/calendar/network.ts';
import { type PlatformOptions, startPlatform } from '../../examples/calendar/platform.ts';
import { ask, hour } from '../support/calendar.ts';

const open: Listening[] = [];
const u1 = { 'x-user': 'u1' };
const u2 = { 'x-user': 'u2' };
const token = { authorization: 'Bearer legacy-token' };

afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

async function platform(options: Partial<PlatformOptions> = {}): Promise<string> {
  const started = await startPlatform(options);
  open.push(started);
  return started.url;
}

describe('the platform', () => {
  test('keeps what a user creates, moves and cancels', async () => {
    const url = await platform();
    const made = await ask(url, {
      method: 'POST',
      path: '/api/appointments',
      headers: u1,
      body: hour('a', 1),
    });
    expect(made).toMatchObject({ status: 201, body: { owner_id: 'u1', title: 'a', deleted_at: null } });
    const path = `/api/appointments/${String(made.body['id'])}`;
    const moved = await ask(url, { method: 'PUT', path, headers: u1, body: hour('b', 2) });
    expect(moved).toMatchObject({ status: 200, body: { id: made.body['id'], title: 'b' } });
    expect((await ask(url, { path, headers: u1 })).body).toEqual(moved.body);
    expect((await ask(url, { method: 'DELETE', path, headers: u1 })).status).toBe(204);
    expect((await ask(url, { path, headers: u1 })).status).toBe(404);
    expect((await ask(url, { method: 'PUT', path, headers: u1, body: hour('c', 3) })).status).toBe(404);
    const log = (await ask(url, { path: '/_log' })).body as unknown as { method: string; hand: string }[];
    expect(log.map(({ method, hand }) => `${hand} ${method}`)).toEqual([
      'user POST',
      'user PUT',
      'user DELETE',
    ]);
  });

  test('shows nobody the calendar of somebody else, and the token everything', async () => {
    const url = await platform({ users: 2, recordsPerUser: 1 });
    const list = (headers: Record<string, string>, query = '') =>
      ask(url, { path: `/api/appointments${query}`, headers });
    const [theirs] = (await list(u2)).body['data'] as { id: string }[];
    const path = `/api/appointments/${theirs?.id ?? ''}`;
    expect((await ask(url, { path, headers: u1 })).status).toBe(404);
    expect((await ask(url, { method: 'DELETE', path, headers: u1 })).status).toBe(404);
    expect((await list(u1, '?owner=u2')).status).toBe(403);
    expect((await list({})).status).toBe(401);
    expect((await list({ ...u1, authorization: 'Bearer wrong' })).status).toBe(401);
    expect((await list(token)).body['data']).toHaveLength(2);
  });

  test('pages through a list without missing or repeating a record, inclusive of `updated_since`', async () => {
    const url = await platform({ users: 3, recordsPerUser: 5 });
    const [first] = (await ask(url, { path: '/api/appointments?limit=1', headers: token })).body['data'] as [
      { id: string; updated_at: string },
    ];
    await ask(url, { method: 'DELETE', path: `/api/appointments/${first.id}`, headers: token });
    const ids: string[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const query = `updated_since=${first.updated_at}&limit=4${cursor === '' ? '' : `&cursor=${cursor}`}`;
      const { body } = await ask(url, { path: `/api/appointments?${query}`, headers: token });
      ids.push(...(body['data'] as { id: string }[]).map(({ id }) => id));
      cursor = body['next_cursor'] as string | null;
    }
    expect(ids).toHaveLength(15); // with the deleted one
    expect(new Set(ids).size).toBe(15);
    const live = await ask(url, { path: '/api/appointments?limit=200', headers: token });
    expect(live.body['data']).toHaveLength(14);
  });

  test('answers 429 with Retry-After over the rate of the token, and leaves users alone', async () => {
    const url = await platform({ tokenRate: 2 });
    const statuses: number[] = [];
    let limited: Response | undefined;
    for (let at = 0; at < 4; at += 1) {
      const answer = await fetch(`${url}/api/appointments`, { headers: token });
      statuses.push(answer.status);
      await answer.text();
      if (answer.status === 429) limited = answer;
      expect((await ask(url, { path: '/api/appointments', headers: u1 })).status).toBe(200);
    }
    expect(statuses).toContain(429);
    expect(limited?.headers.get('retry-after')).toBe('1');
  });

  test('an error of the platform comes before anything is changed', async () => {
    const url = await platform({ errorRate: 1 });
    const failed = await ask(url, {
      method: 'POST',
      path: '/api/appointments',
      headers: u1,
      body: hour('a', 1),
    });
    expect(failed.status).toBe(503);
    expect((await ask(url, { path: '/_dump' })).body).toEqual([]);
  });

  test('signs its webhooks', async () => {
    const received = Promise.withResolvers<{ signature: unknown; body: string }>();
    const server = createServer((request, response) => {
      let body = '';
      request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      request.on('end', () => {
        response.end();
        received.resolve({ signature: request.headers['x-calendar-signature'], body });
      });
    });
    const hook = await listen(server, 0);
    open.push(hook);
    const url = await platform({ webhook: hook.url, webhookSecret: 'shared' });
    await ask(url, { method: 'POST', path: '/api/appointments', headers: u1, body: hour('a', 1) });
    const { signature, body } = await received.promise;
    expect(signature).toBe(`sha256=${createHmac('sha256', 'shared').update(body).digest('hex')}`);
    expect(JSON.parse(body)).toMatchObject({ event: 'appointment.saved', owner_id: 'u1' });
  });

  test('shows its evidence only to direct callers', async () => {
    const url = await platform();
    const forwarded = { 'x-forwarded-for': '10.0.0.1' };
    expect((await ask(url, { path: '/_dump', headers: forwarded })).status).toBe(404);
  });

  test('refuses a body that is no appointment', async () => {
    const url = await platform();
    const post = (body: unknown) =>
      ask(url, { method: 'POST', path: '/api/appointments', headers: u1, body });
    expect((await post({ title: 'x' })).status).toBe(400);
    expect((await post({ ...hour('x', 1), ends_at: '2020-01-01T00:00:00Z' })).status).toBe(400);
    expect((await post({ ...hour('x', 1), notes: 'x'.repeat(70_000) })).status).toBe(400);
  });
});
