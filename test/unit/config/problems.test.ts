import { describe, expect, test } from '@jest/globals';
import { parseConfig } from '../../../src/config/load.ts';
import { problemsWith } from '../../support/config.ts';

const item = 'stores.legacy.connector.records.item';

const severalPlaces =
  'must be body.FIELD or body[*].FIELD (with [*] for each entry of an array), query.NAME[*], query.NAME[,], header.NAME[*], or a place as under partition';

type Case = [name: string, changes: Record<string, unknown>, path: string, message: string | RegExp];

function each(title: string, cases: readonly Case[]): void {
  test.each(cases as Case[])(title, (_, changes, path, message) => {
    const wanted = typeof message === 'string' ? message : expect.stringMatching(message);
    expect(problemsWith(changes)).toEqual([{ path, message: wanted }]);
  });
}

describe('what one key may be', () => {
  each('%s is refused at its place', [
    ['a missing secret', { secret: undefined }, 'secret', 'is missing'],
    ['a short secret', { secret: 'short' }, 'secret', 'must have at least 16 characters'],
    ['a secret that is a number', { secret: 1234567890123456 }, 'secret', /^must be text, not a number/],
    ['a missing section', { identity: undefined }, 'identity', 'is missing'],
    ['an empty list', { identity: [] }, 'identity', 'must have at least 1 entry'],
    ['a missing URL', { 'stores.legacy.url': undefined }, 'stores.legacy.url', 'is missing'],
    ['an FTP URL', { 'stores.app.url': 'ftp://a' }, 'stores.app.url', 'must be an http or https URL'],
    [
      'an ending with its dot',
      { pathEndings: ['json', '.xml'] },
      'pathEndings[1]',
      'must be an ending in small letters without its dot, like json, or "*"',
    ],
    [
      'a pattern of names that is none',
      { partitionNames: { pattern: '[a-' } },
      'partitionNames.pattern',
      'must be a regular expression of JavaScript (with the flag u)',
    ],
    ['a port that is text', { 'proxy.port': 'http' }, 'proxy.port', 'must be a number, not text'],
    ['a port that is too high', { 'proxy.port': 70_000 }, 'proxy.port', 'must be 65535 or less'],
    ['a port below zero', { 'admin.port': -1 }, 'admin.port', 'must be 0 or more'],
    ['half a port', { 'proxy.port': 80.5 }, 'proxy.port', 'must be a whole number, not a fraction'],
    [
      'a role that is none',
      { 'admin.tokens': [{ name: 'a', role: 'root', token: '12345678' }] },
      'admin.tokens[0].role',
      'must be one of "viewer", "operator", "approver", "admin"',
    ],
    [
      'a token without a value',
      { 'admin.tokens': [{ name: 'a', role: 'admin' }] },
      'admin.tokens[0]',
      'needs exactly one of token and sha256',
    ],
    [
      'a hash that is none',
      { 'admin.tokens': [{ name: 'a', role: 'admin', sha256: 'abc' }] },
      'admin.tokens[0].sha256',
      'must be 64 hex digits',
    ],
    [
      'a list that is text',
      { 'proxy.trustedProxies': '10.0.0.0/8' },
      'proxy.trustedProxies',
      'must be a list, not text',
    ],
    [
      'a name for Via that could not stand there',
      { 'proxy.via': 'the proxy' },
      'proxy.via',
      'must be a name, like onewriter or edge.example:8080',
    ],
    [
      'an empty name in a list',
      { 'cohorts.pilot': { partitions: ['a', 'b', ''] } },
      'cohorts.pilot.partitions[2]',
      'must not be empty',
    ],
    [
      'a wave that is no size',
      { 'flip.waves': ['1', 'half'] },
      'flip.waves[1]',
      /^must be a number or a percentage/,
    ],
    ['waves that do not grow', { 'flip.waves': ['5', '2', '100%'] }, 'flip.waves', /^must grow/],
    ['a section that is empty', { redis: null }, 'redis', 'is empty; it must be a mapping'],
    ['a path without a slash', { routes: [{ path: 'login' }] }, 'routes[0].path', 'must start with "/"'],
    [
      'a name that is not allowed',
      { cohorts: { 'two words': { partitions: ['a'] } } },
      'cohorts["two words"]',
      /^is not a name that is allowed/,
    ],
  ]);

  each('%s: the alternatives are told by the keys that are there', [
    ['a header rule without peers', { identity: [{ header: 'x-user' }] }, 'identity[0].from', 'is missing'],
    [
      'a JWT with two kinds of keys',
      { identity: [{ jwt: { secret: 'a'.repeat(32), jwksUrl: 'http://a' } }] },
      'identity[0].jwt',
      'needs exactly one of secret and jwksUrl',
    ],
    [
      'a rule with nothing known',
      { identity: [{ saml: 1 }] },
      'identity[0]',
      /^must be one of: \{ header, from \}, \{ jwt \}/,
    ],
    [
      'a rule that is text',
      { partition: ['user'] },
      'partition[0]',
      /^must be one of: \{ by \}, \{ header \}/,
    ],
    ['a partition by something else', { partition: [{ by: 'team' }] }, 'partition[0].by', 'must be "user"'],
    ['a percentage without a salt', { 'cohorts.a': { percent: 10 } }, 'cohorts.a.salt', 'is missing'],
    [
      'an empty cohort',
      { 'cohorts.a': {} },
      'cohorts.a',
      'must be one of: { partitions }, { percent, salt }, { where }',
    ],
    [
      'a bound that is text',
      { 'cohorts.a': { where: { seats: { gt: '100' } } } },
      'cohorts.a.where.seats.gt',
      'must be a number, not text',
    ],
    [
      'an unknown connector',
      { 'stores.app.connector': { kind: 'soap' } },
      'stores.app.connector.kind',
      'must be one of: "rest", "postgres", "caldav"',
    ],
    [
      'a page without a size',
      { [`${item}.list.query.page`]: '{page}', [`${item}.list.paging`]: { page: { from: 0 } } },
      `${item}.list.paging.page.size`,
      'is missing',
    ],
    [
      'a switch of words',
      { 'sync.rollbackWindow': 'later' },
      'sync.rollbackWindow',
      'must be one of: "off", "on", true or false',
    ],
  ]);

  each('%s is unknown, and the nearest known key is suggested', [
    ['a swap at the top', { secert: 'x' }, 'secert', 'is not a known key; did you mean "secret"?'],
    [
      'a letter too few',
      { 'proxy.debugHeader': true },
      'proxy.debugHeader',
      'is not a known key; did you mean "debugHeaders"?',
    ],
    [
      'another case',
      { routes: [{ path: '/a', Methods: ['GET'] }] },
      'routes[0].Methods',
      'is not a known key; did you mean "methods"?',
    ],
    [
      'a key of a record kind',
      { [`${item}.verison`]: 'v' },
      `${item}.verison`,
      'is not a known key; did you mean "version"?',
    ],
    [
      'a key of an alternative',
      { identity: [{ header: 'x-user', from: ['::1'], form: 'x' }] },
      'identity[0].form',
      'is not a known key; did you mean "from"?',
    ],
    ['a key like no other', { 'redis.database': 1 }, 'redis.database', 'is not a known key; known here: url'],
  ]);
});

describe('what one key must know of another', () => {
  each('%s is refused', [
    [
      'draining that takes as long as the fence',
      { 'flip.drainMs': 3_000 },
      'flip.drainMs',
      /less than flip.fenceMs \(3000\)/,
    ],
    [
      'a fence that outlasts the hold',
      { 'flip.fenceMs': 6_000 },
      'flip.fenceMs',
      /less than flip.holdMs \(5000\)/,
    ],
    [
      'a head that may take longer than its request',
      { 'proxy.limits': { headersTimeoutMs: 5_000, requestTimeoutMs: 4_000 } },
      'proxy.limits.headersTimeoutMs',
      'must not be more than requestTimeoutMs (4000): the head is a part of the request',
    ],
    [
      'more held writes of one partition than of all',
      { 'proxy.limits': { heldPerPartition: 11, heldTotal: 10 } },
      'proxy.limits.heldPerPartition',
      'must not be more than heldTotal (10)',
    ],
    [
      'held writes that could take every connection',
      { 'proxy.limits': { heldTotal: 1_000, connections: 1_000 } },
      'proxy.limits.heldTotal',
      /^must be less than connections \(1000\)/,
    ],
    [
      'a limit that is none',
      { 'proxy.limits': { headerBytes: 100 } },
      'proxy.limits.headerBytes',
      'must be 1024 or more',
    ],
    [
      'a key that its first write outlasts',
      { 'proxy.idempotency.keepMs': 40_000 },
      'proxy.idempotency.keepMs',
      /more than stores.legacy.writeTimeoutMs and settleMs together \(40000\)/,
    ],
    ['one port for both', { 'admin.port': 8080 }, 'admin.port', /also the port of the proxy/],
    [
      'a store that is the proxy',
      { 'stores.app.url': 'http://localhost:8080' },
      'stores.app.url',
      /go in a circle/,
    ],
    [
      'one store twice',
      { 'stores.app.url': 'http://127.0.0.1:9001/' },
      'stores.app.url',
      /same as stores.legacy.url/,
    ],
    [
      'credentials in a URL',
      { 'stores.app.url': 'http://me:pw@127.0.0.1:1' },
      'stores.app.url',
      /must not contain a user/,
    ],
    [
      'a query in a URL',
      { 'stores.app.url': 'http://127.0.0.1:1/?a=b' },
      'stores.app.url',
      /must not contain "\?"/,
    ],
    [
      'a Redis that is none',
      { 'redis.url': 'http://127.0.0.1' },
      'redis.url',
      /must be "embedded" or a redis/,
    ],
    [
      'replicas of the embedded Redis',
      { 'ledger.minReplicas': 1 },
      'ledger.minReplicas',
      /must be 0 with redis.url "embedded"/,
    ],
    [
      'a range that is none',
      { 'proxy.trustedProxies': ['10.0.0.0/8', '10.0.0.0/33'] },
      'proxy.trustedProxies[1]',
      /range like/,
    ],
    [
      'a name as a peer',
      { identity: [{ header: 'x-user', from: ['localhost'] }] },
      'identity[0].from[0]',
      /range like/,
    ],
    [
      'a token name used twice',
      {
        'admin.tokens': [
          { name: 'a', role: 'admin', token: '12345678' },
          { name: 'a', role: 'viewer', token: '87654321' },
        ],
      },
      'admin.tokens[1].name',
      /already the name of admin.tokens\[0\]/,
    ],
  ]);

  each('%s in a route is refused', [
    [
      'a parameter the path does not have',
      { routes: [{ path: '/a/:b', partition: 'path.c' }] },
      'routes[0].partition',
      'names path.c, but the path of the route has no :c; it has :b',
    ],
    [
      'a partition from nowhere',
      { routes: [{ path: '/a', partition: 'cookie.c' }] },
      'routes[0].partition',
      /^must be user, path.NAME/,
    ],
    [
      'a place of one partition with a list in it',
      { routes: [{ path: '/a', partition: 'body.requests[*].owner' }] },
      'routes[0].partition',
      'names one place; what has [*] or [,] stands under partitions',
    ],
    ...[
      'body',
      'body.',
      'body.a..b',
      'body[0].a',
      'body.a[*',
      'cookie.a',
      'query.a[0]',
      'header.x[,]',
      '',
    ].map((place): Case => [
      `the place of several partitions "${place}"`,
      { routes: [{ path: '/a', partitions: place }] },
      'routes[0].partitions',
      severalPlaces,
    ]),
    [
      'one of the places',
      { routes: [{ path: '/a', partitions: ['user', 'nowhere'] }] },
      'routes[0].partitions[1]',
      severalPlaces,
    ],
    [
      'a parameter that the path does not have, among them',
      { routes: [{ path: '/a/:owner', partitions: ['path.user'] }] },
      'routes[0].partitions[0]',
      'names path.user, but the path of the route has no :user; it has :owner',
    ],
    [
      'a claim where nobody has claims, among them',
      { routes: [{ path: '/a', partitions: 'claim.team' }] },
      'routes[0].partitions',
      'needs claims, but no rule of identity is a jwt',
    ],
    [
      'several partitions on a route that is pinned',
      { routes: [{ path: '/a', store: 'legacy', partitions: 'query.ids[*]' }] },
      'routes[0].partitions',
      'cannot stand beside store: a route pinned to a store belongs to no partition',
    ],
    [
      'a field of the body without a name',
      { routes: [{ path: '/a', partition: 'body.a..b' }] },
      'routes[0].partition',
      'must be names with single dots between them, like data.owner',
    ],
    [
      'a condition on such a field',
      { routes: [{ path: '/a', body: { '.a': 1 } }] },
      'routes[0].body..a',
      'must be names with single dots between them, like data.owner',
    ],
    [
      'a host with a port',
      { routes: [{ path: '/a', host: 'example.org:80' }] },
      'routes[0].host',
      /^must be a host name/,
    ],
    [
      'a star inside a host',
      { routes: [{ path: '/a', host: 'a.*.org' }] },
      'routes[0].host',
      /^must be a host name/,
    ],
    ...['Host', 'X-Forwarded-For', 'onewriter-user', 'connection', 'x-original-url'].map((name): Case => [
      `the header ${name}`,
      { routes: [{ path: '/a', headers: { [name]: '*' } }] },
      `routes[0].headers.${name}`,
      /^does not reach the store/,
    ]),
    [
      'a header in two spellings',
      { routes: [{ path: '/a', headers: { 'x-a': '1', 'X-A': '2' } }] },
      'routes[0].headers.X-A',
      /^is there twice/,
    ],
    [
      'an access beside graphql',
      { routes: [{ path: '/a', graphql: true, access: 'read' }] },
      'routes[0].access',
      /^cannot stand beside graphql/,
    ],
    [
      'a claim without tokens',
      { routes: [{ path: '/a', partition: 'claim.org' }] },
      'routes[0].partition',
      /no rule of identity is a jwt/,
    ],
    [
      'a partition beside a store',
      { routes: [{ path: '/a', store: 'app', partition: 'user' }] },
      'routes[0].partition',
      /cannot stand beside store/,
    ],
    [
      'a copy beside a store',
      { routes: [{ path: '/a', store: 'app', reads: 'copy' }] },
      'routes[0].reads',
      /cannot stand beside store/,
    ],
    [
      'a copy that is written to',
      { routes: [{ path: '/a', access: 'write', reads: 'app' }] },
      'routes[0].reads',
      /cannot stand beside access: write/,
    ],
    [
      'an age of what is not a copy',
      { routes: [{ path: '/a', maxStalenessMs: 1 }] },
      'routes[0].maxStalenessMs',
      'needs reads: copy or reads: app beside it',
    ],
    [
      'a kind no connector has',
      { routes: [{ path: '/a/:id', record: { kind: 'note', id: 'path.id' } }] },
      'routes[0].record.kind',
      'is not a kind of record of a connector; known: item',
    ],
    [
      'an id from nowhere',
      { routes: [{ path: '/a/:id', record: { kind: 'item', id: 'body.id' } }] },
      'routes[0].record.id',
      'must be path.NAME or response.FIELD',
    ],
    [
      'an id the path does not have',
      { routes: [{ path: '/a', record: { kind: 'item', id: 'path.id' } }] },
      'routes[0].record.id',
      /has no :id; it has none/,
    ],
    ['a star in the middle', { routes: [{ path: '/a/*/b' }] }, 'routes[0].path', /only as its last segment/],
    ['a star inside a segment', { routes: [{ path: '/a*' }] }, 'routes[0].path', /only as its last segment/],
    [
      'a name inside a segment',
      { routes: [{ path: '/a-:id' }] },
      'routes[0].path',
      /before the name of a whole segment/,
    ],
    ['a parameter twice', { routes: [{ path: '/:a/:a' }] }, 'routes[0].path', 'has the parameter :a twice'],
    ['a query in the path', { routes: [{ path: '/a?b' }] }, 'routes[0].path', /only the path is matched/],
  ]);

  const asked = { url: 'http://platform/me', user: 'id' };
  each('%s in an identity rule is refused', [
    [
      'a cookie that nobody verifies',
      { identity: [{ cookie: 'session' }] },
      'identity[0].cookie',
      /^needs exactly one of introspect, jwt and from/,
    ],
    [
      'a password that nobody verifies',
      { identity: [{ basic: true }] },
      'identity[0].basic',
      /^needs exactly one of introspect and from/,
    ],
    [
      'a session in a body that nobody verifies',
      { identity: [{ body: 'session' }] },
      'identity[0].body',
      /^needs exactly one of/,
    ],
    [
      'a cookie that two verify',
      { identity: [{ cookie: 'session', introspect: asked, from: ['::1'] }] },
      'identity[0].cookie',
      /^needs exactly one of/,
    ],
    [
      'an opaque token that nobody verifies',
      { identity: [{ bearer: true }] },
      'identity[0].introspect',
      'is missing',
    ],
    [
      'an introspected JWT',
      { identity: [{ jwt: { secret: 'x'.repeat(32) }, introspect: asked }] },
      'identity[0].introspect',
      /not a known key/,
    ],
    [
      'a password in an address',
      { identity: [{ bearer: true, introspect: { ...asked, url: 'http://a:b@platform/me' } }] },
      'identity[0].introspect.url',
      /put secrets into headers/,
    ],
    [
      'a header in the place of the credential',
      { identity: [{ bearer: true, introspect: { ...asked, headers: { Authorization: 'x' } } }] },
      'identity[0].introspect.headers.Authorization',
      /cannot be set/,
    ],
    [
      'a form for a name and a password',
      { identity: [{ basic: true, introspect: { ...asked, form: true } }] },
      'identity[0].introspect.form',
      /stand in Authorization/,
    ],
    [
      'a form by GET',
      { identity: [{ bearer: true, introspect: { ...asked, form: true, method: 'GET' } }] },
      'identity[0].introspect.method',
      /must be POST/,
    ],
    [
      'two places for one credential',
      { identity: [{ bearer: true, introspect: { ...asked, form: true, header: 'x-token' } }] },
      'identity[0].introspect.header',
      /cannot stand beside form/,
    ],
    [
      'a body by GET',
      { identity: [{ body: 'session', introspect: { ...asked, method: 'GET' } }] },
      'identity[0].introspect.method',
      /must be POST/,
    ],
  ]);

  each('%s in a partition rule is refused', [
    [
      'a claim without tokens',
      { partition: [{ claim: 'org' }] },
      'partition[0].claim',
      /no rule of identity is a jwt/,
    ],
    [
      'a template without :partition',
      { partition: [{ path: '/orgs/:org/*' }] },
      'partition[0].path',
      /must contain the segment :partition/,
    ],
    [
      'a parameter no route has',
      { partition: [{ path: 'org' }] },
      'partition[0].path',
      'names the parameter :org, which no route has',
    ],
  ]);

  each('%s in a connector is refused', [
    [
      'a placeholder nothing fills in',
      { [`${item}.list.query.owner`]: '{owner}' },
      `${item}.list.query.owner`,
      /^contains \{owner\}, which nothing fills in; known here: \{partition\}/,
    ],
    ['an id in a list', { [`${item}.list.path`]: '/items/{id}' }, `${item}.list.path`, /nothing fills in/],
    ['a get without an id', { [`${item}.get.path`]: '/items' }, `${item}.get.path`, 'must contain {id}'],
    [
      'a bulk body without its records',
      { [`${item}.bulk`]: { path: '/bulk', max: 5, body: { mode: 'upsert' } } },
      `${item}.bulk.body`,
      /"\{items\}"/,
    ],
    [
      'a bulk call for one record',
      { [`${item}.bulk`]: { path: '/bulk/{id}', max: 5 } },
      `${item}.bulk.path`,
      /\{id\}, which nothing fills in/,
    ],
    [
      'a cursor that is not sent',
      { [`${item}.list.next`]: 'next' },
      `${item}.list.next`,
      /^needs \{cursor\}/,
    ],
    [
      'a cursor that is not read',
      { [`${item}.list.query.cursor`]: '{cursor}' },
      `${item}.list.query`,
      /list.next does not say/,
    ],
    [
      'pages that are not counted',
      { [`${item}.list.paging`]: { page: { size: 10 } } },
      `${item}.list.paging`,
      /^needs \{page\}/,
    ],
  ]);

  test('a kind that only one store has cannot be copied', () => {
    expect(problemsWith({ 'stores.app.connector.records': {} })).toEqual([
      { path: 'stores.app.connector.records', message: expect.stringContaining('has no item') },
    ]);
  });
});

describe('all at once', () => {
  test('plain mistakes, missing variables, contradictions and what is not built come in one answer', () => {
    const text = `
proxy: { port: "\${PORT}", trustedProxies: [nowhere] }
secret: short
stores: { legacy: { url: "ftp://a" }, app: { } }
identity: [ { header: x-user, from: [ "::1" ] }, { basic: true } ]
routes: [ { path: /a, mehods: [GET], partition: path.b }, { path: /c, store: app, reads: app } ]
flip: { waves: [], drainMs: 4000 }
`;
    const result = parseConfig(text, {}, 'test.yaml');
    expect(result.ok ? [] : result.problems.map(({ path }) => path)).toEqual([
      'proxy.port',
      'proxy.trustedProxies[0]',
      'secret',
      'stores.legacy.url',
      'stores.app.url',
      'identity[1].basic',
      'routes[0].mehods',
      'routes[0].partition',
      'routes[1].reads',
      'flip.waves',
      'flip.drainMs',
    ]);
  });

  test('no problem repeats a value, which could be a secret', () => {
    const secret = 'hunter2hunter2';
    const problems = problemsWith({
      secret: { value: secret },
      identity: [{ jwt: { secret, jwksUrl: secret } }],
      'redis.url': `http://:${secret}@redis`,
      'stores.legacy.url': `http://me:${secret}@platform`,
      'admin.tokens': [{ name: 'a', role: secret, token: secret, sha256: secret }],
    });
    expect(problems.length).toBeGreaterThan(4);
    expect(JSON.stringify(problems)).not.toContain('hunter2');
  });
});
