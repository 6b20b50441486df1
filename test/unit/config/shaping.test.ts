/** What may be shaped, and what of it processes must agree on. */
import { describe, expect, test } from '@jest/globals';
import { accessHash } from '../../../src/config/access-hash.ts';
import { loadedWith, problemsWith } from '../../support/config.ts';

const pathsOf = (changes: Record<string, unknown>): string[] => problemsWith(changes).map(({ path }) => path);

describe('headers that are refused', () => {
  test.each([
    'Connection',
    'Keep-Alive',
    'TE',
    'Trailer',
    'transfer-encoding',
    'Upgrade',
    'Content-Length',
    'Expect',
    'Proxy-Authorization',
    'Sec-WebSocket-Key',
    'Host',
    'Onewriter-User',
    'onewriter_user',
    'Content_Length',
  ])('%s can be neither set nor removed, on either way', (name) => {
    for (const side of ['headers', 'answerHeaders']) {
      const place = `stores.app.${side}`;
      expect(pathsOf({ [place]: { set: { [name]: 'x' } } })).toEqual([`${place}.set.${name}`]);
      expect(pathsOf({ [place]: { remove: [name] } })).toEqual([`${place}.remove[0]`]);
    }
  });

  test.each([
    'X-HTTP-Method-Override',
    'x_method_override',
    'X-Original-URL',
    'Destination',
    'Idempotency-Key',
  ])('%s cannot be set for a store, because it was judged without it; it can be removed', (name) => {
    expect(pathsOf({ 'stores.app.headers': { set: { [name]: 'x' } } })).toEqual([
      `stores.app.headers.set.${name}`,
    ]);
    expect(pathsOf({ 'stores.app.headers': { remove: [name] } })).toEqual([]);
  });

  test('one that is named twice, in any spelling, is refused', () => {
    const changes = { set: { 'X-Key': 'a', x_key: 'b' }, remove: ['x-KEY', 'Fine'] };
    expect(pathsOf({ 'stores.app.headers': changes })).toEqual([
      'stores.app.headers.set.x_key',
      'stores.app.headers.remove[0]',
    ]);
  });

  test('a value with a line break is refused without repeating it', () => {
    const problems = problemsWith(
      { 'stores.app.headers': { set: { Authorization: '${KEY}' } } },
      { KEY: 'secret\r\nX: y' },
    );
    expect(problems.map(({ path }) => path)).toEqual(['stores.app.headers.set.Authorization']);
    expect(JSON.stringify(problems)).not.toContain('secret');
  });
});

test('values come from the environment', () => {
  const { config } = loadedWith(
    { 'stores.app.headers': { set: { Authorization: 'Bearer ${KEY}' } } },
    { KEY: 'k' },
  );
  expect(config.stores.app.headers?.set).toEqual({ Authorization: 'Bearer k' });
});

describe('settings that do not fit', () => {
  test.each([
    [{ 'stores.app.tls': { ca: 'ca.pem' } }, 'stores.app.tls'],
    [{ 'stores.app.url': 'https://a.example', 'stores.app.tls': { cert: 'c.pem' } }, 'stores.app.tls'],
    [{ 'stores.app.host': 'http://a.example' }, 'stores.app.host'],
    [{ 'stores.app.host': 'a b' }, 'stores.app.host'],
    [{ 'stores.app.rewrite': { cookieDomain: { a: 'b; Secure' } } }, 'stores.app.rewrite.cookieDomain.a'],
    [{ 'stores.app.rewrite': { cookiePath: { '/a': '/b;c' } } }, 'stores.app.rewrite.cookiePath["/a"]'],
    [{ 'proxy.tls': { cert: 'c.pem' } }, 'proxy.tls.key'],
    [{ 'stores.app.tls': { verify: false } }, 'stores.app.tls.verify'],
  ])('%j', (changes, path) => {
    expect(pathsOf(changes)).toEqual([path]);
  });
});

describe('what processes must agree on', () => {
  const hashWith = (changes: Record<string, unknown>): string => accessHash(loadedWith(changes).config);
  const https = { 'stores.app.url': 'https://a.example' };

  test.each([
    [{}, { 'stores.app.host': 'preserve' }],
    [{}, { 'stores.app.headers': { set: { 'X-Tenant': '1' } } }],
    [{}, { 'stores.app.headers': { remove: ['X-Tenant'] } }],
    [{ 'stores.app.headers': { set: { A: '1' } } }, { 'stores.app.headers': { set: { A: '2' } } }],
    [https, { ...https, 'stores.app.tls': { servername: 'b.example' } }],
  ])('which store is meant, and as whom: %j is not %j', (left, right) => {
    expect(hashWith(left)).not.toBe(hashWith(right));
  });

  test.each([
    [{}, { 'stores.app.host': 'store' }],
    [{}, { 'stores.app.headers': {} }],
    [{ 'stores.app.headers': { remove: ['A', 'b'] } }, { 'stores.app.headers': { remove: ['B', 'a'] } }],
    [{}, { 'stores.app.answerHeaders': { remove: ['Server'] } }],
    [https, { ...https, 'stores.app.tls': { ca: 'ca.pem' } }],
  ])('the rest may differ: %j is %j', (left, right) => {
    expect(hashWith(left)).toBe(hashWith(right));
  });
});
