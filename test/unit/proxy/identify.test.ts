/** Who a request acts for. */
import { IncomingMessage } from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import { Socket } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import { SignJWT } from 'jose';
import type { Config } from '../../../src/config/schema.ts';
import { Identifier, type Identification } from '../../../src/proxy/identify.ts';
import { peerTest, plainAddress } from '../../../src/proxy/peers.ts';
import { configOf } from '../../support/proxy.ts';

const nowMs = 1_700_000_000_000;
const secret = 'a-secret-for-tokens-of-32-bytes!';

function rulesOf(...identity: unknown[]): Config['identity'] {
  return configOf({ identity }).identity;
}

function identifierOf(
  rules: Config['identity'],
  nowMs: () => number,
): (request: IncomingMessage) => Identification | Promise<Identification> {
  const identifier = new Identifier(rules, { nowMs });
  return (request) => identifier.identify(request);
}

/** A request as node:http hands it over, from a peer of our choosing. */
function requestOf(rawHeaders: string[], peer = '127.0.0.1'): IncomingMessage {
  const socket = new Socket();
  Object.defineProperty(socket, 'remoteAddress', { value: peer });
  const request = new IncomingMessage(socket);
  request.rawHeaders = rawHeaders;
  return request;
}

async function tokenOf(claims: Record<string, unknown>, key = secret): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(key));
}

const codeOf = (identification: Identification): string =>
  identification.kind === 'refused' ? identification.failure.code : identification.kind;

describe('a header', () => {
  const identify = identifierOf(rulesOf({ header: 'X-User', from: ['10.0.0.0/8', '::1/128'] }), () => nowMs);

  test('names the user when it comes from a peer that may set it', async () => {
    expect(await identify(requestOf(['x-USER', 'ann'], '10.1.2.3'))).toEqual({
      kind: 'user',
      identity: { user: 'ann', credential: 'header', claims: {} },
    });
    expect(codeOf(await identify(requestOf(['x-user', 'ann'], '::ffff:10.1.2.3')))).toBe('user');
    expect(codeOf(await identify(requestOf(['x-user', 'ann'], '::1')))).toBe('user');
  });

  test('from any other peer is refused, not ignored', async () => {
    expect(codeOf(await identify(requestOf(['x-user', 'ann'], '192.0.2.1')))).toBe('untrusted-peer');
    expect(codeOf(await identify(requestOf(['x-user', 'ann'], '::ffff:192.0.2.1')))).toBe('untrusted-peer');
  });

  test('that is repeated, empty, too long or not a name is refused', async () => {
    const wrong = [
      ['x-user', 'ann', 'X-User', 'bob'],
      ['x-user', ''],
      ['x-user', 'x'.repeat(257)],
      ['x-user', 'a\u0000b'],
      ['x-user', '\u00ff\u00fe'],
    ];
    for (const headers of wrong) {
      expect(codeOf(await identify(requestOf(headers, '10.0.0.1')))).toBe('bad-credential');
    }
  });

  test('is read as UTF-8', async () => {
    const value = Buffer.from('zoë', 'utf8').toString('latin1');
    expect(await identify(requestOf(['x-user', value], '10.0.0.1'))).toMatchObject({
      identity: { user: 'zoë' },
    });
  });

  test('that is absent leaves the request anonymous', async () => {
    expect(codeOf(await identify(requestOf(['accept', '*/*'], '10.0.0.1')))).toBe('anonymous');
  });
});

describe('a token', () => {
  const rule = { jwt: { secret, issuer: 'us', audience: 'proxy', clockSkewMs: 5_000 } };
  const seconds = nowMs / 1000;
  const good = { sub: 'ann', iss: 'us', aud: 'proxy', exp: seconds + 60, tenant: 't1' };
  const bearer = (token: string): IncomingMessage => requestOf(['Authorization', `Bearer ${token}`]);

  test('names the user and its claims', async () => {
    const identify = identifierOf(rulesOf(rule), () => nowMs);
    const identification = await identify(bearer(await tokenOf(good)));
    expect(identification).toMatchObject({
      kind: 'user',
      identity: { user: 'ann', credential: 'jwt', claims: { tenant: 't1' } },
    });
  });

  test('that is wrong in any way is refused', async () => {
    const identify = identifierOf(rulesOf(rule), () => nowMs);
    const none = Buffer.from('{"alg":"none"}').toString('base64url');
    const wrong = [
      await tokenOf({ ...good, iss: 'them' }),
      await tokenOf({ ...good, aud: 'other' }),
      await tokenOf({ ...good, nbf: seconds + 60 }),
      await tokenOf({ ...good, sub: 7 }),
      await tokenOf({ ...good, sub: '' }),
      await tokenOf(good, 'another-secret-of-the-same-size!'),
      `${none}.${Buffer.from(JSON.stringify(good)).toString('base64url')}.`,
      'nonsense',
      '',
    ];
    for (const token of wrong) expect(codeOf(await identify(bearer(token)))).toBe('bad-credential');
  });

  test('an expired token is refused, also when it was good a moment ago', async () => {
    let clockMs = nowMs;
    const identify = identifierOf(rulesOf(rule), () => clockMs);
    const token = await tokenOf(good);
    expect(codeOf(await identify(bearer(token)))).toBe('user');
    // From the cache, without a promise.
    expect(identify(bearer(token))).toMatchObject({ kind: 'user' });
    clockMs = nowMs + 64_000;
    expect(codeOf(await identify(bearer(token)))).toBe('user');
    clockMs = nowMs + 66_000;
    expect(codeOf(await identify(bearer(token)))).toBe('bad-credential');
  });

  test('in a repeated Authorization header is refused; another scheme is no token', async () => {
    const identify = identifierOf(rulesOf(rule), () => nowMs);
    const token = await tokenOf(good);
    const repeated = requestOf(['Authorization', `Bearer ${token}`, 'authorization', `Bearer ${token}`]);
    expect(codeOf(await identify(repeated))).toBe('bad-credential');
    expect(codeOf(await identify(requestOf(['Authorization', 'Basic YTpi'])))).toBe('anonymous');
  });

  test('whose keys cannot be fetched is neither good nor wrong', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise<void>((resolve) => server.close(() => resolve()));
    const rules = rulesOf({ jwt: { jwksUrl: `http://127.0.0.1:${port}/keys` } });
    const identify = identifierOf(rules, () => nowMs);
    const token = `${Buffer.from('{"alg":"RS256","kid":"1"}').toString('base64url')}.e30.AAAA`;
    expect(codeOf(await identify(bearer(token)))).toBe('identity-unavailable');
    // A shared secret is never taken for a public key.
    expect(codeOf(await identify(bearer(await tokenOf(good))))).toBe('bad-credential');
  });
});

test('the first rule whose credential is present decides', async () => {
  const identify = identifierOf(
    rulesOf({ jwt: { secret } }, { header: 'x-user', from: ['127.0.0.1'] }),
    () => nowMs,
  );
  const both = requestOf(['x-user', 'ann', 'Authorization', 'Bearer nonsense']);
  expect(codeOf(await identify(both))).toBe('bad-credential');
  expect(codeOf(await identify(requestOf(['x-user', 'ann'])))).toBe('user');
});

test('ranges that are none are refused at the start', () => {
  for (const range of ['10.0.0.0/33', 'ten', '10.0.0.0/', '10.0.0.0/8/8', '::1/129']) {
    expect(() => peerTest([range])).toThrow(range);
  }
  expect(plainAddress('fe80::1%eth0')).toBe('fe80::1');
});
