import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { NewStray } from '../../src/core/stray.ts';
import { type AdminRig, nothingDiffers, startAdmin, tokens } from '../support/admin.ts';
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

async function auditEntries() {
  return (await rig.audit.page(undefined, 100)).entries;
}

async function moveToApp(partition: string): Promise<void> {
  const attempt = `attempt of ${partition}`;
  const steps = [
    { kind: 'fence', to: 'app', attempt, fenceMs: 60_000 },
    { kind: 'commit', attempt },
    { kind: 'release', attempt },
  ] as const;
  for (const order of steps) {
    const { result } = await rig.parts.ledger.order({ partition, order, by: 'ops', reason: 'test' });
    expect(result).toBe('done');
  }
}

describe('who may call', () => {
  test('a call without a token is refused and told how to bring one', async () => {
    const answer = await rig.call('GET', '/v1/members', { token: null });
    expect(answer.status).toBe(401);
    expect(answer.headers.get('www-authenticate')).toBe('Bearer realm="onewriter"');
    expect(answer.headers.get('content-type')).toContain('application/problem+json');
    expect(answer.body).toMatchObject({ code: 'no-token', status: 401 });
  });

  test('a wrong token is refused, and the answer does not repeat it', async () => {
    const answer = await rig.call('GET', '/v1/members', { token: 'wrong-token-1' });
    expect(answer.status).toBe(401);
    expect(answer.headers.get('www-authenticate')).toContain('invalid_token');
    expect(answer.text).not.toContain('wrong-token-1');
  });

  test('a token that is configured by its hash is accepted', async () => {
    expect((await rig.call('GET', '/v1/members', { token: tokens.admin })).status).toBe(200);
  });

  test('a viewer reads, but orders nothing, and is told which role it takes', async () => {
    expect((await rig.call('GET', '/v1/flips', { token: tokens.viewer })).status).toBe(200);
    const body = { cohort: 'pilot', to: 'app', reason: 'try' };
    const refused = await rig.call('POST', '/v1/flips', { token: tokens.viewer, body });
    expect(refused.status).toBe(403);
    expect(refused.body).toMatchObject({ code: 'role-needed', role: 'operator' });
    expect(rig.desk.all.size).toBe(0);
  });

  test('an operator defines no cohort; an admin does', async () => {
    const body = { selection: { percent: 10, salt: 's' }, reason: 'first tenth' };
    expect((await rig.call('PUT', '/v1/cohorts/tenth', { body })).status).toBe(403);
    expect((await rig.call('PUT', '/v1/cohorts/tenth', { token: tokens.admin, body })).status).toBe(200);
    expect(rig.desk.made.map((cohort) => cohort.name)).toEqual(['tenth']);
  });
});

describe('what is not there', () => {
  test('an unknown path is 404 and a wrong method 405, both as problem documents', async () => {
    expect((await rig.call('GET', '/v1/nothing')).body).toMatchObject({ code: 'no-such-path', status: 404 });
    const wrong = await rig.call('POST', '/v1/members', { body: {} });
    expect(wrong.status).toBe(405);
    expect(wrong.headers.get('allow')).toBe('GET');
  });

  test.each([
    ['POST', '/v1/flips/f/approve'],
    ['POST', '/v1/flips/f/reject'],
    ['POST', '/v1/freeze'],
    ['POST', '/v1/unfreeze'],
  ])('%s %s says that it is not available yet', async (method, path) => {
    const answer = await rig.call(method, path, method === 'GET' ? {} : { body: {} });
    expect(answer.status).toBe(501);
    expect(answer.body).toMatchObject({ code: 'not-available-yet' });
  });

  test('an unknown cohort, flip or verification is 404 with its own code', async () => {
    const body = { cohort: 'nobody', to: 'app', reason: 'x' };
    expect((await rig.call('GET', '/v1/cohorts/nobody')).body).toMatchObject({ code: 'no-such-cohort' });
    expect((await rig.call('GET', '/v1/status?cohort=nobody')).body).toMatchObject({
      code: 'no-such-cohort',
    });
    const named = await rig.call('GET', '/v1/status?cohort=nobody');
    expect(named.body['detail']).toContain('Known cohorts: pilot, large.');
    const plan = await rig.call('POST', '/v1/plans', { body: { cohort: 'nobody', to: 'app' } });
    expect(plan).toMatchObject({ status: 404, body: { code: 'no-such-cohort' } });
    rig.desk.refusal = { refused: 'no-such-cohort', detail: 'none' };
    expect((await rig.call('POST', '/v1/flips', { body })).status).toBe(404);
    expect((await rig.call('GET', '/v1/flips/f')).body).toMatchObject({ code: 'no-such-flip' });
    const verification = await rig.call('GET', '/v1/verifications/v');
    expect(verification.body).toMatchObject({ code: 'no-such-verification' });
  });
});

describe('what a request must hold', () => {
  test.each([
    ['POST', '/v1/flips', { cohort: 'pilot', to: 'app' }],
    ['POST', '/v1/flips', { cohort: 'pilot', to: 'app', reason: '  ' }],
    ['POST', '/v1/flips/f/pause', {}],
    ['POST', '/v1/flips/f/resume', {}],
    ['POST', '/v1/flips/f/abort', { reason: '' }],
    ['POST', '/v1/partitions/import', [{ partition: 'u9' }]],
    ['PUT', '/v1/cohorts/tenth', { selection: { partitions: ['u1'] } }],
  ])(
    '%s %s without a reason is refused, naming the field, and changes nothing',
    async (method, path, body) => {
      const answer = await rig.call(method, path, { token: tokens.admin, body });
      expect(answer.status).toBe(400);
      expect(answer.body['problems']).toContainEqual(expect.objectContaining({ path: 'reason' }));
      expect(await auditEntries()).toEqual([]);
      expect(rig.desk.all.size).toBe(0);
      expect(await rig.parts.registry.count()).toBe(0);
    },
  );

  test('a cohort of no known form is told which forms there are', async () => {
    const put = async (body: object): Promise<string> => {
      const answer = await rig.call('PUT', '/v1/cohorts/next', { token: tokens.admin, body });
      expect(answer.status).toBe(400);
      return String(answer.body['detail']);
    };
    const reason = 'next ones';
    for (const selection of [undefined, ['u1'], { users: ['u1'] }]) {
      const detail = await put({ reason, ...(selection === undefined ? {} : { selection }) });
      for (const word of ['selection', 'partitions', 'percent', 'salt', 'where'])
        expect(detail).toContain(word);
    }
    expect(await put({ reason, selection: { percent: 5 } })).toContain('selection.salt: is missing');
  });

  test('every problem of a body is listed, not the first', async () => {
    const answer = await rig.call('POST', '/v1/flips', { body: { to: 'nowhere', surprise: 1 } });
    const problems = answer.body['problems'] as { path: string }[];
    expect(problems.map((problem) => problem.path)).toEqual(
      expect.arrayContaining(['cohort', 'to', 'reason']),
    );
  });

  test('a body that is no JSON, of another type, or larger than 1 MiB is refused', async () => {
    const broken = await rig.call('POST', '/v1/plans', { text: '{"cohort":' });
    expect(broken).toMatchObject({ status: 400, body: { code: 'invalid-request' } });
    const typed = await rig.call('POST', '/v1/plans', { text: 'cohort=pilot', type: 'text/plain' });
    expect(typed).toMatchObject({ status: 415, body: { code: 'unsupported-media-type' } });
    const large = await rig.call('POST', '/v1/plans', { body: { cohort: 'x'.repeat(1_100_000), to: 'app' } });
    expect(large).toMatchObject({ status: 413, body: { code: 'body-too-large' } });
  });
});

describe('partitions', () => {
  test('a user is explained: owner, epoch, cohorts, and that nothing ever touched it', async () => {
    await rig.parts.registry.note([{ partition: 'u1', attributes: { seats: 200 } }]);
    const { body } = await rig.call('GET', '/v1/explain?user=u1');
    expect(body).toMatchObject({ user: 'u1', partition: 'u1', owner: 'legacy', phase: 'open', epoch: 1 });
    expect(body).toMatchObject({ cohorts: ['pilot', 'large'], known: true, why: { version: 0 } });
  });

  test('a partition that moved is explained by its last transition', async () => {
    await moveToApp('u1');
    const { body } = await rig.call('GET', '/v1/explain?partition=u1');
    expect(body).toMatchObject({ owner: 'app', phase: 'open', epoch: 4, why: { version: 3 } });
  });

  test('explain wants a user or a partition, and not both', async () => {
    expect((await rig.call('GET', '/v1/explain')).status).toBe(400);
    expect((await rig.call('GET', '/v1/explain?user=u1&partition=u1')).status).toBe(400);
  });

  test('pages hold every partition once, those of the registry and those that moved', async () => {
    await rig.parts.registry.note(['u3', 'u1', 'u5', 'u4'].map((partition) => ({ partition })));
    await moveToApp('u2');
    const seen: string[] = [];
    let cursor = '';
    do {
      const { body } = await rig.call('GET', `/v1/partitions?limit=2${cursor}`);
      seen.push(...(body['partitions'] as { partition: string }[]).map((entry) => entry.partition));
      cursor = typeof body['next'] === 'string' ? `&cursor=${body['next']}` : '';
    } while (cursor !== '');
    expect(seen).toEqual(['u1', 'u2', 'u3', 'u4', 'u5']);
    expect((await rig.call('GET', '/v1/partitions/u2')).body).toMatchObject({ owner: 'app' });
    expect((await rig.call('GET', '/v1/partitions/u9')).status).toBe(404);
  });

  test('an import takes an array, an object with its reason, and NDJSON', async () => {
    const array = [{ partition: 'u1', attributes: { seats: 5 } }, { partition: 'u2' }];
    const first = await rig.call('POST', '/v1/partitions/import?reason=crm', { body: array });
    expect(first.body).toEqual({ imported: 2, known: 2, complete: false });
    await rig.call('POST', '/v1/partitions/import', {
      body: { reason: 'crm', partitions: [{ partition: 'u3' }] },
    });
    const text = '{"partition":"u3"}\n\n{"partition":"u4"}\n';
    const type = 'application/x-ndjson';
    const last = await rig.call('POST', '/v1/partitions/import?reason=crm', { text, type });
    expect(last.body).toEqual({ imported: 2, known: 4, complete: false });
    expect((await auditEntries())[0]).toMatchObject({
      actor: 'olga',
      action: 'partitions.import',
      reason: 'crm',
    });
    const bad = await rig.call('POST', '/v1/partitions/import?reason=crm', {
      text: '{"partition":"u9"}\n{',
      type,
    });
    expect(bad.body['problems']).toEqual([{ path: 'line 2', message: 'is not JSON' }]);
    expect(await rig.parts.registry.count()).toBe(4);
  });
});

describe('cohorts', () => {
  test('a cohort is counted by owner and phase, and lists its members', async () => {
    await moveToApp('u1');
    const { body } = await rig.call('GET', '/v1/cohorts/pilot');
    expect(body).toMatchObject({
      counts: { total: 2, byOwner: { legacy: 1, app: 1 }, writes: { app: 1, fenced: 0, legacy: 1 } },
      members: [
        { partition: 'u1', owner: 'app' },
        { partition: 'u2', owner: 'legacy' },
      ],
    });
    const all = await rig.call('GET', '/v1/cohorts');
    expect((all.body['cohorts'] as { name: string }[]).map((cohort) => cohort.name)).toEqual([
      'large',
      'pilot',
    ]);
  });

  test('a fenced partition counts as fenced, with the age of its fence', async () => {
    const order = { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 60_000 } as const;
    await rig.parts.ledger.order({ partition: 'u1', order, by: 'ops', reason: 'test' });
    const { body } = await rig.call('GET', '/v1/status?cohort=pilot');
    expect(body).toMatchObject({ counts: { total: 2, writes: { app: 0, fenced: 1, legacy: 1 } } });
  });

  test('a cohort of the file cannot be redefined', async () => {
    const body = { selection: { partitions: ['u7'] }, reason: 'mine' };
    const answer = await rig.call('PUT', '/v1/cohorts/pilot', { token: tokens.admin, body });
    expect(answer).toMatchObject({ status: 409, body: { code: 'cohort-from-file' } });
    expect(await auditEntries()).toEqual([]);
  });
});

describe('flips', () => {
  test('a flip is accepted with its id, and stands in the audit log with who and why', async () => {
    const body = { cohort: 'pilot', to: 'app', reason: 'first users' };
    const answer = await rig.call('POST', '/v1/flips', { body });
    expect(answer.status).toBe(202);
    expect(answer.body).toMatchObject({ id: 'flip-1', state: 'running', by: 'olga', total: 2 });
    const [entry] = await auditEntries();
    expect(entry).toMatchObject({
      actor: 'olga',
      action: 'flip.start',
      target: 'flip-1',
      reason: 'first users',
    });
    expect(entry).toMatchObject({ before: null, after: { cohort: 'pilot', state: 'running' } });
  });

  test('a rollback is a flip to legacy, with an action of its own in the audit log', async () => {
    const body = { cohort: 'pilot', reason: 'the app is wrong', confirm: 'pilot' };
    const answer = await rig.call('POST', '/v1/rollbacks', { body });
    expect(answer).toMatchObject({ status: 202, body: { cohort: 'pilot', to: 'legacy', by: 'olga' } });
    const entry = { action: 'rollback.start', target: 'flip-1', reason: 'the app is wrong' };
    expect(await auditEntries()).toMatchObject([entry]);
  });

  test('a rollback that was confirmed with another name is refused, and starts nothing', async () => {
    const body = { cohort: 'pilot', reason: 'r', confirm: 'large' };
    const answer = await rig.call('POST', '/v1/rollbacks', { body });
    expect(answer).toMatchObject({ status: 422, body: { code: 'not-confirmed' } });
    expect(rig.desk.all.size).toBe(0);
    const denied = await rig.call('POST', '/v1/rollbacks', { body, token: tokens.viewer });
    expect(denied).toMatchObject({ status: 403, body: { code: 'role-needed' } });
  });

  test('pausing and resuming keep the state before and after', async () => {
    await rig.call('POST', '/v1/flips', { body: { cohort: 'pilot', to: 'app', reason: 'go' } });
    rig.desk.then = {};
    const paused = await rig.call('POST', '/v1/flips/flip-1/pause', { body: { reason: 'lunch' } });
    expect(paused.body).toMatchObject({ state: 'paused' });
    await rig.call('POST', '/v1/flips/flip-1/resume', { body: { reason: 'back' } });
    await rig.call('POST', '/v1/flips/flip-1/abort', { body: { reason: 'enough' } });
    const entries = (await auditEntries()).toReversed().slice(1);
    expect(entries.map(({ action, before, after }) => [action, before, after])).toMatchObject([
      ['flip.pause', { state: 'running' }, { state: 'paused' }],
      ['flip.resume', { state: 'paused' }, { state: 'running' }],
      ['flip.abort', { state: 'running' }, { state: 'aborted' }],
    ]);
  });

  test.each([
    ['stale-plan', 409],
    ['no-such-plan', 404],
    ['nothing-can-move', 422],
    ['no-clean-way-back', 422],
  ] as const)('the desk refuses with %s: %d, and the audit log stays empty', async (refused, status) => {
    rig.desk.refusal = {
      refused,
      detail: 'because',
      blockers: [{ code: 'no-members', detail: 'start a proxy' }],
      blocked: [{ partition: 'u1', code: 'reserved', detail: 'wait' }],
    };
    const body = { cohort: 'pilot', to: 'app', reason: 'go', planId: 'p' };
    const answer = await rig.call('POST', '/v1/flips', { body });
    expect(answer.status).toBe(status);
    expect(answer.body).toMatchObject({
      code: refused,
      blockers: [{ code: 'no-members' }],
      blocked: [{ code: 'reserved' }],
    });
    expect(await auditEntries()).toEqual([]);
  });

  test('say page by page what each of their partitions went through', async () => {
    rig.desk.reportOf = (partition) =>
      partition === 'u1'
        ? {
            ...{ outcome: 'moved', attempts: 2, pauseMs: 7, stepsMs: { fencing: 1.5 } },
            proof: { recordsCompared: 3, recordsCopied: 0, passes: 1 },
            lastFailure: { code: 'write-in-doubt', detail: 'it settles soon' },
          }
        : { outcome: 'pending', attempts: 0 };
    const { body } = await rig.call('POST', '/v1/flips', {
      body: { cohort: 'pilot', to: 'app', reason: 'pilot week' },
    });
    const path = `/v1/flips/${String(body['id'])}/partitions`;
    const first = await rig.call('GET', `${path}?limit=1`, { token: tokens.viewer });
    expect(first.body['partitions']).toEqual([{ partition: 'u1', ...rig.desk.reportOf('u1') }]);
    const second = await rig.call('GET', `${path}?limit=1&cursor=${String(first.body['next'])}`);
    expect(second.body).toEqual({ partitions: [{ partition: 'u2', outcome: 'pending', attempts: 0 }] });
    const unknown = await rig.call('GET', '/v1/flips/none/partitions');
    expect([unknown.status, unknown.body['code']]).toEqual([404, 'no-such-flip']);
  });

  test('an order in the wrong state is 409', async () => {
    await rig.call('POST', '/v1/flips', { body: { cohort: 'pilot', to: 'app', reason: 'go' } });
    rig.desk.refusal = { refused: 'wrong-state', detail: 'it has ended' };
    const answer = await rig.call('POST', '/v1/flips/flip-1/pause', { body: { reason: 'x' } });
    expect(answer).toMatchObject({ status: 409, body: { code: 'wrong-state' } });
  });
});

describe('verifications', () => {
  async function verified(body: object) {
    const started = await rig.call('POST', '/v1/verifications', { body });
    expect(started.status).toBe(202);
    return until('the verification ends', async () => {
      const { body: now } = await rig.call('GET', `/v1/verifications/${String(started.body['id'])}`);
      return now['state'] === 'running' ? undefined : now;
    });
  }

  test('equal sides are found equal', async () => {
    const found = await verified({ cohort: 'pilot' });
    expect(found).toMatchObject({ state: 'done', partitions: 2, compared: 2, records: 4 });
    expect(found).toMatchObject({ differences: { missing: 0, extra: 0, changed: 0 }, problems: [] });
  });

  test('a repair needs a reason, and stands in the audit log; a comparison does not', async () => {
    const body = { cohort: 'pilot', repair: true };
    const refused = await rig.call('POST', '/v1/verifications', { body });
    expect(refused.status).toBe(400);
    expect(refused.body['problems']).toContainEqual(expect.objectContaining({ path: 'reason' }));
    await verified({ cohort: 'pilot' });
    expect(await auditEntries()).toEqual([]);
    const { id } = await verified({ ...body, reason: 'after the outage' });
    expect(await auditEntries()).toMatchObject([
      { action: 'verification.repair', target: id, reason: 'after the outage', actor: 'olga' },
    ]);
  });

  test('are listed newest first, and cancelled by name', async () => {
    const first = await verified({ cohort: 'pilot' });
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    rig.compare = async (partition) => {
      await held;
      return nothingDiffers(partition);
    };
    const { body: second } = await rig.call('POST', '/v1/verifications', { body: { cohort: 'pilot' } });
    const { body: all } = await rig.call('GET', '/v1/verifications');
    expect(all['verifications']).toMatchObject([{ id: second['id'] }, { id: first['id'] }]);
    const path = `/v1/verifications/${String(second['id'])}/cancel`;
    expect((await rig.call('POST', path, { body: {} })).status).toBe(400);
    const cancelled = await rig.call('POST', path, { body: { reason: 'too slow' } });
    expect(cancelled.body).toMatchObject({ id: second['id'], state: 'cancelled' });
    release();
    expect(await auditEntries()).toMatchObject([
      { action: 'verification.cancel', reason: 'too slow', before: { state: 'running' } },
    ]);
    const none = await rig.call('POST', '/v1/verifications/none/cancel', { body: { reason: 'x' } });
    expect(none.body).toMatchObject({ code: 'no-such-verification' });
  });

  test('what differs is counted, with examples that name fields and hold no values', async () => {
    rig.compare = (partition) => ({
      partition,
      ownerRecords: 1,
      copyRecords: 1,
      differences: [
        {
          difference: 'changed',
          copy: { kind: 'appointment', id: 'a1', fields: { title: 'a secret title' } },
          fields: [{ field: 'title', owner: 'a secret title', copy: 'another' }],
        },
      ],
      problems: [],
    });
    const found = await verified({ cohort: 'pilot', sample: 1 });
    expect(found).toMatchObject({
      state: 'done',
      partitions: 1,
      sampledFrom: 2,
      differences: { changed: 1 },
    });
    expect(JSON.stringify(found)).toContain('"fields":["title"]');
    expect(JSON.stringify(found)).not.toContain('secret title');
  });

  test('a partition that cannot be compared makes the verification fail, not disappear', async () => {
    rig.compare = (partition) => Promise.reject(new Error(`no list for ${partition}`));
    const found = await verified({ cohort: 'pilot' });
    expect(found).toMatchObject({ state: 'failed', compared: 0 });
    expect(found['problems']).toHaveLength(2);
  });
});

describe('strays', () => {
  const stray: Omit<NewStray, 'record' | 'foundAtMs'> = {
    ...{ store: 'legacy', owner: 'app', change: 'changed' },
    ...{ partition: 'u1', kind: 'appointment', epoch: 4 },
    ...{ digest: 'abc', holds: '{"title":"secret"}', ownerHolds: '{}' },
  };

  test('are listed without what they hold, shown, exported and resolved by name', async () => {
    for (const at of [1, 2, 3]) await rig.strays.add({ ...stray, record: `r${at}`, foundAtMs: at });
    const first = await rig.call('GET', '/v1/strays?limit=2', { token: tokens.viewer });
    expect(first.body['strays']).toMatchObject([{ record: 'r1', state: 'open' }, { record: 'r2' }]);
    expect(first.text).not.toContain('secret');
    const rest = await rig.call('GET', `/v1/strays?limit=2&cursor=${String(first.body['next'])}`);
    expect(rest.body).toMatchObject({ strays: [{ record: 'r3' }] });
    const [{ id }] = first.body['strays'] as [{ id: string }];
    expect((await rig.call('GET', `/v1/strays/${id}`, { token: tokens.viewer })).status).toBe(403);
    expect((await rig.call('GET', `/v1/strays/${id}`)).body).toMatchObject({ holds: stray.holds });
    const metrics = await rig.call('GET', '/metrics', { token: null });
    expect(metrics.text).toContain('onewriter_strays_open{what="stray"} 3');
    expect((await rig.call('POST', `/v1/strays/${id}/resolve`, { body: { reason: 'x' } })).status).toBe(400);
    const body = { reason: 'put back', how: 'repaired' };
    const resolved = await rig.call('POST', `/v1/strays/${id}/resolve`, { body });
    expect(resolved.body).toMatchObject({ state: 'resolved', resolved: { how: 'repaired', by: 'olga' } });
    expect(await auditEntries()).toMatchObject([{ action: 'stray.resolve', target: id, reason: 'put back' }]);
    const open = await rig.call('GET', '/v1/strays?state=open');
    expect(open.body).toMatchObject({ strays: [{ record: 'r2' }, { record: 'r3' }] });
    const exported = (await rig.call('GET', '/v1/strays/export')).text.trimEnd().split('\n');
    expect(exported.map((line) => (JSON.parse(line) as { record: string }).record)).toEqual([
      'r1',
      'r2',
      'r3',
    ]);
    const none = await rig.call('POST', '/v1/strays/none/resolve', { body });
    expect(none).toMatchObject({ status: 404, body: { code: 'no-such-stray' } });
  });
});

describe('explain after a restore of the ledger', () => {
  test('says who ordered it and why, from the entry of just that restore', async () => {
    const changedAtMs = await rig.parts.ledger.nowMs();
    const record = { phase: 'open', owner: 'app', epoch: 14, version: 1_007, transitionId: 'r', changedAtMs };
    await rig.redis.hset('{onewriter}:partitions', 'u1', JSON.stringify(record));
    const before = await rig.call('GET', '/v1/explain?partition=u1');
    expect(before.body['why']).toMatchObject({ sentence: expect.stringMatching(/^Transition 1007 at /) });
    const entry = { actor: 'anna', action: 'ledger.restore', target: 'from member', before: null };
    const after = { restored: true, version: 1_007 };
    await rig.audit.append({ ...entry, reason: 'Redis was emptied', after });
    await rig.audit.append({ ...entry, reason: 'another', after: { ...after, version: 2_000 } });
    const { body } = await rig.call('GET', '/v1/explain?partition=u1');
    const at = new Date(changedAtMs).toISOString();
    expect(body['why']).toMatchObject({
      ...{ by: 'anna', reason: 'Redis was emptied' },
      sentence: `Restored from member at ${at}, ordered by anna: Redis was emptied`,
    });
  });
});

describe('writes in doubt', () => {
  const doubt = { store: 'legacy', epoch: 1, method: 'POST', path: '/a', why: 'timed out' } as const;

  test('are shown by explain and status, stop a fence, and are resolved by an operator with a reason', async () => {
    const member = await rig.parts.join({ settleMs: 600_000 });
    await until('the member admits', () => member.admit('other').verdict === 'admit');
    const admission = member.admit('u1');
    if (admission.verdict !== 'admit') throw new Error('not admitted');
    member.end(admission.ticket, 'in-doubt');
    member.note({ ...doubt, partition: 'u1' });
    await until('the note', async () => (await rig.parts.doubts.unsettled()).length === 1);
    await rig.parts.doubts.note({ ...doubt, partition: 'u2', member: 'm', settleMs: 0 });

    const explained = await rig.call('GET', '/v1/explain?user=u1');
    expect(explained.body['inDoubt']).toMatchObject([{ ...doubt, member: member.id }]);
    const status = await rig.call('GET', '/v1/status');
    expect(status.body['inDoubt']).toEqual({ writes: 1, partitions: ['u1'] });
    expect(await drainAnswer('u1', 'first')).toBe('in-doubt');

    const path = '/v1/partitions/u1/resolve';
    expect((await rig.call('POST', path, { body: {} })).status).toBe(400);
    const denied = await rig.call('POST', path, { token: tokens.viewer, body: { reason: 'looked' } });
    expect(denied.status).toBe(403);
    const done = await rig.call('POST', path, { body: { reason: 'looked at the platform' } });
    expect(done).toMatchObject({ status: 200, body: { partition: 'u1', keysFreed: 0 } });
    expect(done.body['resolved']).toMatchObject([
      { partition: 'u1', resolved: { by: 'olga', reason: 'looked at the platform' } },
    ]);
    expect((await rig.call('GET', '/v1/explain?user=u1')).body['inDoubt']).toEqual([]);
    expect(await drainAnswer('u1', 'second')).toBe('drained');
    const audit = await rig.call('GET', '/v1/audit');
    expect(audit.body['entries']).toMatchObject([{ action: 'partition.resolve', target: 'u1' }]);
  });

  /** Fences the partition, and says what the member answers; opens it again. */
  async function drainAnswer(partition: string, attempt: string): Promise<string> {
    const { ledger, feed } = rig.parts;
    let answer = '';
    const stop = feed.onAcknowledgement((heard) => {
      if (heard.attempt === attempt) ({ answer } = heard);
    });
    const order = { kind: 'fence', to: 'app', attempt, fenceMs: 60_000 } as const;
    await ledger.order({ partition, order, by: 'test', reason: 'test' });
    await until('the acknowledgement', () => answer !== '');
    await ledger.order({ partition, order: { kind: 'abort', attempt }, by: 'test', reason: 'test' });
    stop();
    return answer;
  }
});

describe('how things stand', () => {
  test('status, sync and members answer', async () => {
    await rig.parts.registry.note([{ partition: 'u1' }, { partition: 'u2' }]);
    await rig.parts.join();
    const { body } = await rig.call('GET', '/v1/status');
    expect(body).toMatchObject({ lagMs: 120, deadLetters: 3, members: 1, counts: { total: 2 } });
    expect((await rig.call('GET', '/v1/sync')).body).toMatchObject({ lagMs: 120, deadLetters: 3 });
    const members = await rig.call('GET', '/v1/members');
    expect(members.body['members']).toMatchObject([{ inFlight: 0, inDoubt: 0 }]);
  });

  test('how far a first copy is, and when it should end', async () => {
    const shared = { owner: 'legacy', restarts: 0, startedMs: 1_000, total: 4_000 } as const;
    rig.backfills = [
      {
        ...{ ...shared, kind: 'note', phase: 'copying', records: 1_000, written: 900, rate: 100 },
        rateFrom: { ms: 11_000, records: 1_000 },
      },
      {
        ...{ ...shared, kind: 'item', phase: 'done', records: 4_000, written: 4_000, endedMs: 9_000 },
        rateFrom: { ms: 1_000, records: 0 },
      },
    ];
    expect((await rig.call('GET', '/v1/sync')).body['backfills']).toEqual([
      {
        ...{ ...shared, kind: 'note', phase: 'copying', records: 1_000, written: 900 },
        ...{ perSecond: 100, endsMs: 41_000 },
      },
      {
        ...{ ...shared, kind: 'item', phase: 'done', records: 4_000, written: 4_000 },
        ...{ perSecond: null, endsMs: 9_000 },
      },
    ]);
    const { text } = await rig.call('GET', '/metrics', { token: null });
    expect(text).toContain('onewriter_backfill_running{owner="legacy",kind="note"} 1\n');
    expect(text).toContain('onewriter_backfill_records{owner="legacy",kind="item"} 4000\n');
    expect(text).toContain('onewriter_webhook_records_waiting 2\n');
    expect(text).toContain('onewriter_webhook_deliveries{store="legacy",outcome="double"} 3\n');
    expect((await rig.call('GET', '/v1/sync')).body['webhooks']).toMatchObject({ waiting: 2 });
  });

  test('deletes that are held back are shown, counted, and agreed to by an operator with a reason', async () => {
    const brake = {
      ...{ partition: 'u/1', deletes: 30, limit: 20, records: 31 },
      ...({ store: 'legacy', first: ['item 1'], atMs: 1_700_000_000_000 } as const),
    };
    rig.brakes = [brake];
    expect((await rig.call('GET', '/v1/sync/brakes')).body).toEqual({ brakes: [brake], onAll: null });
    expect((await rig.call('GET', '/v1/sync')).body['deleteBrakes']).toBe(1);
    expect((await rig.call('GET', '/metrics', { token: null })).text).toContain(
      'onewriter_delete_brakes 1\n',
    );
    const release = (partition: string, options: object = {}) =>
      rig.call('POST', `/v1/sync/brakes/${encodeURIComponent(partition)}/release`, {
        body: { reason: 'they were really deleted' },
        ...options,
      });
    expect(await release('u/1', { token: tokens.viewer })).toMatchObject({ status: 403 });
    expect(await release('u/1', { body: {} })).toMatchObject({ status: 400 });
    expect(await release('u/2')).toMatchObject({ status: 404, body: { code: 'no-such-brake' } });
    expect(await release('u/1')).toMatchObject({ status: 200, body: brake });
    const [row] = (await rig.audit.page(undefined, 1)).entries;
    expect(row).toMatchObject({ action: 'sync.release', target: 'u/1', reason: 'they were really deleted' });
  });

  test('deletes that are held back over all partitions are, too', async () => {
    const onAll = {
      ...{ deletes: 30, lately: 190, limit: 200, copies: 9_000, atMs: 1_700_000_000_000 },
      ...{ first: ['u1 item 1'], stores: { legacy: true, app: true } },
    };
    const answer = { ...onAll, stores: ['legacy', 'app'] };
    const release = (options: object = {}) =>
      rig.call('POST', '/v1/sync/brakes/release', { body: { reason: 'a clean-up' }, ...options });
    expect(await release()).toMatchObject({ status: 404, body: { code: 'no-such-brake' } });
    const metrics = async () => (await rig.call('GET', '/metrics', { token: null })).text;
    rig.brakeOnAll = onAll;
    expect(await metrics()).toContain('onewriter_deletes_held 1\n');
    expect((await rig.call('GET', '/v1/sync/brakes')).body).toEqual({ brakes: [], onAll: answer });
    expect((await rig.call('GET', '/v1/sync')).body['deletesHeld']).toBe(true);
    expect(await release({ token: tokens.viewer })).toMatchObject({ status: 403 });
    expect(await release({ body: {} })).toMatchObject({ status: 400 });
    expect(await release()).toMatchObject({ status: 200, body: answer });
    const [row] = (await rig.audit.page(undefined, 1)).entries;
    expect(row).toMatchObject({ action: 'sync.release', target: 'all partitions', reason: 'a clean-up' });
  });

  test('health, readiness and metrics are open and tell no secret', async () => {
    await moveToApp('u1');
    expect((await rig.call('GET', '/healthz', { token: null })).status).toBe(200);
    expect((await rig.call('GET', '/readyz', { token: null })).status).toBe(200);
    expect((await rig.call('GET', '/', { token: null })).text).toContain('/v1');
    const metrics = await rig.call('GET', '/metrics', { token: null });
    expect(metrics.text).toContain('onewriter_partitions{owner="app",phase="open"} 1\n');
    expect(metrics.text).toContain('onewriter_copy_lag_seconds 0.12\n');
    expect(metrics.text).toContain('# TYPE onewriter_members gauge\n');
    for (const token of Object.values(tokens)) expect(metrics.text).not.toContain(token);
  });

  test('the OpenAPI document describes every call that is served', async () => {
    const { body } = await rig.call('GET', '/v1/openapi.json', { token: tokens.viewer });
    expect(body['openapi']).toBe('3.1.0');
    const paths = body['paths'] as Record<string, Record<string, { requestBody?: unknown }>>;
    expect(Object.keys(paths)).toEqual(
      expect.arrayContaining(['/v1/explain', '/v1/flips/{id}/pause', '/v1/cohorts/{name}', '/v1/rollbacks']),
    );
    expect(JSON.stringify(paths['/v1/flips']?.['post']?.requestBody)).toContain('"reason"');
    expect(JSON.stringify(paths['/v1/partitions']?.['get'])).toContain('"limit"');
  });
});

describe('when Redis is away', () => {
  test('the process is healthy but not ready, and calls say that the ledger does not answer', async () => {
    const own = await startRedis();
    const alone = await startAdmin(own);
    try {
      await alone.closeOther();
      await own.stop();
      expect((await alone.call('GET', '/healthz', { token: null })).status).toBe(200);
      expect((await alone.call('GET', '/readyz', { token: null })).status).toBe(503);
      const answer = await alone.call('GET', '/v1/members');
      expect(answer).toMatchObject({ status: 503, body: { code: 'ledger-unreachable' } });
      expect(answer.text).not.toContain('.ts');
    } finally {
      await alone.stop();
    }
  });
});
