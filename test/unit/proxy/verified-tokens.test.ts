/** What is remembered of verified tokens, and for how long. */
import { describe, expect, test } from '@jest/globals';
import { VerifiedTokens } from '../../../src/proxy/verified-tokens.ts';

const nowMs = 1_700_000_000_000;
const nowSeconds = nowMs / 1000;
const bounds = { tokensMax: 3, charactersMax: 100, keptForMs: 300_000 };

describe('a verified token', () => {
  test('is found with its claims, and no other one is', () => {
    const tokens = new VerifiedTokens(0);
    tokens.add('a.b.c', { sub: 'ann' }, nowMs);
    expect(tokens.find('a.b.c', nowMs)).toEqual({ sub: 'ann' });
    expect(tokens.find('a.b.d', nowMs)).toBeUndefined();
    expect(tokens.find('a.b.c ', nowMs)).toBeUndefined();
  });

  test('never counts beyond its expiry, but for the clock skew that is allowed', () => {
    const tokens = new VerifiedTokens(5_000);
    tokens.add('a', { exp: nowSeconds + 10 }, nowMs);
    expect(tokens.find('a', nowMs + 14_999)).toBeDefined();
    expect(tokens.find('a', nowMs + 15_000)).toBeUndefined();
    // Once it has expired it is forgotten, also for a clock that goes back.
    expect(tokens.find('a', nowMs)).toBeUndefined();
  });

  test('does not count before its time, where the clock goes back', () => {
    const tokens = new VerifiedTokens(5_000);
    tokens.add('a', { nbf: nowSeconds }, nowMs);
    expect(tokens.find('a', nowMs - 5_000)).toBeDefined();
    expect(tokens.find('a', nowMs - 5_001)).toBeUndefined();
  });

  test('is verified anew after a while, also where it never expires', () => {
    const tokens = new VerifiedTokens(0, bounds);
    tokens.add('a', {}, nowMs);
    expect(tokens.find('a', nowMs + 299_999)).toBeDefined();
    expect(tokens.find('a', nowMs + 300_000)).toBeUndefined();
  });

  test('is forgotten with all others when a key is gone', () => {
    const tokens = new VerifiedTokens(0, bounds);
    tokens.add('a', {}, nowMs);
    tokens.clear();
    expect(tokens.find('a', nowMs)).toBeUndefined();
  });
});

describe('memory is bounded', () => {
  const known = (tokens: VerifiedTokens, all: readonly string[]): string[] =>
    all.filter((token) => tokens.find(token, nowMs) !== undefined);

  test('in the number of tokens: the oldest goes', () => {
    const tokens = new VerifiedTokens(0, bounds);
    for (const token of ['a', 'b', 'c', 'd']) tokens.add(token, {}, nowMs);
    expect(known(tokens, ['a', 'b', 'c', 'd'])).toEqual(['b', 'c', 'd']);
  });

  test('in their length together: as many go as there must', () => {
    const tokens = new VerifiedTokens(0, bounds);
    const [a, b, c] = ['a', 'b', 'c'].map((letter) => letter.repeat(45)) as [string, string, string];
    tokens.add(a, {}, nowMs);
    tokens.add(b, {}, nowMs);
    expect(known(tokens, [a, b])).toEqual([a, b]);
    tokens.add(c, {}, nowMs);
    expect(known(tokens, [a, b, c])).toEqual([b, c]);
    const larger = 'd'.repeat(90);
    tokens.add(larger, {}, nowMs);
    expect(known(tokens, [b, c, larger])).toEqual([larger]);
    tokens.add('e'.repeat(101), {}, nowMs);
    expect(known(tokens, [larger, 'e'.repeat(101)])).toEqual([]);
  });

  test('and counted rightly where a token comes again, expires or is cleared away', () => {
    const tokens = new VerifiedTokens(0, bounds);
    const long = 'a'.repeat(60);
    for (let times = 0; times < 5; times += 1) tokens.add(long, { exp: nowSeconds + 1 }, nowMs);
    tokens.add('b'.repeat(40), {}, nowMs);
    expect(known(tokens, [long, 'b'.repeat(40)])).toHaveLength(2);
    expect(tokens.find(long, nowMs + 1_000)).toBeUndefined();
    tokens.add('c'.repeat(60), {}, nowMs);
    expect(known(tokens, ['b'.repeat(40), 'c'.repeat(60)])).toHaveLength(2);
    tokens.clear();
    tokens.add('d'.repeat(100), {}, nowMs);
    expect(known(tokens, ['d'.repeat(100)])).toHaveLength(1);
  });
});
