/** The signed headers: what is signed is what is read, and nothing else passes. */
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import {
  type GuardStatement,
  guardKey,
  isSignableName,
  nameBytesMax,
  type ReceivedHeaders,
  signGuard,
  verifyGuard,
} from '../../../src/guard/signature.ts';

const secret = 'a secret of the tests only';
const base: GuardStatement = {
  secret,
  timestampSeconds: 1_700_000_000,
  method: 'PUT',
  target: '/api/appointments/a1?notify=1',
  user: 'u1',
  partition: 'team é/7',
  epoch: 12,
  access: 'write',
};

function received(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

function verify(headers: ReceivedHeaders, other: Partial<Parameters<typeof verifyGuard>[0]> = {}) {
  const { method, target } = base;
  return verifyGuard({ secret, nowSeconds: base.timestampSeconds, method, target, headers, ...other });
}

const bad = { ok: false, code: 'bad-signature' };

describe('a signed request', () => {
  test('gives back every claim, whatever the names are', () => {
    const name = fc.string({ unit: 'grapheme', maxLength: 40 }).filter(isSignableName);
    const access = fc.constantFrom('read', 'write', 'copy');
    fc.assert(
      fc.property(name, name, fc.maxSafeNat(), access, (user, partition, epoch, access) => {
        const claims = { user, partition, epoch, access } as const;
        const headers = signGuard({ ...base, ...claims });
        for (const value of Object.values(headers)) expect(value).toMatch(/^[!-~]*$/);
        expect(verify(received(headers))).toEqual({ ok: true, claims });
      }),
    );
  });

  test('is the same when signed with a prepared key', () => {
    expect(signGuard({ ...base, secret: guardKey(secret) })).toEqual(signGuard(base));
  });

  test('is good for 60 seconds either way and no longer', () => {
    const headers = received(signGuard(base));
    const at = (offset: number) => verify(headers, { nowSeconds: base.timestampSeconds + offset });
    expect(at(60).ok).toBe(true);
    expect(at(-60).ok).toBe(true);
    expect(at(61)).toEqual({ ok: false, code: 'expired' });
    expect(at(-61)).toEqual({ ok: false, code: 'expired' });
  });

  test('carries a target with raw bytes above ASCII', () => {
    const target = '/caf\u00e9';
    expect(verify(received(signGuard({ ...base, target })), { target }).ok).toBe(true);
  });
});

describe('refused is', () => {
  test('a request without a signature, as unsigned', () => {
    expect(verify({})).toEqual({ ok: false, code: 'unsigned' });
    const { 'onewriter-signature': _, ...rest } = received(signGuard(base));
    expect(verify(rest)).toEqual({ ok: false, code: 'unsigned' });
  });

  test.each(['user', 'partition', 'epoch', 'access'])('a request without the header of the %s', (name) => {
    const headers = received(signGuard(base));
    delete headers[`onewriter-${name}`];
    expect(verify(headers)).toEqual(bad);
  });

  test.each(['user', 'partition', 'epoch', 'access', 'signature'])('a changed or repeated %s', (name) => {
    const headers = received(signGuard(base));
    const value = headers[`onewriter-${name}`] ?? '';
    const others = [`${value}1`, `${value}, ${value}`, [value, value], ` ${value}`, '', value.toUpperCase()];
    for (const other of others.filter((other) => other !== value)) {
      expect(verify({ ...headers, [`onewriter-${name}`]: other })).toEqual(bad);
    }
  });

  test('the same headers on another method, target or secret', () => {
    const headers = received(signGuard(base));
    expect(verify(headers, { method: 'DELETE' })).toEqual(bad);
    expect(verify(headers, { target: '/api/appointments/a2?notify=1' })).toEqual(bad);
    expect(verify(headers, { secret: 'another secret' })).toEqual(bad);
  });

  test('a lower-case percent spelling and an epoch with a leading zero, though rightly signed', async () => {
    const { createHmac } = await import('node:crypto');
    const spelled = (partition: string, epoch: string, access = 'write') => {
      const t = base.timestampSeconds;
      const lines = ['v1', t, base.method, base.target, 'u1', partition, epoch, access].join('\n');
      const mac = createHmac('sha256', secret).update(lines).digest('hex');
      return verify({
        'onewriter-user': 'u1',
        'onewriter-partition': partition,
        'onewriter-epoch': epoch,
        'onewriter-access': access,
        'onewriter-signature': `v1,t=${t},${mac}`,
      });
    };
    expect(spelled('%C3%A9', '1').ok).toBe(true);
    expect(spelled('%c3%a9', '1')).toEqual(bad);
    expect(spelled('%41', '1')).toEqual(bad);
    expect(spelled('%0A', '1')).toEqual(bad);
    expect(spelled('%FF', '1')).toEqual(bad);
    expect(spelled('p', '01')).toEqual(bad);
    expect(spelled('p', '9007199254740993')).toEqual(bad);
    expect(spelled('p', '-1')).toEqual(bad);
    expect(spelled('p', '1', 'admin')).toEqual(bad);
  });
});

describe('never signed is', () => {
  test.each([
    ['a newline', 'a\nb'],
    ['a carriage return', 'a\rb'],
    ['a NUL', 'a\0b'],
    ['half of a surrogate pair', 'a\ud800'],
    ['more than the limit', 'x'.repeat(nameBytesMax + 1)],
    ['more than the limit once encoded', 'é'.repeat(nameBytesMax / 4)],
  ])('a name with %s', (_, name) => {
    expect(isSignableName(name)).toBe(false);
    expect(() => signGuard({ ...base, user: name })).toThrow(RangeError);
    expect(() => signGuard({ ...base, partition: name })).toThrow(RangeError);
  });

  test('a method, target, epoch or time that HTTP or the format cannot carry', () => {
    expect(() => signGuard({ ...base, method: 'PUT\n' })).toThrow(RangeError);
    expect(() => signGuard({ ...base, target: '/a b' })).toThrow(RangeError);
    expect(() => signGuard({ ...base, target: '/\u0100' })).toThrow(RangeError);
    expect(() => signGuard({ ...base, epoch: 1.5 })).toThrow(RangeError);
    expect(() => signGuard({ ...base, epoch: -1 })).toThrow(RangeError);
    expect(() => signGuard({ ...base, timestampSeconds: 1.5 })).toThrow(RangeError);
  });
});
