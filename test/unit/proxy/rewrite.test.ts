/** References and cookies of a store in the client's view; whatever is not understood stays as it is. */
import { describe, expect, test } from '@jest/globals';
import { clientCookie, clientReference, clientRefresh, cookieRewriteOf } from '../../../src/proxy/rewrite.ts';

const store = { scheme: 'http', hosts: ['store:81', 'named.example'], prefix: '/api' } as const;
const client = { scheme: 'https', host: 'shop.example' } as const;
const nameless = { scheme: 'https', host: undefined } as const;

describe('a reference', () => {
  test.each([
    ['http://store:81/api/x', 'https://shop.example/x'],
    ['HTTP://STORE:81/api/x#y', 'https://shop.example/x#y'],
    ['http://named.example:80/api?q', 'https://shop.example/?q'],
    ['http://named.example/api', 'https://shop.example/'],
    ['//store:81/api/x', '//shop.example/x'],
    ['https://shop.example/api/x', 'https://shop.example/x'],
    ['/api/x?url=http://store:81/api', '/x?url=http://store:81/api'],
    ['/api//other.example/x', 'https://shop.example//other.example/x'],
  ])('%s becomes %s', (value, expected) => {
    expect(clientReference(value, store, client)).toBe(expected);
  });

  test.each([
    'http://store/api/x',
    'https://store:81/api/x',
    'http://store:81/other',
    'http://store:81/apix',
    'http://user@store:81/api/x',
    'http://store:81\\@evil.example/api/x',
    'http://store:81/api/../x',
    'http://store:81/api/%2E./x',
    'http://store:81/api/x y',
    'http://store:81.evil.example/api/x',
    'http://[store/api',
    'https://shop.example/x',
    '/x',
    'api/x',
    '../x',
    '?x',
    '',
  ])('%j stays', (value) => {
    expect(clientReference(value, store, client)).toBe(value);
  });

  test('becomes a path where the client named no host, but never one that names another', () => {
    expect(clientReference('http://store:81/api/x', store, nameless)).toBe('/x');
    const trap = 'http://store:81/api//evil.example';
    expect(clientReference(trap, store, nameless)).toBe(trap);
    expect(clientReference('/api//evil.example', store, nameless)).toBe('/api//evil.example');
  });

  test('to a store without a path keeps its path, whatever it is', () => {
    const plain = { ...store, prefix: '' };
    expect(clientReference('http://store:81', plain, client)).toBe('https://shop.example/');
    expect(clientReference('http://store:81/a/../b', plain, client)).toBe('https://shop.example/a/../b');
    expect(clientReference('/api/x', plain, client)).toBe('/api/x');
    expect(clientReference('http://shop.example/x', plain, client)).toBe('http://shop.example/x');
  });
});

describe('a Refresh', () => {
  test.each([
    ['5; url=http://store:81/api/x', '5; url=https://shop.example/x'],
    ["0;URL='/api/x'", "0;URL='/x'"],
    ['5', '5'],
    ['5; url=', '5; url='],
    ['soon; url=/api/x', 'soon; url=/api/x'],
  ])('%s becomes %s', (value, expected) => {
    expect(clientRefresh(value, store, client)).toBe(expected);
  });
});

describe('a cookie', () => {
  const rewrite = cookieRewriteOf(
    { '.Old.example': 'new.example', gone: '' },
    { '/a': '/b', '/a/deep/': '/', '/c': '/c/d' },
  );
  test.each([
    ['a=1; DOMAIN = old.EXAMPLE ;Path=/a', 'a=1; DOMAIN =new.example;Path=/b'],
    ['a=1; Domain=gone; Secure', 'a=1; Secure'],
    ['a=1; path=/a/deep/x', 'a=1; path=/x'],
    ['a=1; path=/a/deep', 'a=1; path=/'],
    ['a=1; path=/c/', 'a=1; path=/c/d/'],
    ['a=1; Domain=sub.old.example; Path=/ab', 'a=1; Domain=sub.old.example; Path=/ab'],
    ['Domain=old.example; Domain', 'Domain=old.example; Domain'],
    ['', ''],
  ])('%j becomes %j', (value, expected) => {
    expect(clientCookie(value, rewrite)).toBe(expected);
  });
});
