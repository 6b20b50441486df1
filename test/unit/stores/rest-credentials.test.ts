import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { OAuth2Config } from '../../../src/config/rest-auth.ts';
import { type Credentials, credentialsOf } from '../../../src/stores/rest/credentials.ts';
import type { RestStore } from '../../../src/stores/rest/store.ts';
import { type HttpPlatform, startHttpPlatform } from '../../support/http-platform.ts';
import { failureOf, idsOf, never, restStoreOf } from '../../support/rest-client.ts';

const record = {
  list: { path: '/items' },
  get: { path: '/items/{id}' },
  put: { path: '/items/{id}' },
  delete: { path: '/items/{id}' },
  id: 'id',
  partition: 'owner',
};
const stamp = { partition: 'ann', epoch: 1 };
const ends: (() => Promise<void>)[] = [];
let platform: HttpPlatform;

beforeEach(async () => {
  platform = await startHttpPlatform(() => ({ body: [] }));
  ends.push(() => platform.stop());
});
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

function storeWith(auth: unknown, more: Record<string, unknown> = {}): RestStore {
  const store = restStoreOf(platform.url, { auth, records: { item: record }, ...more });
  ends.push(() => store.reader.close());
  return store;
}

const put = (store: RestStore) =>
  store.makeWriter().put({ kind: 'item', id: '1', fields: { id: '1', owner: 'ann' } }, stamp, true, never);

describe('credentials that do not change', () => {
  test.each([
    ['basic', { basic: { user: 'sync', password: 'pä:ss' } }, `Basic ${btoa('sync:p\u00c3\u00a4:ss')}`],
    ['a bearer token', { bearer: 'abc' }, 'Bearer abc'],
    ['a key in a header', { apiKey: { header: 'Authorization', value: 'Token abc' } }, 'Token abc'],
  ])('%s go with every call', async (_, auth, sent) => {
    const store = storeWith(auth);
    await idsOf(store);
    await put(store);
    expect(platform.calls.map(({ headers }) => headers.authorization)).toEqual([sent, sent]);
  });

  test('a key in the query goes with every call, and stands in no error', async () => {
    const store = storeWith({ apiKey: { query: 'api_key', value: 's3cret&more' } });
    platform.answer = () => ({ status: 400 });
    const failure = await failureOf(idsOf(store));
    expect(platform.calls[0]?.query.get('api_key')).toBe('s3cret&more');
    await platform.stop();
    const broken = await failureOf(idsOf(store));
    for (const { message } of [failure, broken]) expect(message).not.toMatch(/api_key|s3cret/);
  });

  test('writes can have their own', async () => {
    const store = storeWith({ bearer: 'reads' }, { write: { auth: { bearer: 'writes' } } });
    await idsOf(store);
    await put(store);
    expect(platform.calls.map(({ headers }) => headers.authorization)).toEqual([
      'Bearer reads',
      'Bearer writes',
    ]);
  });

  test('that are refused are not tried again', async () => {
    platform.answer = () => ({ status: 401 });
    expect((await failureOf(idsOf(storeWith({ bearer: 'abc' })))).kind).toBe('denied');
    expect(platform.calls).toHaveLength(1);
  });
});

describe('tokens by client credentials', () => {
  const client = { clientId: 'me:here', clientSecret: 's3cret +', scope: 'read write', audience: 'api' };
  let given = 0;
  let valid = '';

  beforeEach(() => {
    given = 0;
    platform.answer = ({ path, headers }) => {
      if (path === '/token') {
        given += 1;
        valid = `token-${given}`;
        return { body: { access_token: valid, token_type: 'Bearer', expires_in: 100 } };
      }
      return headers.authorization === `Bearer ${valid}` ? { body: [] } : { status: 401 };
    };
  });

  const oauth2 = (more: object = {}) => ({
    oauth2: { tokenUrl: `${platform.url}/token`, ...client, ...more },
  });
  const asked = () => platform.calls.filter(({ path }) => path === '/token');

  test('are asked for once, and shared by calls at the same time', async () => {
    const store = storeWith(oauth2({ more: { resource: 'urn:x' } }));
    await Promise.all([idsOf(store), idsOf(store), put(store)]);
    await idsOf(store);
    expect(asked()).toHaveLength(1);
    const [question] = asked();
    expect(question?.headers.authorization).toBe(`Basic ${btoa('me%3Ahere:s3cret+%2B')}`);
    expect(Object.fromEntries(new URLSearchParams(question?.text))).toEqual({
      ...{ grant_type: 'client_credentials', scope: 'read write', audience: 'api', resource: 'urn:x' },
    });
  });

  test('can be asked for with everything in the body', async () => {
    await idsOf(storeWith(oauth2({ send: 'body' })));
    expect(asked()[0]?.headers.authorization).toBeUndefined();
    expect(new URLSearchParams(asked()[0]?.text).get('client_secret')).toBe('s3cret +');
  });

  test('are renewed before their end', async () => {
    let nowMs = 0;
    const config: OAuth2Config = {
      ...{ ...client, tokenUrl: `${platform.url}/token`, send: 'basic', more: {}, timeoutMs: 2_000 },
    };
    const parts = { store: 'legacy', origin: platform.url, connectTimeoutMs: 500 } as const;
    const tokens: Credentials = credentialsOf({ oauth2: config }, { ...parts, nowMs: () => nowMs });
    ends.push(() => tokens.close());
    const token = async (): Promise<string | undefined> => (await tokens.get(never)).headers['authorization'];
    expect(await token()).toBe('Bearer token-1');
    nowMs = 89_000;
    expect(await token()).toBe('Bearer token-1');
    nowMs = 91_000;
    expect(await token()).toBe('Bearer token-2');
  });

  test('are renewed once after a 401, of a read and of a write', async () => {
    const store = storeWith(oauth2());
    await idsOf(store);
    valid = 'another one, so that ours is revoked';
    await idsOf(store);
    valid = 'and once more';
    await put(store);
    expect(asked()).toHaveLength(3);
    expect(platform.calls.filter(({ method }) => method === 'PUT')).toHaveLength(2);
  });

  test('that are refused although they are new are not asked for again and again', async () => {
    const store = storeWith(oauth2());
    const answer = platform.answer;
    platform.answer = (call) => (call.path === '/token' ? answer(call) : { status: 401 });
    expect((await failureOf(idsOf(store))).kind).toBe('denied');
    expect(asked()).toHaveLength(2);
  });

  test.each([
    ['refused', { status: 401, body: { error: 'invalid_client', error_description: 's3cret' } }, 'denied'],
    ['down', { status: 503 }, 'unavailable'],
    ['busy', { status: 429 }, 'rate-limited'],
    [
      'a page for people',
      { body: '<h1>s3cret</h1>', headers: { 'content-type': 'text/html' } },
      'bad-answer',
    ],
    ['of another kind', { body: { access_token: 's3cret', token_type: 'mac' } }, 'bad-answer'],
  ])(
    'an endpoint that is %s: nothing is sent to the store, and nothing secret is said',
    async (_, answer, kind) => {
      platform.answer = ({ path }) => (path === '/token' ? answer : { body: [] });
      const failure = await failureOf(idsOf(storeWith(oauth2())));
      expect(failure.kind).toBe(kind);
      expect(`${failure.message} ${String(failure.cause)}`).not.toContain('s3cret');
      expect(failure.message).toContain('the token endpoint of legacy, http://127.0.0.1');
      expect(platform.calls.filter(({ path }) => path !== '/token')).toEqual([]);
    },
  );

  test('an endpoint that does not answer ends the call in time', async () => {
    platform.answer = ({ path }) => (path === '/token' ? new Promise(() => undefined) : { body: [] });
    const failure = await failureOf(put(storeWith(oauth2({ timeoutMs: 50 }))));
    expect([failure.kind, failure.message]).toEqual(['unavailable', expect.stringContaining('in time')]);
    const late = await failureOf(put(storeWith(oauth2(), { timeoutMs: 50 })));
    expect(late.kind).toBe('unavailable');
  });
});
