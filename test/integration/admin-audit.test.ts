import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { AuditEntry } from '../../src/admin/audit.ts';
import { type AdminRig, startAdmin, tokens } from '../support/admin.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: AdminRig;

beforeAll(async () => {
  server = await startRedis();
});
afterAll(() => server.stop());
beforeEach(async () => {
  rig = await startAdmin(server);
});
afterEach(() => rig.stop());

function entry(action: string) {
  return { actor: 'olga', action, target: 't', reason: 'r', before: null, after: { n: 1 } };
}

/** Follows /v1/events; `ids` grows as they come. */
async function watch(lastEventId?: string) {
  const ending = new AbortController();
  const response = await fetch(`${rig.url}/v1/events`, {
    headers: {
      authorization: `Bearer ${tokens.viewer}`,
      ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
    },
    signal: ending.signal,
  });
  const ids: string[] = [];
  const actions: string[] = [];
  const reading = (async () => {
    let text = '';
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? []) {
      text += decoder.decode(chunk as Uint8Array, { stream: true });
      const events = text.split('\n\n');
      text = events.pop() ?? '';
      for (const event of events) {
        const id = /^id: (.+)$/m.exec(event)?.[1];
        const data = /^data: (.+)$/m.exec(event)?.[1];
        if (id === undefined || data === undefined) continue;
        ids.push(id);
        actions.push((JSON.parse(data) as AuditEntry).action);
      }
    }
  })().catch(() => undefined);
  const stop = async (): Promise<void> => {
    ending.abort();
    await reading;
  };
  return { response, ids, actions, stop };
}

describe('the audit log', () => {
  test('pages go from the newest to the oldest and hold every entry once', async () => {
    for (const action of ['a', 'b', 'c', 'd', 'e']) await rig.audit.append(entry(action));
    const seen: string[] = [];
    let cursor = '';
    do {
      const { body } = await rig.call('GET', `/v1/audit?limit=2${cursor}`);
      seen.push(...(body['entries'] as AuditEntry[]).map(({ action }) => action));
      cursor = typeof body['next'] === 'string' ? `&cursor=${body['next']}` : '';
    } while (cursor !== '');
    expect(seen).toEqual(['e', 'd', 'c', 'b', 'a']);
  });

  test('a cursor that is none is refused', async () => {
    expect((await rig.call('GET', '/v1/audit?cursor=x')).status).toBe(400);
  });

  test('a follower gets what came before it and what comes after it, in order and once', async () => {
    const first = await rig.audit.append(entry('a'));
    await rig.audit.append(entry('b'));
    const seen: string[] = [];
    const leave = await rig.audit.follow(first.id, ({ action }) => seen.push(action));
    await until('the past', () => seen.length === 1);
    for (const action of ['c', 'd', 'e']) await rig.audit.append(entry(action));
    await until('the news', () => seen.length === 4);
    leave();
    expect(seen).toEqual(['b', 'c', 'd', 'e']);
  });
});

describe('the event stream', () => {
  test('a client without a last id gets what happens from now on', async () => {
    await rig.audit.append(entry('old'));
    const watching = await watch();
    expect(watching.response.headers.get('content-type')).toContain('text/event-stream');
    await rig.call('POST', '/v1/flips', { body: { cohort: 'pilot', to: 'app', reason: 'go' } });
    await until('the event', () => watching.actions.length > 0);
    await watching.stop();
    expect(watching.actions).toEqual(['flip.start']);
  });

  test('a client that was cut off resumes after the last event it saw', async () => {
    const first = await watch();
    await rig.audit.append(entry('a'));
    await until('the first event', () => first.ids.length === 1);
    await first.stop();
    await rig.audit.append(entry('b'));
    await rig.audit.append(entry('c'));
    const second = await watch(first.ids[0]);
    await until('what was missed', () => second.actions.length === 2);
    await rig.audit.append(entry('d'));
    await until('what is new', () => second.actions.length === 3);
    await second.stop();
    expect(second.actions).toEqual(['b', 'c', 'd']);
  });

  test('a last id that is none is refused', async () => {
    const watching = await watch('yesterday');
    expect(watching.response.status).toBe(400);
    await watching.stop();
  });

  test('a client without a token follows nothing', async () => {
    expect((await rig.call('GET', '/v1/events', { token: null })).status).toBe(401);
  });
});
