/** What a request is and where it belongs. */
import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import { createClassifier, type Classifier, type MatchedRequest } from '../../../src/proxy/classify.ts';
import type { Place } from '../../../src/proxy/place.ts';
import { isControlPath, overridesMethodInQuery, readTarget } from '../../../src/proxy/target.ts';
import { configOf } from '../../support/proxy.ts';

function requestOf(method: string, url: string, headers: Record<string, string> = {}): IncomingMessage {
  const request = new IncomingMessage(new Socket());
  request.httpVersion = '1.1';
  request.method = method;
  request.url = url;
  request.headers = { host: 'h', ...headers };
  request.rawHeaders = Object.entries(request.headers).flatMap(([name, value]) => [name, String(value)]);
  return request;
}

function classifierOf(changes: Record<string, unknown>): Classifier {
  return createClassifier(configOf(changes));
}

function matchedBy(classifier: Classifier, request: IncomingMessage): MatchedRequest {
  const match = classifier.match(request, false);
  if (match.match !== 'request') throw new Error(`not matched: ${match.match}`);
  return match.request;
}

function placeOf(
  classifier: Classifier,
  request: IncomingMessage,
  user?: string,
  claims: Record<string, unknown> = {},
): Place {
  const identity = user === undefined ? undefined : { user, credential: 'header' as const, claims };
  return classifier.place(request, matchedBy(classifier, request), identity);
}

describe('access', () => {
  const classifier = classifierOf({
    routes: [
      { methods: ['POST'], path: '/search', access: 'read' },
      { methods: ['GET'], path: '/logout', access: 'write' },
    ],
  });
  const accessOf = (method: string, url: string, headers?: Record<string, string>): string =>
    matchedBy(classifier, requestOf(method, url, headers)).access;

  test('is by method, and a route says otherwise', () => {
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'PROPFIND', 'REPORT', 'QUERY']) {
      expect(accessOf(method, '/a')).toBe('read');
    }
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'MOVE', 'MKCALENDAR', 'UNHEARD-OF']) {
      expect(accessOf(method, '/a')).toBe('write');
    }
    expect(accessOf('POST', '/search?q=1')).toBe('read');
    expect(accessOf('GET', '/logout')).toBe('write');
  });

  test('is a write wherever a method override is named', () => {
    for (const name of ['x-http-method-override', 'x-method-override', 'x-http-method']) {
      expect(accessOf('GET', '/a', { [name]: 'DELETE' })).toBe('write');
      expect(accessOf('POST', '/search', { [name]: 'PUT' })).toBe('write');
    }
    for (const query of [
      '_method=DELETE',
      'a=1&_method=put',
      '%5Fmethod=x',
      '_METHOD=x',
      '_method',
      'a;_method=x',
    ]) {
      expect(overridesMethodInQuery(query)).toBe(true);
      expect(accessOf('GET', `/a?${query}`)).toBe('write');
    }
    for (const query of ['', 'method=x', 'a=_method', 'my_method=x']) {
      expect(overridesMethodInQuery(query)).toBe(false);
    }
  });
});

describe('the partition', () => {
  test('is the user by default', () => {
    expect(placeOf(classifierOf({}), requestOf('POST', '/a'), 'ann')).toEqual({
      place: 'partition',
      partition: 'ann',
    });
  });

  test('comes from the first general rule that yields a value', () => {
    const classifier = classifierOf({
      partition: [{ path: '/orgs/:partition/*' }, { header: 'x-org' }, { claim: 'org' }, { by: 'user' }],
    });
    const partitionOf = (request: IncomingMessage, claims = {}): unknown =>
      placeOf(classifier, request, 'ann', claims);
    const at = (partition: string): unknown => ({ place: 'partition', partition });
    expect(partitionOf(requestOf('PUT', '/orgs/o%201/x?y'))).toEqual(at('o 1'));
    expect(partitionOf(requestOf('PUT', '/x', { 'x-org': 'o2' }), { org: 'o3' })).toEqual(at('o2'));
    expect(partitionOf(requestOf('PUT', '/x'), { org: 'o3' })).toEqual(at('o3'));
    expect(partitionOf(requestOf('PUT', '/x'))).toEqual(at('ann'));
  });

  test("that a route names is the route's alone, and never the caller's instead", () => {
    const classifier = classifierOf({
      routes: [
        { path: '/calendars/:owner/*', partition: 'path.owner' },
        { path: '/by-header', partition: 'header.x-owner' },
        { path: '/by-claim', partition: 'claim.team' },
      ],
    });
    expect(placeOf(classifier, requestOf('PUT', '/calendars/bob/1'), 'ann')).toEqual({
      place: 'partition',
      partition: 'bob',
    });
    for (const path of ['/by-header', '/by-claim']) {
      const place = placeOf(classifier, requestOf('PUT', path), 'ann');
      expect(place).toMatchObject({ place: 'refused', failure: { code: 'no-partition' } });
    }
    const unusable = requestOf('PUT', '/by-claim');
    expect(placeOf(classifier, unusable, 'ann', { team: { a: 1 } })).toMatchObject({ place: 'refused' });
  });
});

describe('a request without identity', () => {
  const routes = [
    { path: '/login', store: 'legacy', anonymous: true },
    { path: '/pinned', store: 'app' },
  ];

  test('is refused when it writes, and follows anonymousReads when it reads', () => {
    const classifier = classifierOf({ routes, anonymousReads: 'app' });
    expect(placeOf(classifier, requestOf('POST', '/a'))).toMatchObject({ failure: { code: 'no-identity' } });
    expect(placeOf(classifier, requestOf('GET', '/a'))).toEqual({ place: 'store', store: 'app' });
    const strict = classifierOf({ routes, anonymousReads: 'refuse' });
    expect(placeOf(strict, requestOf('GET', '/a'))).toMatchObject({ failure: { code: 'no-identity' } });
  });

  test('passes on a pinned route only where that is anonymous', () => {
    const classifier = classifierOf({ routes });
    expect(placeOf(classifier, requestOf('POST', '/login'))).toEqual({ place: 'store', store: 'legacy' });
    expect(placeOf(classifier, requestOf('GET', '/pinned'))).toMatchObject({
      failure: { code: 'no-identity' },
    });
    expect(placeOf(classifier, requestOf('POST', '/pinned'), 'ann')).toEqual({
      place: 'store',
      store: 'app',
    });
  });
});

describe('the target', () => {
  test('is taken as it is, or refused', () => {
    expect(readTarget('/a?b#c', 'h')).toHaveProperty('refused');
    expect(readTarget('*', 'h')).toHaveProperty('refused');
    expect(readTarget('ftp://h/a', 'h')).toHaveProperty('refused');
    expect(readTarget('http://other/a', 'h')).toHaveProperty('refused');
    expect(readTarget('http://user@h/a', 'h')).toHaveProperty('refused');
    expect(readTarget('http://H?q', 'h')).toEqual({ target: '/?q', path: '/', query: 'q' });
    expect(readTarget('//a//b?c', 'h')).toEqual({ target: '//a//b?c', path: '//a//b', query: 'c' });
  });

  test('of the control area is seen in any spelling, and nothing else is', () => {
    for (const path of [
      '/.well-known/onewriter/x',
      '/.WELL-known/%4fnewriter',
      '/app/.well-known//onewriter/x',
    ]) {
      expect(isControlPath(path)).toBe(true);
    }
    for (const path of [
      '/.well-known/onewriter-docs',
      '/onewriter',
      '/.well-known/caldav',
      '/%zz/onewriter',
    ]) {
      expect(isControlPath(path)).toBe(false);
    }
  });
});

describe('a path that is spelled in another way', () => {
  const classifier = classifierOf({
    routes: [
      { path: '/api/orgs/:org/*', partition: 'path.org' },
      { path: '/api/run', access: 'write' },
      { path: '/login', store: 'legacy', anonymous: true },
      { path: '/plain', record: { kind: 'note', id: 'path.id' } },
    ],
  });

  test.each(['/api/%6frgs/org1/x', '/%61pi/orgs/org1/x', '/api/orgs/%6frg1/x'])(
    '%s means the same to every server, and is matched so',
    (url) => {
      const place = placeOf(classifier, requestOf('PUT', url), 'u7');
      expect(place).toEqual({ place: 'partition', partition: 'org1' });
    },
  );

  test.each([
    '/API/orgs/org1/x',
    '/api//orgs/org1/x',
    '/api/orgs;x=1/org1/x',
    '/api/RUN',
    '/api/run/',
    '/LOGIN',
    '/login/',
  ])('%s could be another route to a server that overlooks it, and is refused', (url) => {
    expect(classifier.match(requestOf('GET', url), false)).toMatchObject({
      match: 'refused',
      failure: { code: 'bad-target' },
    });
  });

  test.each([
    '/api/orgs/org1;v=1/x',
    '/api/orgs/org1%3Bv=1/x',
    '/api/orgs/org1;/x',
    '/api/orgs/;v/org1/x',
    '/api/orgs/org1%20;v/x',
  ])('%s could name another partition to a server that overlooks it, and is refused', (url) => {
    for (const method of ['GET', 'PUT']) {
      expect(classifier.match(requestOf(method, url), false)).toMatchObject({
        match: 'refused',
        failure: { code: 'bad-target' },
      });
    }
  });

  test('names the partition as it is written: in its letters, and with what is no parameter', () => {
    for (const [url, partition] of [
      ['/api/orgs/Org1/x', 'Org1'],
      ['/api/orgs/org1%2Cv=1/x', 'org1,v=1'],
      ['/api/orgs/org1/x;v=1', 'org1'],
    ] as const) {
      expect(placeOf(classifier, requestOf('PUT', url), 'u7')).toEqual({ place: 'partition', partition });
    }
  });

  test('names no other partition by another rule of the same effect', () => {
    const twice = classifierOf({
      routes: ['/v1/:owner/*', '/:owner/*'].map((path) => ({ path, partition: 'path.owner' })),
    });
    for (const url of ['/V1/o1/x', '/v1;a/o1/x']) {
      expect(twice.match(requestOf('PUT', url), false)).toMatchObject({ failure: { code: 'bad-target' } });
    }
  });

  test('names no other partition by the general rules', () => {
    const byTemplate = classifierOf({ partition: [{ path: '/orgs/:partition/*' }, { by: 'user' }] });
    const byName = classifierOf({
      routes: [{ path: '/orgs/:org/*' }, { path: '/pinned/:org', store: 'legacy' }],
      partition: [{ path: 'org' }, { by: 'user' }],
    });
    for (const url of ['/orgs/o1;v=1/x', '/ORGS/o1/x', '/orgs//o1/x']) {
      expect(placeOf(byTemplate, requestOf('PUT', url), 'u7')).toMatchObject({ place: 'refused' });
      expect(byName.match(requestOf('PUT', url), false)).toMatchObject({ failure: { code: 'bad-target' } });
    }
    for (const classifier of [byTemplate, byName]) {
      expect(placeOf(classifier, requestOf('PUT', '/orgs/O1/x;v'), 'u7')).toMatchObject({ partition: 'O1' });
      expect(placeOf(classifier, requestOf('PUT', '/Other//x;v'), 'u7')).toMatchObject({ partition: 'u7' });
    }
    // What is pinned belongs to no partition.
    expect(placeOf(byName, requestOf('PUT', '/pinned/o1;v'), 'u7')).toEqual({
      place: 'store',
      store: 'legacy',
    });
  });

  test('names no other partition in bytes that are no UTF-8, and the refusal says so', () => {
    const byTemplate = classifierOf({ partition: [{ path: '/users/:partition/*' }] });
    for (const name of ['al%FFce', 'al%C0%AFce', 'al%ED%A0%80ce', 'al%zz']) {
      expect(classifier.match(requestOf('PUT', `/api/orgs/${name}/x`), false)).toMatchObject({
        failure: {
          code: 'bad-target',
          detail: expect.stringContaining('percent-encoded bytes that are no UTF-8'),
        },
      });
      expect(placeOf(byTemplate, requestOf('PUT', `/users/${name}/x`), 'u7')).toMatchObject({
        failure: { code: 'no-partition', detail: expect.stringContaining('could read another one there') },
      });
      expect(placeOf(classifier, requestOf('PUT', `/api/orgs/o1/${name}`), 'u7')).toMatchObject({
        partition: 'o1',
      });
    }
  });

  test('is let through where no rule would treat it differently', () => {
    expect(placeOf(classifier, requestOf('PUT', '/plain/'), 'u7')).toMatchObject({ partition: 'u7' });
    expect(placeOf(classifier, requestOf('PUT', '/Other//path/'), 'u7')).toMatchObject({ partition: 'u7' });
  });

  test('with an encoded control character is refused', () => {
    expect(classifier.match(requestOf('GET', '/a%00b'), false)).toMatchObject({ match: 'refused' });
  });
});

describe('a path with an ending', () => {
  const routes = [
    { path: '/logout', access: 'write' },
    { path: '/users/:id', partition: 'path.id' },
  ];
  const byTemplate = { partition: [{ path: '/orgs/:partition' }] };
  const at = (partition: string): unknown => ({ place: 'partition', partition });
  const why = { code: 'bad-target', detail: expect.stringContaining('pathEndings in the configuration') };

  test('is refused where some servers would take it for another one, and the refusal says what to do', () => {
    const classifier = classifierOf({ routes });
    for (const url of ['/logout.json', '/logout.x', '/users/1.json']) {
      expect(classifier.match(requestOf('GET', url), false)).toMatchObject({ failure: why });
    }
    expect(placeOf(classifier, requestOf('PUT', '/users/ann@shop.example'), 'u7')).toEqual(
      at('ann@shop.example'),
    );
    expect(placeOf(classifierOf(byTemplate), requestOf('PUT', '/orgs/1.json'), 'u7')).toMatchObject({
      failure: { code: 'no-partition' },
    });
  });

  test('is the path without it where the stores take it off', () => {
    const classifier = classifierOf({ routes, pathEndings: ['json'] });
    expect(matchedBy(classifier, requestOf('GET', '/logout.json'))).toMatchObject({
      ...{ access: 'write', target: '/logout.json' },
    });
    expect(placeOf(classifier, requestOf('PUT', '/users/1.json'), 'u7')).toEqual(at('1'));
    const template = classifierOf({ ...byTemplate, pathEndings: ['json'] });
    expect(placeOf(template, requestOf('PUT', '/orgs/1.json'), 'u7')).toEqual(at('1'));
    const none = classifierOf({ routes, pathEndings: [] });
    expect(matchedBy(none, requestOf('GET', '/logout.json')).access).toBe('read');
    expect(placeOf(none, requestOf('PUT', '/users/1.json'), 'u7')).toEqual(at('1.json'));
  });
});

test('an override of the method is seen in the spelling of gateways too', () => {
  const request = requestOf('GET', '/a', { x_http_method_override: 'DELETE' });
  expect(matchedBy(classifierOf({}), request).access).toBe('write');
});
