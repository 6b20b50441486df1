/** What a request is where its body or its query says so: overrides of the method, GraphQL, partitions. */
import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type Classifier, createClassifier, type Match } from '../../../src/proxy/classify.ts';
import type { Place } from '../../../src/proxy/place.ts';
import { configOf } from '../../support/proxy.ts';

interface Sent {
  readonly method?: string;
  readonly url?: string;
  /** Flat: names and values, in order. */
  readonly headers?: readonly string[];
  readonly type?: string;
  /** `too long` stands for a body over the limit. */
  readonly body?: string | Buffer;
}

const jsonType = 'application/json';
const form = 'application/x-www-form-urlencoded';

function requestOf({ method = 'POST', url = '/a', headers = [], type, body }: Sent): IncomingMessage {
  const request = new IncomingMessage(new Socket());
  request.httpVersion = '1.1';
  request.method = method;
  request.url = url;
  request.rawHeaders = [
    ...['Host', 'h', ...headers],
    ...(body === undefined ? [] : ['Content-Length', String(Buffer.byteLength(body))]),
    ...(type === undefined ? [] : ['Content-Type', type]),
  ];
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    const name = (request.rawHeaders[at] ?? '').toLowerCase();
    request.headers[name] ??= request.rawHeaders[at + 1] ?? '';
  }
  return request;
}

function matchOf(classifier: Classifier, sent: Sent, request = requestOf(sent)): Match {
  let match = classifier.match(request, false);
  while (match.match === 'needs-body') {
    match = match.with(sent.body === 'too long' ? undefined : Buffer.from(sent.body ?? ''));
  }
  return match;
}

function accessOf(routes: unknown[], sent: Sent): string {
  const match = matchOf(createClassifier(configOf({ routes })), sent);
  if (match.match === 'refused') return match.failure.code;
  return match.match === 'request' ? match.request.access : match.match;
}

function placeOf(config: Record<string, unknown>, sent: Sent): Place {
  const classifier = createClassifier(configOf(config));
  const request = requestOf(sent);
  const match = matchOf(classifier, sent, request);
  if (match.match !== 'request') throw new Error(`not matched: ${match.match}`);
  return classifier.place(request, match.request, { user: 'ann', credential: 'header', claims: {} });
}

const partition = (name: string): unknown => ({ place: 'partition', partition: name });
const refused = { place: 'refused', failure: { code: 'no-partition' } };

describe('a read by its route', () => {
  const search = [{ path: '/a', methods: ['POST'], access: 'read' }];
  const rows: [name: string, sent: Sent, access: string][] = [
    ['without a body', {}, 'read'],
    ['with fields', { type: jsonType, body: '{"text":"_method"}' }, 'read'],
    ['with a form', { type: form, body: 'text=_method' }, 'read'],
    ['with a body of no fields', { type: 'text/xml', body: '<a/>' }, 'read'],
    ['with _method in a form', { type: form, body: 'a=1&_method=DELETE' }, 'write'],
    ['with _method in a form as PHP reads it', { type: form, body: '.method=DELETE' }, 'write'],
    ['with _method in JSON', { type: jsonType, body: '{"_method":"DELETE"}' }, 'write'],
    ['with _METHOD in JSON', { type: jsonType, body: '{"_METHOD":"DELETE"}' }, 'write'],
    ['with _method in JSON sent as text', { type: 'text/plain', body: '{"_method":"PUT"}' }, 'write'],
    ['with _method in the query', { url: '/a?_method=DELETE' }, 'write'],
    ['with _method in the query as ASP reads it', { url: '/a?%u005fmethod=DELETE' }, 'write'],
    ['with _method in the query among stray bytes', { url: '/a?_met%FFhod=DELETE' }, 'write'],
    ['with a name in a form that cannot be decoded', { type: form, body: '%u005fmethod=DELETE' }, 'write'],
    ['with a header', { headers: ['X-HTTP-Method', 'DELETE'] }, 'write'],
    ['with a header as PHP reads it', { headers: ['X.HTTP!Method', 'DELETE'] }, 'write'],
    ['with a form in parts', { type: 'multipart/form-data; boundary=x', body: '--x' }, 'write'],
    ['with a body of no type', { body: '_method=DELETE' }, 'write'],
    ['with two types', { headers: ['content-type', 'text/xml'], type: form, body: 'a' }, 'write'],
    ['with an encoded body', { headers: ['Content-Encoding', 'gzip'], type: jsonType, body: 'x' }, 'write'],
    [
      'with a second spelling of the type',
      { headers: ['content_type', form], type: 'a/b', body: 'a' },
      'write',
    ],
    [
      'with a third spelling of the type',
      { headers: ['Content.Type', form], type: 'a/b', body: 'a' },
      'write',
    ],
    ['with a form in another charset', { type: `${form}; charset=utf-16`, body: 'a' }, 'write'],
    ['with broken JSON', { type: jsonType, body: '{' }, 'write'],
    ['with JSON of another type', { type: 'text/xml', body: '{"a":1}' }, 'read'],
    ['with _method in JSON of another type', { type: 'text/xml', body: '{"_method":"DELETE"}' }, 'write'],
    ['with _method in JSON sent as a form', { type: form, body: '{"_method":"DELETE"}' }, 'write'],
    ['with a form that is JSON, too', { type: form, body: '{"a":"&_method=DELETE&"}' }, 'write'],
    ['with broken JSON of another type', { type: 'text/xml', body: ' {_method:"DELETE"}' }, 'write'],
    [
      'with an encoded body of no fields',
      { headers: ['Content-Encoding', 'gzip'], type: 'text/xml', body: 'x' },
      'write',
    ],
    ['with bytes that are no UTF-8', { type: form, body: Buffer.from([0xff]) }, 'write'],
    ['with a body over the limit', { type: jsonType, body: 'too long' }, 'write'],
  ];
  test.each(rows)('%s: %j is a %s', (_, sent, access) => {
    expect(accessOf(search, sent)).toBe(access);
  });
});

describe('an override that its route answers for', () => {
  const named = [
    { path: '/a', query: { _method: 'GET' }, access: 'read' },
    { path: '/a', headers: { 'X-HTTP-Method-Override': 'GET' }, access: 'read' },
    { path: '/a', body: { _method: 'GET' }, access: 'read' },
    { path: '/any', query: { _method: '*' }, access: 'read' },
    { path: '/silent', query: { _method: 'GET' } },
  ];
  const override = ['x-http-method-override', 'GET'];
  const rows: [sent: Sent, access: string][] = [
    [{ type: jsonType, body: '{"_method":"GET"}' }, 'read'],
    [{ type: 'text/plain', body: '{"_method":"GET","where":{}}' }, 'read'],
    [{ url: '/a?_method=GET' }, 'read'],
    [{ headers: override }, 'read'],
    [{ headers: override, type: form, body: 'q=1' }, 'read'],
    [{ type: jsonType, body: '{"_method":"DELETE"}' }, 'write'],
    [{ url: '/a?_method=DELETE' }, 'write'],
    [{ headers: ['x-http-method-override', 'DELETE'] }, 'write'],
    // One is answered for, another one is there, too.
    [{ headers: override, type: form, body: '_method=DELETE' }, 'write'],
    [{ headers: [...override, 'X-HTTP-Method', 'DELETE'] }, 'write'],
    [{ url: '/a?_method=GET', headers: ['X-Method-Override', 'PUT'] }, 'write'],
    [{ url: '/a?_method=GET&_method[]=PUT' }, 'ambiguous-route'],
    [{ url: '/a?_method=GET&_method=PUT' }, 'ambiguous-route'],
    [{ url: '/a?_method=GET&_method=GET' }, 'write'],
    [{ headers: [...override, 'x-http-method-override', 'PUT'] }, 'ambiguous-route'],
    [{ type: jsonType, body: '{"_method":"GET","_method":"PUT"}' }, 'ambiguous-route'],
    [{ type: jsonType, body: '{"_method":"GET","_Method":"PUT"}' }, 'ambiguous-route'],
    // Any value is no answer, and neither is a route that says nothing about the access.
    [{ url: '/any?_method=GET' }, 'write'],
    [{ method: 'GET', url: '/silent?_method=GET' }, 'write'],
  ];
  test.each(rows)('%j is a %s', (sent, access) => {
    expect(accessOf(named, sent)).toBe(access);
  });
});

describe('a route by a field of the body', () => {
  const routes = [
    { path: '/a', body: { 'data.kind': 'search' }, access: 'read' },
    { path: '/a', methods: ['POST'] },
  ];
  const rows: [sent: Sent, access: string][] = [
    [{ type: jsonType, body: '{"data":{"kind":"search"}}' }, 'read'],
    [{ type: jsonType, body: '{"data":{"kind":"change"}}' }, 'write'],
    [{ type: jsonType, body: '{"data":{"kind":"search"},"data":{}}' }, 'ambiguous-route'],
    [{ type: jsonType, body: '{"data":{"kind":"search","KIND":"change"}}' }, 'ambiguous-route'],
    [{ method: 'GET' }, 'read'],
    // What could not be looked into is a write, whatever the method.
    [{ method: 'GET', type: jsonType, body: 'too long' }, 'write'],
    [{ method: 'GET', type: jsonType, body: '[' }, 'write'],
    [{ method: 'REPORT', type: 'text/xml', body: '<a/>' }, 'write'],
    // Some servers decode it whatever its type says, others do not.
    [{ type: 'text/xml', body: '{"data":{"kind":"search"}}' }, 'ambiguous-route'],
    [{ type: form, body: '{"data":{"kind":"change"}}' }, 'write'],
  ];
  test.each(rows)('%j is a %s', (sent, access) => {
    expect(accessOf(routes, sent)).toBe(access);
  });
});

describe('a GraphQL route', () => {
  const routes = [{ path: '/graphql', graphql: true }];
  const sent = (body: Sent['body'], more: Sent = {}): Sent => ({
    ...{ url: '/graphql', type: jsonType },
    ...(body === undefined ? {} : { body }),
    ...more,
  });
  const query = '{"query":"{ a }"}';
  const rows: [sent: Sent, access: string][] = [
    [sent(query), 'read'],
    [sent('{ a }', { type: 'application/graphql' }), 'read'],
    [{ method: 'GET', url: '/graphql?query=%7Ba%7D' }, 'read'],
    [sent('{"query":"mutation { a }"}'), 'write'],
    [sent('too long'), 'write'],
    [sent(query, { headers: ['Content-Encoding', 'gzip'] }), 'write'],
    [sent(query, { headers: ['X-HTTP-Method-Override', 'PUT'] }), 'write'],
    [sent('{"query":"{ a }","_method":"PUT"}'), 'write'],
    [sent(query, { type: 'text/xml' }), 'write'],
    [{ method: 'GET', url: '/graphql' }, 'write'],
  ];
  test.each(rows)('%j is a %s', (request, access) => {
    expect(accessOf(routes, request)).toBe(access);
  });

  test('opens a WebSocket as a writer', () => {
    const classifier = createClassifier(configOf({ routes }));
    const match = classifier.match(requestOf({ method: 'GET', url: '/graphql?query=%7Ba%7D' }), true);
    expect(match).toMatchObject({ match: 'request', request: { access: 'write' } });
  });
});

describe('the partition in the query', () => {
  const rows: [url: string, place: unknown][] = [
    ['/a?owner=bob', partition('bob')],
    ['/a?x=1&%6fwner=b+b', partition('b b')],
    ['/a', partition('ann')],
    ['/a?x=owner', partition('ann')],
    ['/a?owner=', refused],
    ['/a?owner=bob&owner=eve', refused],
    ['/a?owner=bob&owner=bob', refused],
    ['/a?owner=bob&Owner=eve', refused],
    ['/a?owner=bob;owner=eve', refused],
    ['/a?owner[]=bob', refused],
    ['/a?OWNER=bob', refused],
    ['/a?%u006fwner=bob', refused],
    ['/a?owner=bob&%FF=eve', refused],
    ['/a?owner=bob&x=%FF', partition('bob')],
  ];
  test.each(rows)('of %s', (url, place) => {
    expect(placeOf({ partition: [{ query: 'owner' }, { by: 'user' }] }, { url })).toMatchObject(
      place as object,
    );
  });

  test("is the route's alone where the route names it", () => {
    const routes = [{ path: '/a', partition: 'query.owner' }];
    expect(placeOf({ routes }, { url: '/a?owner=bob' })).toEqual(partition('bob'));
    expect(placeOf({ routes }, { url: '/a' })).toMatchObject(refused);
  });
});

describe('a read by a name in its query', () => {
  const query = { action: 'list' };
  const rows: [name: string, sent: Sent, access: string, body?: unknown][] = [
    ['without a body', {}, 'read'],
    ['with another name in a form', { type: form, body: 'id=5' }, 'read'],
    ['with the name in a form', { type: form, body: 'id=5&action=delete' }, 'write'],
    ['with the name in a form as PHP reads it', { type: form, body: 'action[]=delete' }, 'write'],
    ['with another name in JSON', { type: jsonType, body: '{"id":5}' }, 'read'],
    ['with the name in JSON', { type: jsonType, body: '{"action":"delete"}' }, 'write'],
    ['with the name in other letters', { type: jsonType, body: '{"Action":"delete"}' }, 'write'],
    ['with the name in JSON of another type', { type: 'text/xml', body: '{"action":"x"}' }, 'write'],
    ['with what the rule asks of both', { type: jsonType, body: '{"action":"list"}' }, 'read', query],
    ['with a form in parts', { type: 'multipart/form-data; boundary=x', body: '--x' }, 'write'],
  ];
  test.each(rows)('%s', (...[, sent, access, body]) => {
    const rule = { path: '/a', methods: ['POST'], query, access: 'read', ...(body ? { body } : {}) };
    expect(accessOf([rule], { url: '/a?action=list', ...sent })).toBe(access);
  });
});

describe('the partition in the body', () => {
  test.each([
    ['/a?owner=bob', partition('bob')],
    ['/a?owner=eve', refused],
    ['/a?Owner[]=eve', refused],
    ['/a?other=eve', partition('bob')],
  ])('is that of a write to %s only where the query names no other', (url, place) => {
    const config = { partition: [{ body: 'owner' }, { by: 'user' }] };
    expect(placeOf(config, { url, type: jsonType, body: '{"owner":"bob"}' })).toMatchObject(place as object);
  });

  const rows: [sent: Sent, place: unknown][] = [
    [{ type: jsonType, body: '{"data":{"owner":"bob"}}' }, partition('bob')],
    [{ type: jsonType, body: '{"data":{"owner":17}}' }, partition('17')],
    [{ type: jsonType, body: '{"data":{}}' }, partition('ann')],
    [{ type: jsonType, body: '[]' }, partition('ann')],
    [{}, partition('ann')],
    [{ type: 'image/png', body: 'x' }, partition('ann')],
    [{ type: form, body: 'other=bob' }, partition('ann')],
    [{ type: form, body: 'data.owner=bob' }, refused],
    [{ type: form, body: 'a=1&data[owner]=bob' }, refused],
    [{ type: form, body: 'Data%5Bowner]=bob' }, refused],
    [{ type: form, body: 'a='.padEnd(3_000_000, '&') }, refused],
    [{ type: form, body: '{"a":"&data[owner]=bob&"}' }, refused],
    [{ type: 'multipart/form-data; boundary=x', body: '--x' }, refused],
    [{ body: 'data[owner]=bob' }, refused],
    [{ type: 'application/graphql', body: '{ a }' }, partition('ann')],
    // Some servers decode JSON whatever its type says, others do not: it is the one's partition, or the other's.
    ...['image/png', form, 'multipart/form-data; boundary=x', 'application/graphql', undefined].flatMap(
      (type): [Sent, unknown][] => {
        const more = type === undefined ? {} : { type };
        return [
          [{ ...more, body: '{"data":{"owner":"bob"}}' }, refused],
          [{ ...more, body: '\r\n\t {"data":{"owner":"bob"}}' }, refused],
          [{ ...more, body: '{"data":{"Owner":"bob"}}' }, refused],
          [{ ...more, body: '{"data":{}}' }, partition('ann')],
        ];
      },
    ),
    [{ type: 'image/png', body: '{data:{owner:"bob"}}' }, refused],
    [{ type: 'image/png', body: '\ufeff{"data":{"owner":"bob"}}' }, refused],
    [{ type: 'text/xml; charset=utf-16', body: Buffer.from('{"data":{"owner":"bob"}}', 'utf16le') }, refused],
    [{ type: 'image/png', headers: ['Content-Encoding', 'gzip'], body: 'x' }, refused],
    [{ type: 'image/png', headers: ['Content-Encoding', 'identity'], body: 'x' }, partition('ann')],
    [{ type: 'image/png', body: '   ' }, partition('ann')],
    ...['""', 'null', 'true', '{}', '["bob"]', '1.0', '1e2', '9007199254740993'].map(
      (value): [Sent, unknown] => [{ type: jsonType, body: `{"data":{"owner":${value}}}` }, refused],
    ),
    [{ type: jsonType, body: '{"data":{"owner":"bob","owner":"bob"}}' }, refused],
    [{ type: jsonType, body: '{"data":{"owner":"bob","Owner":"eve"}}' }, refused],
    [{ type: jsonType, body: '{"data":{"owner":"bob"},"data":1}' }, refused],
    [{ type: jsonType, body: '{"DATA":{"owner":"bob"}}' }, refused],
    [{ type: jsonType, body: '{"data":{"owner":"bob"},"\u0064ATA":{"owner":"eve"}}' }, refused],
    [{ type: jsonType, body: '{' }, refused],
    [{ type: jsonType, body: 'too long' }, refused],
    [{ type: jsonType, headers: ['Content-Encoding', 'br'], body: 'x' }, refused],
  ];
  test.each(rows)('of %j', (sent, place) => {
    const config = { partition: [{ body: 'data.owner' }, { by: 'user' }] };
    expect(placeOf(config, sent)).toMatchObject(place as object);
  });

  test("is the route's alone where the route names it", () => {
    const routes = [{ path: '/a', partition: 'body.owner' }];
    expect(placeOf({ routes }, { type: jsonType, body: '{"owner":"bob"}' })).toEqual(partition('bob'));
    expect(placeOf({ routes }, { type: jsonType, body: '{}' })).toMatchObject(refused);
    expect(placeOf({ routes }, {})).toMatchObject(refused);
  });

  test('is not looked for where no rule asks for it: the body stays unread', () => {
    const match = createClassifier(
      configOf({ routes: [{ path: '/a', partition: 'user' }], partition: [{ body: 'owner' }] }),
    ).match(requestOf({ type: jsonType, body: '{}' }), false);
    expect(match.match).toBe('request');
  });
});

describe('is looked at once, however many rules ask and however differently the path could be read', () => {
  const manyRules = 60;
  const url = '/a/%2f%5c\\x';
  const times = (text: string, count: number): string => Array.from({ length: count }, () => text).join('');
  const cases: [string, Sent, (name: string) => object][] = [
    [
      'a body',
      { url, type: jsonType, body: `{"a":0${times(',"k":"some text in between"', 9_000)}}` },
      (name) => ({ body: { [name]: 'x' } }),
    ],
    [
      'a large value in it',
      { url, type: jsonType, body: `{"same":[${times('1,', 300_000)}1]}` },
      () => ({ body: { same: 'x' } }),
    ],
    ['a query', { url: `${url}?a${times('&name=1', 9_000)}` }, (name) => ({ query: { [name]: 'x' } })],
  ];
  /** The best of several, ms: what else runs on the machine does not count. */
  function costOf(rules: number, sent: Sent, asking: (name: string) => object): number {
    const routes = Array.from({ length: rules }, (_, at) => ({
      path: '/a/*',
      ...asking(`n${at}`),
      access: 'read',
    }));
    const classifier = createClassifier(configOf({ routes }));
    const costs = Array.from({ length: 5 }, () => {
      const beganMs = performance.now();
      expect(matchOf(classifier, sent).match).toBe('request');
      return performance.now() - beganMs;
    });
    return Math.min(...costs);
  }
  test.each(cases)('%s', (_, sent, asking) => {
    expect(costOf(manyRules, sent, asking)).toBeLessThan(10 * costOf(1, sent, asking));
  });
});

test('whatever is sent, the request is classified or refused, and never throws', () => {
  const classifier = createClassifier(
    configOf({
      partition: [{ query: 'owner' }, { body: 'owner.id' }, { by: 'user' }],
      routes: [
        { path: '/a', body: { _method: 'GET', 'a.b': '*' }, access: 'read' },
        { path: '/a', query: { q: 'x' }, headers: { 'x-a': '*' }, host: '*.example.org', access: 'read' },
        { path: '/g', graphql: true },
        { path: '/*', methods: ['POST'], access: 'read' },
      ],
    }),
  );
  const word = fc.constantFrom('_method', 'owner', 'a', 'b', 'id', 'q', 'query', 'operationName', 'Owner');
  const value = fc.oneof(fc.json(), fc.constantFrom('{ a }', 'mutation { a }', 'GET', 'x', '%zz', '\ud800'));
  const pairs = fc
    .array(fc.tuple(word, value), { maxLength: 4 })
    .map((all) => all.map(([name, text]) => `${name}=${text.replaceAll(/[^!-~]|#/g, '+')}`).join('&'));
  const object = fc
    .array(
      fc.tuple(
        word,
        fc.oneof(
          fc.json(),
          value.map((text) => JSON.stringify(text)),
        ),
      ),
      { maxLength: 4 },
    )
    .map((all) => `{${all.map(([name, text]) => `"${name}":${text}`).join(',')}}`);
  const sent = fc.record({
    method: fc.constantFrom('GET', 'POST', 'PUT', 'REPORT', 'HEAD', 'OPTIONS'),
    url: fc.tuple(fc.constantFrom('/a', '/g', '/A', '/x', '/a;b'), pairs).map((parts) => parts.join('?')),
    headers: fc.constantFrom([], ['x-a', 'x'], ['X-A', 'x', 'x-a', 'y'], ['X-HTTP-Method-Override', 'GET']),
    type: fc.constantFrom(jsonType, form, 'text/plain', 'application/graphql', 'multipart/form-data', ';'),
    body: fc.oneof(
      object,
      pairs,
      fc.string(),
      fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    ),
  });
  fc.assert(
    fc.property(sent, (one) => {
      const request = requestOf(one);
      const match = matchOf(classifier, one, request);
      expect(['request', 'refused']).toContain(match.match);
      if (match.match !== 'request') return;
      const place = classifier.place(request, match.request, {
        user: 'ann',
        credential: 'header',
        claims: {},
      });
      expect(['partition', 'store', 'refused']).toContain(place.place);
    }),
    { numRuns: 1_000 },
  );
});
