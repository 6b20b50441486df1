/** The signed headers: what is signed is what is read, and nothing else passes. */
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import {
  type GuardStatement,
  guardKey,
  isSignableName,
  isSignableSet,
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

describe('a request that touches several partitions', () => {
  const several: GuardStatement = {
    ...base,
    also: [
      { partition: 'u2', epoch: 7 },
      { partition: 'a b,c;d', epoch: 0 },
    ],
  };
  const { user, partition, epoch, access, also } = several;
  const claims = { user, partition, epoch, access, also };
  const headers = received(signGuard(several));
  const taken = { severalPartitions: true };

  test('gives back every partition with its epoch, whatever the names are', () => {
    const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }).filter(isSignableName);
    const names = fc.uniqueArray(name, { minLength: 2, maxLength: 8 });
    fc.assert(
      fc.property(names, fc.maxSafeNat(), ([first = '', ...rest], epoch) => {
        const others = rest.map((partition) => ({ partition, epoch }));
        const signed = signGuard({ ...base, partition: first, also: others });
        expect(signed['Onewriter-Also']).toMatch(/^[ -~]*$/);
        const verdict = verify(received(signed), taken);
        expect(verdict).toMatchObject({ ok: true, claims: { partition: first, also: others } });
      }),
    );
  });

  test('passes only where the receiver says that it checks all of them', () => {
    expect(verify(headers, taken)).toEqual({ ok: true, claims });
    expect(verify(headers)).toEqual({ ok: false, code: 'several-partitions' });
    expect(verify(headers, { severalPartitions: false })).toEqual({ ok: false, code: 'several-partitions' });
  });

  test('is nothing that a guard of before takes for a request of one partition', () => {
    // Its rule: the signature begins with v1, over the eight lines.
    expect(headers['onewriter-signature']).toMatch(/^v2,/);
    const asV1: Record<string, string> = {
      ...headers,
      'onewriter-signature': (headers['onewriter-signature'] ?? '').replace('v2', 'v1'),
    };
    expect(verify(asV1, taken)).toEqual(bad);
    const { 'onewriter-also': _, ...without } = asV1;
    expect(verify(without, taken)).toEqual(bad);
  });

  test('cannot be given further partitions, fewer, or others', () => {
    const one = received(signGuard(base));
    expect(verify({ ...one, 'onewriter-also': 'u2 7' }, taken)).toEqual(bad);
    expect(verify({ ...headers, 'onewriter-also': 'u2 7' }, taken)).toEqual(bad);
    expect(verify({ ...headers, 'onewriter-also': 'u2 8 a%20b,c;d 0' }, taken)).toEqual(bad);
    expect(
      verify({ ...headers, 'onewriter-also': [headers['onewriter-also'] ?? '', 'u9 1'] }, taken),
    ).toEqual(bad);
  });

  test('is refused where it is misshaped, though rightly signed', async () => {
    const { createHmac } = await import('node:crypto');
    const spelled = (value: string) => {
      const t = base.timestampSeconds;
      const lines = ['v2', t, base.method, base.target, 'u1', 'p', '1', 'write', value].join('\n');
      const mac = createHmac('sha256', secret).update(lines).digest('hex');
      const all = { 'onewriter-user': 'u1', 'onewriter-partition': 'p', 'onewriter-epoch': '1' };
      const signature = `v2,t=${t},${mac}`;
      return verify(
        { ...all, 'onewriter-access': 'write', 'onewriter-also': value, 'onewriter-signature': signature },
        taken,
      );
    };
    expect(spelled('u2 7').ok).toBe(true);
    const wrong = [
      '',
      'u2',
      'u2 7 u3',
      'u2  7',
      'u2 07',
      'u2 -1',
      'u2 7 u2 7',
      'p 7',
      ' 7',
      'u2 7 ',
      '%75 7',
    ];
    for (const value of [...wrong, `${'x'.repeat(1_024)} 7 `.repeat(8).trimEnd()]) {
      expect([value, spelled(value)]).toEqual([value, bad]);
    }
  });

  test('is not signed where it would be more than a header may hold', () => {
    const many = Array.from({ length: 99 }, (_, at) => `${at}`.padEnd(36, 'x'));
    expect(isSignableSet(many)).toBe(true);
    expect(isSignableSet(many.map((one) => one.padEnd(90, 'x')))).toBe(false);
    expect(isSignableSet(['a\nb'])).toBe(false);
    expect(() => signGuard({ ...base, also: [] })).toThrow(RangeError);
    expect(() => signGuard({ ...base, also: [{ partition: '', epoch: 1 }] })).toThrow(RangeError);
    expect(() => signGuard({ ...base, also: [{ partition: 'u2', epoch: -1 }] })).toThrow(RangeError);
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
