/** Requests that touch several partitions: which ones, and what is refused because nobody can tell. */
import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createClassifier } from '../../../src/proxy/classify.ts';
import { entriesMax } from '../../../src/proxy/partition-list.ts';
import { partitionsMax, type Place } from '../../../src/proxy/place.ts';
import { configOf } from '../../support/proxy.ts';

interface Sent {
  readonly method?: string;
  readonly url?: string;
  /** Flat: names and values, in order. */
  readonly headers?: readonly string[];
  readonly type?: string;
  /** Left out: there is none. `too long`: it is over the limit. */
  readonly body?: string;
  readonly user?: string;
}

function placeOf(config: Record<string, unknown>, sent: Sent): Place {
  const { method = 'POST', url = '/batch', headers = [], type = 'application/json', body } = sent;
  const request = new IncomingMessage(new Socket());
  request.httpVersion = '1.1';
  request.method = method;
  request.url = url;
  const framing =
    body === undefined ? [] : ['Content-Length', String(Buffer.byteLength(body)), 'Content-Type', type];
  request.rawHeaders = ['Host', 'h.example', ...headers, ...framing];
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    request.headers[(request.rawHeaders[at] ?? '').toLowerCase()] ??= request.rawHeaders[at + 1] ?? '';
  }
  const classifier = createClassifier(configOf(config));
  const first = classifier.match(request, false);
  const bytes = body === 'too long' ? undefined : Buffer.from(body ?? '');
  const match = first.match === 'needs-body' ? first.with(bytes) : first;
  if (match.match === 'refused') return { place: 'refused', failure: match.failure };
  if (match.match !== 'request') throw new Error(`not matched: ${match.match}`);
  const { user = 'ann' } = sent;
  return classifier.place(
    request,
    match.request,
    user === '' ? undefined : { user, credential: 'header', claims: { team: 't1' } },
  );
}

/** Names of the partitions, or why there are none. */
function found(config: Record<string, unknown>, sent: Sent): readonly string[] | string {
  const place = placeOf(config, sent);
  if (place.place === 'refused') return place.failure.code;
  return place.place === 'partition' ? [place.partition, ...(place.also ?? [])] : place.place;
}

const by = (partitions: string | readonly string[], more = {}): Record<string, unknown> => ({
  routes: [{ path: '/batch', partitions, ...more }],
});
const owners = by('body.requests[*].owner');

describe('partitions in a JSON body', () => {
  const rows: [what: string, body: string | undefined, expected: readonly string[] | string][] = [
    ['one', '{"requests":[{"owner":"u2"}]}', ['u2']],
    ['several, each once', '{"requests":[{"owner":"u2"},{"owner":"u3"},{"owner":"u2"}]}', ['u2', 'u3']],
    ['numbers in their shortest form', '{"requests":[{"owner":17},{"owner":"u3"}]}', ['17', 'u3']],
    ['white space and other fields', ' {"x": [1], "requests" : [ { "a":{}, "owner":"u2" } ] } ', ['u2']],
    ['none', '{"requests":[]}', 'no-partition'],
    ['no list', '{"request":[]}', 'no-partition'],
    ['an entry without an owner', '{"requests":[{"owner":"u2"},{}]}', 'no-partition'],
    ['an entry that is no object', '{"requests":[{"owner":"u2"},"u3"]}', 'no-partition'],
    ['an owner that is null', '{"requests":[{"owner":null}]}', 'no-partition'],
    ['an owner that is a list', '{"requests":[{"owner":["u2"]}]}', 'no-partition'],
    ['an empty owner', '{"requests":[{"owner":""}]}', 'no-partition'],
    ['a number that readers round', '{"requests":[{"owner":17.0}]}', 'no-partition'],
    ['an owner with a control character', '{"requests":[{"owner":"u\\n2"}]}', 'no-partition'],
    ['an owner twice', '{"requests":[{"owner":"u2","owner":"u3"}]}', 'no-partition'],
    ['an owner twice, the same', '{"requests":[{"owner":"u2","owner":"u2"}]}', 'no-partition'],
    ['an owner in another case beside it', '{"requests":[{"owner":"u2","Owner":"u3"}]}', 'no-partition'],
    ['an owner only in another case', '{"requests":[{"Owner":"u2"}]}', 'no-partition'],
    ['two lists', '{"requests":[{"owner":"u2"}],"requests":[{"owner":"u3"}]}', 'no-partition'],
    ['an object for a list, as PHP takes it', '{"requests":{"0":{"owner":"u2"}}}', 'no-partition'],
    ['null for a list', '{"requests":null}', 'no-partition'],
    ['an array for the whole body', '[{"owner":"u2"}]', 'no-partition'],
    ['no JSON', '{"requests":[{"owner":"u2"}', 'no-partition'],
    ['more than a body may have', 'too long', 'no-partition'],
    ['no body', undefined, 'no-partition'],
  ];
  test.each(rows)('%s', (_, body, expected) => {
    expect(found(owners, body === undefined ? {} : { body })).toEqual(expected);
  });

  test.each(['application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'text/xml', ''])(
    'are not to be had from a body of the type "%s", also beside the acting user\u2019s own',
    (type) => {
      const sent = { type, body: 'requests[0][owner]=u3' };
      expect(found(owners, sent)).toBe('no-partition');
      expect(found(by('body.requests[*].owner', { partition: 'user' }), sent)).toBe('no-partition');
    },
  );

  test.each([
    ['an object for a list, as PHP takes it', '{"requests":{"0":{"owner":"u2"}}}'],
    ['null for a list', '{"requests":null}'],
    ['an array for the whole body', '[{"owner":"u2"}]'],
    ['an entry without an owner', '{"requests":[{}]}'],
    ['more than a body may have', 'too long'],
  ])('do not pass for none beside the acting user\u2019s own: %s', (_, body) => {
    expect(found(by('body.requests[*].owner', { partition: 'user' }), { body })).toBe('no-partition');
  });

  test('stand at any depth', () => {
    const config = by('body.data.rooms[*].guests[*].id');
    const body =
      '{"data":{"rooms":[{"guests":[{"id":"a"},{"id":"b"}]},{"guests":[]},{"guests":[{"id":"c"}]}]}}';
    expect(found(config, { body })).toEqual(['a', 'b', 'c']);
    expect(found(config, { body: '{"data":{"rooms":[{}]}}' })).toBe('no-partition');
    expect(found(config, { body: '{"data":"x"}' })).toBe('no-partition');
  });

  test('are values themselves', () => {
    expect(found(by('body.owners[*]'), { body: '{"owners":["a","b"]}' })).toEqual(['a', 'b']);
    expect(found(by('body.grid[*][*]'), { body: '{"grid":[["a"],["b","a"]]}' })).toEqual(['a', 'b']);
  });

  test('of a batch are read by one path, of a single call by the other (JSON-RPC, GraphQL)', () => {
    const config = by(['body[*].params.owner', 'body.params.owner']);
    expect(found(config, { body: '[{"params":{"owner":"a"}},{"params":{"owner":"b"}}]' })).toEqual([
      'a',
      'b',
    ]);
    expect(found(config, { body: '{"params":{"owner":"a"}}' })).toEqual(['a']);
    expect(found(config, { body: '[{"params":{"owner":"a"}},{"params":{}}]' })).toBe('no-partition');
    expect(found(config, { body: '"a"' })).toBe('no-partition');
    expect(found(by('body[*].owner'), { body: '{"owner":"a"}' })).toBe('no-partition');
  });

  test('of two fields are both', () => {
    const config = by(['body.from', 'body.to']);
    expect(found(config, { body: '{"from":"a","to":"b"}' })).toEqual(['a', 'b']);
    expect(found(config, { body: '{"from":"a"}' })).toEqual(['a']);
    expect(found(config, { body: '{"from":"a","to":null}' })).toBe('no-partition');
  });

  test('are counted, and so are the entries that name them', () => {
    const body = (count: number, name: (at: number) => string): string =>
      JSON.stringify({ requests: Array.from({ length: count }, (_, at) => ({ owner: name(at) })) });
    const many = (count: number) => found(owners, { body: body(count, (at) => `u${at}`) });
    expect(many(partitionsMax)).toHaveLength(partitionsMax);
    expect(many(partitionsMax + 1)).toBe('too-many-partitions');
    expect(found(owners, { body: body(entriesMax, () => 'u1') })).toEqual(['u1']);
    expect(found(owners, { body: body(entriesMax + 1, () => 'u1') })).toBe('too-many-partitions');
    // Also where no single list is that long.
    const row = Array.from({ length: entriesMax / 2 }, () => 'u1');
    expect(found(by('body[*][*]'), { body: JSON.stringify([row]) })).toEqual(['u1']);
    expect(found(by('body[*][*]'), { body: JSON.stringify([row, row]) })).toBe('too-many-partitions');
    const long = body(40, (at) => `${at}`.padEnd(200, 'x'));
    expect(found(owners, { body: long })).toBe('too-many-partitions');
  });
});

describe('which partitions are meant', () => {
  test('only those that the route names: not the acting user\u2019s, unless the route names it, too', () => {
    const body = '{"requests":[{"owner":"u2"}]}';
    expect(found(owners, { body })).toEqual(['u2']);
    expect(found(by('body.requests[*].owner', { partition: 'user' }), { body })).toEqual(['ann', 'u2']);
    expect(found(by(['user', 'body.requests[*].owner']), { body })).toEqual(['ann', 'u2']);
    const own = '{"requests":[{"owner":"ann"}]}';
    expect(found(by('body.requests[*].owner', { partition: 'user' }), { body: own })).toEqual(['ann']);
  });

  test('beside the route\u2019s own there need be no others; without its own there is nothing', () => {
    const config = by('body.guests[*]', { partition: 'header.x-org' });
    expect(found(config, { headers: ['x-org', 'o1'], body: '{}' })).toEqual(['o1']);
    expect(found(config, { headers: ['x-org', 'o1'] })).toEqual(['o1']);
    expect(found(config, { body: '{"guests":["a"]}' })).toBe('no-partition');
  });

  test('a write by nobody in particular needs a route that allows it', () => {
    const body = '{"requests":[{"owner":"u2"},{"owner":"u3"}]}';
    expect(found(owners, { user: '', body })).toBe('no-identity');
    expect(found(by('body.requests[*].owner', { anonymous: true }), { user: '', body })).toEqual([
      'u2',
      'u3',
    ]);
  });

  test('a read that names none goes where reads of nobody go', () => {
    expect(found(by('query.ids[*]'), { method: 'GET' })).toBe('store');
    expect(found(by('query.ids[*]'), { method: 'GET', url: '/batch?ids=a&ids=b' })).toEqual(['a', 'b']);
  });
});

describe('partitions in query, headers, path and claims', () => {
  const rows: [what: string, place: string, sent: Sent, expected: readonly string[] | string][] = [
    ['a repeated parameter', 'query.ids[*]', { url: '/batch?ids=a&x=1&ids=b%20c' }, ['a', 'b c']],
    ['one with commas is one name', 'query.ids[*]', { url: '/batch?ids=a,b' }, ['a,b']],
    ['in brackets, as it is named', 'query.ids[][*]', { url: '/batch?ids[]=a&ids[]=b' }, ['a', 'b']],
    ['in brackets, as others read it', 'query.ids[*]', { url: '/batch?ids=a&ids[]=b' }, 'no-partition'],
    ['behind a semicolon', 'query.ids[*]', { url: '/batch?ids=a;ids=b' }, 'no-partition'],
    ['one without a value', 'query.ids[*]', { url: '/batch?ids=a&ids=' }, 'no-partition'],
    ['a list', 'query.ids[,]', { url: '/batch?ids=a,b%2Cc' }, ['a', 'b', 'c']],
    ['a list twice', 'query.ids[,]', { url: '/batch?ids=a&ids=b' }, 'no-partition'],
    ['a list with a gap', 'query.ids[,]', { url: '/batch?ids=a,,b' }, 'no-partition'],
    ['a header', 'header.X-Owners[*]', { headers: ['x-owners', 'a, b', 'X-Owners', 'c'] }, ['a', 'b', 'c']],
    ['a header with a gap', 'header.X-Owners[*]', { headers: ['x-owners', 'a,'] }, 'no-partition'],
    ['a header that is no text', 'header.X-Owners[*]', { headers: ['x-owners', 'a\u00ff'] }, 'no-partition'],
    ['a single header twice', 'header.x-o', { headers: ['x-o', 'a', 'x-o', 'b'] }, 'no-partition'],
    ['a claim', 'claim.team', {}, ['t1']],
    ['the user', 'user', {}, ['ann']],
  ];
  test.each(rows)('%s', (_, place, sent, expected) => {
    const identity = [{ jwt: { secret: 'x'.repeat(32), claim: 'sub' } }];
    expect(found({ ...by(place), identity }, sent)).toEqual(expected);
  });

  test('a parameter of the path, beside the body', () => {
    const routes = [{ path: '/calendars/:owner/share', partitions: ['path.owner', 'body.with[*]'] }];
    const sent = { url: '/calendars/u1/share', body: '{"with":["u2"]}' };
    expect(found({ routes }, sent)).toEqual(['u1', 'u2']);
    // Another spelling of the same path could name somebody else.
    expect(found({ routes }, { ...sent, url: '/calendars/u1;v=1/share' })).toBe('bad-target');
  });
});

describe('a MOVE or COPY', () => {
  const calendars = {
    routes: [
      { path: '/inbox/*', store: 'legacy' },
      { path: '/outbox/*', store: 'legacy' },
      { path: '/app/*', store: 'app' },
      { path: '/calendars/:owner/*', partition: 'path.owner' },
      { path: '/open/:owner/*', partition: 'path.owner', anonymous: true },
    ],
  };
  const to = (destination: string, more: Partial<Sent> = {}) =>
    found(calendars, {
      ...{ method: 'MOVE', url: '/calendars/u1/a.ics', headers: ['Destination', destination], ...more },
    });

  test('touches where it goes to, too, named by URL or by path', () => {
    expect(to('http://h.example/calendars/u2/a.ics')).toEqual(['u1', 'u2']);
    expect(to('https://H.EXAMPLE:443/calendars/u2/a.ics')).toEqual(['u1', 'u2']);
    expect(to('/calendars/u2/a.ics')).toEqual(['u1', 'u2']);
    expect(to('/calendars/u1/b.ics')).toEqual(['u1']);
    expect(to('/calendars/u2/a.ics', { method: 'COPY' })).toEqual(['u1', 'u2']);
    // By the general rule what stands at any other path is the acting user's.
    expect(to('/notes/b.txt')).toEqual(['u1', 'ann']);
  });

  const refused: [what: string, destination: string][] = [
    ['another host', 'http://other.example/calendars/u2/a.ics'],
    ['another port', 'http://h.example:8080/calendars/u2/a.ics'],
    ['somebody else\u2019s name before the host', 'http://h.example@other.example/calendars/u2/a.ics'],
    ['a host without a scheme', '//other.example/calendars/u2/a.ics'],
    ['another scheme', 'ftp://h.example/calendars/u2/a.ics'],
    ['a path that does not begin', 'calendars/u2/a.ics'],
    ['dot segments', 'http://h.example/calendars/u2/../u3/a.ics'],
    ['an encoded slash', '/calendars/u2%2Fa.ics'],
    ['a fragment', '/calendars/u2/a.ics#x'],
    ['a space', '/calendars/u2/a b.ics'],
    ['another spelling of its route', '/Calendars/u2/a.ics'],
    ['a name that is no UTF-8', '/calendars/u%FF/a.ics'],
    ['a calendar with an ending', '/calendars/u2.ics'],
    ['nothing', ''],
    ['the guard\u2019s own paths', '/.well-known/onewriter/guard/seal'],
    ['a path that is pinned to a store', '/inbox/a.ics'],
  ];
  test.each(refused)('to %s is refused', (_, destination) => {
    expect(to(destination)).toBe('bad-target');
  });

  test('that is ambiguous is refused with the reason', () => {
    for (const [destination, why] of [
      ['/calendars/u%FF/a', 'no UTF-8'],
      ['/calendars/u2.ics', 'pathEndings'],
    ] as const) {
      const headers = ['Destination', destination];
      expect(placeOf(calendars, { method: 'MOVE', url: '/calendars/u1/a', headers })).toMatchObject({
        failure: { code: 'bad-target', detail: expect.stringContaining(why) },
      });
    }
  });

  test('with two destinations is refused, and without any touches what it names', () => {
    expect(to('', { headers: ['Destination', '/a', 'destination', '/b'] })).toBe('bad-target');
    expect(to('', { headers: [] })).toEqual(['u1']);
  });

  test('to bytes that are no ASCII is refused, and says so', () => {
    for (const name of ['é.ics', '\u0080', 'u\u00ff'].map((text) => Buffer.from(text).toString('latin1'))) {
      for (const destination of [
        `/calendars/u2/${name}`,
        `/calendars/${name}/a`,
        `http://h.example/notes/${name}`,
      ]) {
        const place = placeOf(calendars, {
          ...{ method: 'MOVE', url: '/calendars/u1/a.ics', headers: ['Destination', destination] },
        });
        expect(place).toMatchObject({
          failure: { code: 'bad-target', detail: expect.stringContaining('not ASCII; percent-encode them') },
        });
      }
    }
    expect(to('/calendars/z%C3%B6/a.ics')).toEqual(['u1', 'zö']);
  });

  test('between pinned paths goes to their store, if it is one', () => {
    const inbox = { url: '/inbox/a' };
    expect(to('/outbox/a', inbox)).toBe('store');
    expect(to('/app/a', inbox)).toBe('bad-target');
    expect(to('/calendars/u1/a', inbox)).toBe('bad-target');
  });

  test('needs an identity for either end that does not do without', () => {
    const nobody = { user: '', url: '/open/u1/a' };
    expect(to('/open/u2/a', nobody)).toEqual(['u1', 'u2']);
    expect(to('/calendars/u2/a', nobody)).toBe('no-identity');
  });

  test('that stands for another method does so, too; other requests may use the header as they like', () => {
    const headers = ['Destination', '/calendars/u2/a.ics'];
    expect(to('', { method: 'PUT', headers })).toEqual(['u1']);
    expect(to('', { method: 'POST', headers: [...headers, 'X-HTTP-Method-Override', 'MOVE'] })).toEqual([
      ...['u1', 'u2'],
    ]);
    expect(to('', { url: '/calendars/u1/a?_method=MOVE', method: 'POST', headers })).toEqual(['u1', 'u2']);
  });

  test('may name the host by which a trusted proxy says it was asked', () => {
    const request = new IncomingMessage(new Socket());
    Object.assign(request, { httpVersion: '1.1', method: 'MOVE', url: '/calendars/u1/a' });
    request.rawHeaders = [
      ...['Host', 'inner', 'X-Forwarded-Host', 'shop.example'],
      ...['Destination', 'https://shop.example/calendars/u2/a'],
    ];
    request.headers = { host: 'inner' };
    const matchBy = (trusted: boolean) =>
      createClassifier(configOf(calendars), { cached: () => null }, () => trusted).match(request, false)
        .match;
    expect([matchBy(true), matchBy(false)]).toEqual(['request', 'refused']);
  });

  test('whose destination is read by its body touches what that says', () => {
    const routes = [
      { path: '/calendars/:owner/*', partition: 'path.owner' },
      { path: '/shared/*', partitions: 'body.with[*]' },
    ];
    const sent = { method: 'MOVE', url: '/calendars/u1/a', headers: ['Destination', '/shared/a'] };
    expect(found({ routes }, { ...sent, body: '{"with":["u2","u3"]}' })).toEqual(['u1', 'u2', 'u3']);
    expect(found({ routes }, { ...sent, body: '{"with":"u2"}' })).toBe('no-partition');
  });
});

test('whatever is sent, the answer is partitions that can be named, or a refusal', () => {
  const word = fc.constantFrom('requests', 'owner', 'params', 'Owner', 'x');
  const json = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom('"u2"', '"u3"', '17', 'null', '""', '1e3', 'true', '"\\u0000"'),
      fc.array(tie('value'), { maxLength: 3 }).map((all) => `[${all.join(' , ')}]`),
      fc
        .array(fc.tuple(word, tie('value')), { maxLength: 3 })
        .map((all) => `{${all.map(([name, value]) => `"${name}" :${String(value)}`).join(',')}}`),
    ),
  })).value;
  const places = fc.constantFrom(
    ...['body.requests[*].owner', 'body[*].params.owner', 'body.owner', 'body.requests[*][*]'],
  );
  const destination = fc.oneof(fc.string(), fc.webUrl(), fc.constantFrom('/batch', 'http://h.example/x'));
  fc.assert(
    fc.property(
      fc.uniqueArray(places, { minLength: 1 }),
      fc.oneof(json.map(String), fc.string()),
      fc.constantFrom('POST', 'MOVE'),
      destination,
      (partitions, body, method, where) => {
        const headers = ['Destination', where.replaceAll(/[\u0000-\u001f]/g, '')];
        const place = placeOf(by(partitions), { method, headers, body });
        if (place.place === 'refused') return;
        if (place.place !== 'partition') throw new Error(`it went to a ${place.place}`);
        const names = [place.partition, ...(place.also ?? [])];
        expect(names.every((name) => name !== '')).toBe(true);
        expect(new Set(names).size).toBe(names.length);
      },
    ),
    { numRuns: 1_000 },
  );
});
