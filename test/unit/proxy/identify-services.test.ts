/** What is remembered of credentials and keys, and for how long: against real services, on a clock of the test. */
import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { type Identification, Identifier } from '../../../src/proxy/identify.ts';
import { type ServiceAnswer, answering, knowing, signingKey, TestService } from '../../support/identity.ts';
import { configOf } from '../../support/proxy.ts';
import { until } from '../../support/until.ts';

const wallMs = 1_700_000_000_000;
let clockMs = 0;
const ends: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  clockMs = 0;
  for (const end of ends.splice(0).toReversed()) await end();
});

async function serviceWith(answer: ServiceAnswer): Promise<TestService> {
  const service = await TestService.start(answer);
  ends.push(async () => service.stop());
  return service;
}

type Identify = (token: string) => Promise<string>;

/** The user, or why there is none. */
function identifierOf(rule: unknown, logged: string[] = []): Identify {
  const identifier = new Identifier(configOf({ identity: [rule] }).identity, {
    nowMs: () => wallMs + clockMs,
    monotonicMs: () => clockMs,
    log: (_level, event) => void logged.push(event),
    rememberedMax: 50,
  });
  ends.push(() => identifier.close());
  return async (token) => {
    const request = new IncomingMessage(new Socket());
    request.rawHeaders = ['Authorization', `Bearer ${token}`];
    return outcomeOf(await identifier.identify(request));
  };
}

function outcomeOf(identification: Identification): string {
  if (identification.kind === 'user') return identification.identity.user;
  return identification.kind === 'refused' ? identification.failure.code : identification.kind;
}

describe('an opaque token', () => {
  const opaque = (url: string, more: object = {}): unknown => ({
    bearer: true,
    introspect: { url, user: 'data.id', ...more },
  });

  test('is asked about once, and again when its answer has counted for cacheMs', async () => {
    const service = await serviceWith(knowing({ 'Bearer good': 'ann' }));
    const identify = identifierOf(opaque(service.url, { cacheMs: 60_000 }));
    expect(await identify('good')).toBe('ann');
    service.answer = answering(401, {});
    clockMs = 59_999;
    expect(await identify('good')).toBe('ann');
    expect(service.asked.length).toBe(1);
    clockMs = 60_000;
    expect(await identify('good')).toBe('bad-credential');
    expect(service.asked.length).toBe(2);
  });

  test('counts from its question, not from a late answer', async () => {
    const service = await serviceWith((asked, response) => {
      clockMs = 50_000;
      knowing({ 'Bearer good': 'ann' })(asked, response);
    });
    const identify = identifierOf(opaque(service.url, { cacheMs: 60_000 }));
    expect(await identify('good')).toBe('ann');
    clockMs = 60_000;
    service.answer = answering(401, {});
    expect(await identify('good')).toBe('bad-credential');
  });

  test('that is wrong is remembered for 5 seconds', async () => {
    const service = await serviceWith(answering(404, {}));
    const identify = identifierOf(opaque(service.url));
    expect(await identify('new')).toBe('bad-credential');
    service.answer = knowing({ 'Bearer new': 'ann' });
    clockMs = 4_999;
    expect(await identify('new')).toBe('bad-credential');
    clockMs = 5_000;
    expect(await identify('new')).toBe('ann');
    expect(service.asked.length).toBe(2);
  });

  test('with cacheMs 0 is asked about every time', async () => {
    const service = await serviceWith(knowing({ 'Bearer good': 'ann' }));
    const identify = identifierOf(opaque(service.url, { cacheMs: 0 }));
    expect([await identify('good'), await identify('good')]).toEqual(['ann', 'ann']);
    expect([await identify('bad'), await identify('bad')]).toEqual(['bad-credential', 'bad-credential']);
    expect(service.asked.length).toBe(4);
  });

  test('that many wrong ones follow is still remembered', async () => {
    const service = await serviceWith(knowing({ 'Bearer good': 'ann' }));
    const identify = identifierOf(opaque(service.url));
    expect(await identify('good')).toBe('ann');
    for (let at = 0; at < 60; at += 1) await identify(`bad${at}`);
    const asked = service.asked.length;
    expect(await identify('good')).toBe('ann');
    expect(service.asked.length).toBe(asked);
    // The memory of wrong ones is bounded too: the first has been forgotten, the last has not.
    expect(await identify('bad0')).toBe('bad-credential');
    expect(await identify('bad59')).toBe('bad-credential');
    expect(service.asked.length).toBe(asked + 1);
  });

  test('about which there is no clear answer is neither good nor wrong, and nothing is remembered', async () => {
    const service = await serviceWith(answering(500, {}));
    const logged: string[] = [];
    const identify = identifierOf(opaque(service.url), logged);
    const unclear: [number, unknown][] = [
      [500, { data: { id: 'ann' } }],
      [302, { data: { id: 'ann' } }],
      [429, { data: { id: 'ann' } }],
      [400, {}],
      [200, 'no JSON'],
      [200, {}],
      [200, { data: null }],
      [200, { data: { id: '' } }],
      [200, { data: { id: 1.5 } }],
      [200, { data: { id: Number.MAX_SAFE_INTEGER + 1 } }],
      [200, { data: { id: { a: 1 } } }],
      [200, { data: { id: 'x'.repeat(70_000) } }],
      [200, 'null'],
    ];
    for (const [status, body] of unclear) {
      service.answer = answering(status, body);
      expect([status, body, await identify('good')]).toEqual([status, body, 'identity-unavailable']);
    }
    service.answer = knowing({ 'Bearer good': 'ann' });
    expect(await identify('good')).toBe('ann');
    expect(logged).toEqual(['identity.unavailable', 'identity.available']);
  });

  test('may belong to a user with a number', async () => {
    const service = await serviceWith(knowing({ 'Bearer good': 42 }));
    expect(await identifierOf(opaque(service.url))('good')).toBe('42');
  });

  test('whose service says that it is not active is wrong', async () => {
    const service = await serviceWith(answering(200, { active: false }));
    expect(await identifierOf(opaque(service.url))('old')).toBe('bad-credential');
  });

  test('is asked about by a form where the rule says so, and must be active (RFC 7662)', async () => {
    const service = await serviceWith(answering(200, { active: true, sub: 'ann' }));
    const rule = opaque(service.url, { form: true, user: 'sub', headers: { authorization: 'Basic b3c6' } });
    const identify = identifierOf(rule);
    expect(await identify('a+b/c')).toBe('ann');
    expect(service.asked[0]).toMatchObject({ method: 'POST', body: 'token=a%2Bb%2Fc' });
    expect(service.asked[0]?.headers).toMatchObject({
      'content-type': 'application/x-www-form-urlencoded',
      authorization: 'Basic b3c6',
    });
    service.answer = answering(200, { sub: 'ann' });
    expect(await identify('other')).toBe('identity-unavailable');
  });

  test('can be shown in a header that the rule names', async () => {
    const service = await serviceWith(knowing({ good: 'ann' }, 'x-session'));
    expect(await identifierOf(opaque(service.url, { header: 'X-Session' }))('good')).toBe('ann');
    expect(service.asked[0]?.headers.authorization).toBeUndefined();
  });

  test('that many requests carry at once is asked about once', async () => {
    const waiting: (() => void)[] = [];
    const service = await serviceWith((asked, response) => {
      waiting.push(() => knowing({ 'Bearer good': 'ann' })(asked, response));
    });
    const identify = identifierOf(opaque(service.url));
    const requests = Array.from({ length: 20 }, async () => identify('good'));
    await until('the question is there', () => waiting.length === 1);
    waiting[0]?.();
    expect(new Set(await Promise.all(requests))).toEqual(new Set(['ann']));
    expect(service.asked.length).toBe(1);
  });

  test('beyond the questions that may be under way is refused at once, and asked about later', async () => {
    const waiting: (() => void)[] = [];
    const service = await serviceWith((asked, response) => {
      waiting.push(() =>
        knowing({ 'Bearer a': 'ann', 'Bearer b': 'bob', 'Bearer c': 'cy' })(asked, response),
      );
    });
    const identify = identifierOf(opaque(service.url, { connections: 2 }));
    const first = [identify('a'), identify('b')];
    await until('both questions are there', () => waiting.length === 2);
    expect(await identify('c')).toBe('identity-unavailable');
    for (const answer of waiting.splice(0)) answer();
    expect(await Promise.all(first)).toEqual(['ann', 'bob']);
    const third = identify('c');
    await until('the third question is there', () => waiting.length === 1);
    waiting[0]?.();
    expect(await third).toBe('cy');
  });

  test('whose service does not answer in time, breaks off or is gone is neither good nor wrong', async () => {
    const service = await serviceWith(() => {});
    const identify = identifierOf(opaque(service.url, { timeoutMs: 100 }));
    expect(await identify('good')).toBe('identity-unavailable');
    service.answer = (_asked, response) => void response.socket?.destroy();
    expect(await identify('good')).toBe('identity-unavailable');
    service.answer = (_asked, response) => {
      response.writeHead(200, { 'Content-Length': '100' });
      response.write('{"data":', () => response.socket?.destroy());
    };
    expect(await identify('good')).toBe('identity-unavailable');
    service.answer = (_asked, response) => void response.writeHead(200).write('{');
    expect(await identify('good')).toBe('identity-unavailable');
    await service.stop();
    ends.length = 0;
    expect(await identify('good')).toBe('identity-unavailable');
  });

  test('is asked about again where the service had just closed the connection', async () => {
    const service = await serviceWith(knowing({ 'Bearer a': 'ann', 'Bearer b': 'bob' }));
    const identify = identifierOf(opaque(service.url));
    expect(await identify('a')).toBe('ann');
    const { answer } = service;
    let broken = 0;
    service.answer = (asked, response) => {
      broken += 1;
      if (broken === 1) response.socket?.resetAndDestroy();
      else answer(asked, response);
    };
    expect(await identify('b')).toBe('bob');
    expect(broken).toBe(2);
  });
});

describe('a signed token', () => {
  const claims = { sub: 'ann', exp: wallMs / 1000 + 86_400 * 3 };
  const signed = (url: string): unknown => ({ jwt: { jwksUrl: url } });
  const keys = (...jwks: { jwk: unknown }[]): ServiceAnswer =>
    answering(200, { keys: jwks.map(({ jwk }) => jwk) });

  test('is verified by the keys of its issuer, which are fetched once', async () => {
    const one = await signingKey('one');
    const service = await serviceWith(keys(one));
    const identify = identifierOf(signed(service.url));
    expect(await identify(await one.sign(claims))).toBe('ann');
    expect(await identify(await one.sign({ ...claims, sub: 'bob' }))).toBe('bob');
    expect(await identify(await (await signingKey('one')).sign(claims))).toBe('bad-credential');
    expect(service.asked.length).toBe(1);
  });

  test('by a new key makes the keys be fetched once more', async () => {
    const [one, two] = [await signingKey('one'), await signingKey('two')];
    const service = await serviceWith(keys(one));
    const identify = identifierOf(signed(service.url));
    expect(await identify(await one.sign(claims))).toBe('ann');
    service.answer = keys(one, two);
    const token = await two.sign(claims);
    expect(await Promise.all([identify(token), identify(token)])).toEqual(['ann', 'ann']);
    expect(service.asked.length).toBe(2);
  });

  test('by a key without a name is verified over a rotation, too', async () => {
    const [one, two] = [await signingKey(), await signingKey()];
    const service = await serviceWith(keys(one));
    const identify = identifierOf(signed(service.url));
    expect(await identify(await one.sign(claims))).toBe('ann');
    service.answer = keys(one, two);
    expect(await identify(await two.sign(claims))).toBe('ann');
    expect(await identify(await one.sign({ ...claims, sub: 'bob' }))).toBe('bob');
    expect(service.asked.length).toBe(2);
  });

  test('by a key that nobody knows cannot make the keys be fetched all the time', async () => {
    const one = await signingKey('one');
    const service = await serviceWith(keys(one));
    const identify = identifierOf(signed(service.url));
    expect(await identify(await one.sign(claims))).toBe('ann');
    for (const name of ['a', 'b', 'c', 'd']) {
      expect(await identify(await (await signingKey(name)).sign(claims))).toBe('bad-credential');
    }
    expect(service.asked.length).toBe(2);
    clockMs = 5_000;
    const two = await signingKey('two');
    service.answer = keys(one, two);
    expect(await identify(await two.sign(claims))).toBe('ann');
    expect(service.asked.length).toBe(3);
  });

  test('whose key is known is accepted while the keys cannot be fetched; another one is neither good nor wrong', async () => {
    const [one, two] = [await signingKey('one'), await signingKey('two')];
    const service = await serviceWith(keys(one));
    const logged: string[] = [];
    const identify = identifierOf(signed(service.url), logged);
    expect(await identify(await one.sign(claims))).toBe('ann');
    service.answer = answering(503, {});
    expect(await identify(await two.sign(claims))).toBe('identity-unavailable');
    expect(await identify(await two.sign(claims))).toBe('identity-unavailable');
    expect(await identify(await one.sign({ ...claims, sub: 'bob' }))).toBe('bob');
    // Also when the keys are so old that a request waits for newer ones.
    clockMs = 3_600_000;
    expect(await identify(await one.sign({ ...claims, sub: 'cy' }))).toBe('cy');
    // Not for ever: a key may have been withdrawn since.
    clockMs = 86_400_001;
    expect(await identify(await one.sign({ ...claims, sub: 'di' }))).toBe('identity-unavailable');
    expect(logged).toEqual(['identity.keys-unavailable']);
    clockMs += 1_000;
    service.answer = keys(two);
    expect(await identify(await two.sign(claims))).toBe('ann');
    expect(logged).toEqual(['identity.keys-unavailable', 'identity.keys-available']);
  });

  test('that was accepted counts no more once its key is withdrawn', async () => {
    const [one, two] = [await signingKey('one'), await signingKey('two')];
    const service = await serviceWith(keys(one));
    const identify = identifierOf(signed(service.url));
    const token = await one.sign(claims);
    expect(await identify(token)).toBe('ann');
    service.answer = keys(two);
    // Another token makes the keys be fetched: the memory of tokens goes with the key.
    expect(await identify(await two.sign(claims))).toBe('ann');
    expect(await identify(token)).toBe('bad-credential');
  });

  test('that was accepted long ago waits for newer keys, so a withdrawn one shows', async () => {
    const [one, two] = [await signingKey('one'), await signingKey('two')];
    const service = await serviceWith(keys(one));
    const identify = identifierOf(signed(service.url));
    const token = await one.sign(claims);
    expect(await identify(token)).toBe('ann');
    service.answer = keys(two);
    clockMs = 600_001;
    expect(await identify(token)).toBe('bad-credential');
  });

  test('that was accepted by keys too old to be trusted alone waits for newer ones, too', async () => {
    const [one, two] = [await signingKey('one'), await signingKey('two')];
    const service = await serviceWith(keys(one));
    const logged: string[] = [];
    const identify = identifierOf(signed(service.url), logged);
    const token = await one.sign(claims);
    expect(await identify(token)).toBe('ann');
    service.answer = answering(503, {});
    clockMs = 590_000;
    expect(await identify(token)).toBe('ann');
    await until('the keys could not be renewed', () => logged.length === 1);
    service.answer = keys(two);
    clockMs = 700_000;
    expect(await identify(token)).toBe('bad-credential');
  });

  test('finds its keys renewed beside the requests', async () => {
    const one = await signingKey('one');
    const service = await serviceWith(keys(one));
    const identify = identifierOf(signed(service.url));
    const token = await one.sign(claims);
    expect(await identify(token)).toBe('ann');
    clockMs = 299_000;
    expect(await identify(token)).toBe('ann');
    expect(service.asked.length).toBe(1);
    clockMs = 300_001;
    service.answer = () => {};
    expect(await identify(token)).toBe('ann');
    await until('the keys are asked for', () => service.asked.length === 2);
  });

  test('is never verified by what is not a set of public keys', async () => {
    const one = await signingKey('one');
    const service = await serviceWith(answering(200, {}));
    const identify = identifierOf(signed(service.url));
    const token = await one.sign(claims);
    const many = Array.from({ length: 101 }, () => one.jwk);
    const wrong: [number, unknown][] = [
      [200, {}],
      [200, 'no JSON'],
      [200, { keys: 'no' }],
      [302, {}],
      [404, {}],
      [200, { keys: many }],
      [200, `{"keys":[],"more":"${'x'.repeat(300_000)}"}`],
    ];
    for (const [status, body] of wrong) {
      clockMs += 10_000;
      service.answer = answering(status, body);
      expect(await identify(token)).toBe('identity-unavailable');
    }
    clockMs += 10_000;
    service.answer = keys(one);
    expect(await identify(token)).toBe('ann');
  });

  test('under an algorithm of its own choice is refused, and nobody is asked', async () => {
    const one = await signingKey('one');
    const service = await serviceWith(keys(one));
    const identify = identifierOf(signed(service.url));
    const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    for (const alg of ['none', 'None', 'HS256', 'HS512', 'RSA-OAEP', '']) {
      expect(await identify(`${part({ alg, kid: 'one' })}.${part(claims)}.AAAA`)).toBe('bad-credential');
      expect(await identify(`${part({ alg, kid: 'one' })}.${part(claims)}.`)).toBe('bad-credential');
    }
    expect(service.asked.length).toBe(0);
  });
});
