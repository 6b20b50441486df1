import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { unavailableKeys } from '../../../src/config/availability.ts';
import { loadedWith, problemsWith } from '../../support/config.ts';

const item = 'stores.legacy.connector.records.item';
const app = 'stores.app.connector';

describe('what this version has', () => {
  const built: [name: string, changes: Record<string, unknown>][] = [
    ['a JWT', { identity: [{ jwt: { jwksUrl: 'https://login.example/keys' } }] }],
    [
      'every kind of credential',
      {
        identity: [
          { jwt: { jwksUrl: 'https://login.example/keys' } },
          { cookie: 'session', introspect: { url: 'https://platform.example/me', user: 'data.id' } },
          { cookie: 'token', jwt: { secret: 'x'.repeat(32) } },
          { basic: true, introspect: { url: 'https://platform.example/me', user: 'id' } },
          { body: '_SessionToken', introspect: { url: 'https://platform.example/me', user: 'id' } },
        ],
      },
    ],
    [
      'opaque tokens',
      { identity: [{ bearer: true, introspect: { url: 'http://a/b', user: 'sub', form: true } }] },
    ],
    [
      'every built partition rule',
      {
        identity: [{ jwt: { secret: 'x'.repeat(32) } }],
        partition: [
          { path: '/orgs/:partition/*' },
          { header: 'x-org' },
          { claim: 'org' },
          { query: 'org' },
          { body: 'data.org' },
          { by: 'user' },
        ],
      },
    ],
    [
      'routes',
      {
        routes: [
          { path: '/login', store: 'legacy', anonymous: true },
          { path: '/search', methods: ['POST'], access: 'read' },
          { path: '/c/:owner/*', partition: 'path.owner' },
          { path: '/items/:id', partition: 'header.x-owner', record: { kind: 'item', id: 'path.id' } },
          { path: '/by-query', partition: 'query.owner' },
          { path: '/by-body', partition: 'body.data.owner' },
          {
            path: '/a',
            host: '*.example.org',
            query: { b: '*' },
            headers: { 'X-C': 'd' },
            body: { 'e.f': 1 },
          },
          { path: '/graphql', graphql: true },
          { path: '/items', partition: 'user', record: { kind: 'item', id: 'response.id' } },
          { path: '/team', reads: 'app' },
          { path: '/free-busy', partitions: 'query.ids[*]', reads: 'app', maxStalenessMs: 10_000 },
          { path: '/mine', reads: 'copy', maxStalenessMs: 2_000 },
          { path: '/other', reads: 'owner' },
        ],
      },
    ],
    [
      'cohorts of all kinds',
      {
        cohorts: {
          a: { partitions: ['x'] },
          b: { percent: 10, salt: 's' },
          c: { where: { plan: { in: ['team'] } } },
        },
      },
    ],
    [
      'versions, tombstones, pages and a budget',
      {
        [`${item}.version`]: 'etag',
        [`${item}.deleted`]: 'deleted_at',
        [`${item}.list.paging`]: 'link',
        'stores.legacy.connector.rateLimit': { requests: 5, perMs: 1000 },
      },
    ],
    ['several processes', { 'proxy.processes': 4 }],
    ['to observe only', { 'proxy.mode': 'observe' }],
    ['where new partitions begin', { newPartitions: 'app' }],
    ['to go on without the ledger', { 'ledger.onLedgerLoss': 'serve-last-known' }],
    ['a directory of users', { partition: [{ directory: true }, { by: 'user' }] }],
    ['a Redis of its own', { 'redis.url': 'rediss://:pw@redis:6379/1', 'ledger.minReplicas': 1 }],
  ];
  test.each(built)('%s can be configured', (_, changes) => {
    expect(loadedWith(changes).ok).toBe(true);
  });
});

describe('what this version does not have', () => {
  const missing: [path: string, changes: Record<string, unknown>][] = [
    [`${app}.kind`, { [app]: { kind: 'caldav', tables: {} } }],
    [`${app}.kind`, { [app]: { kind: 'caldav' } }],
    [`${item}.map`, { [`${item}.map`]: { title: 'summary' } }],
  ];
  test.each(missing)('%s is refused by name', (path, changes) => {
    expect(problemsWith(changes)).toEqual([
      { path, message: expect.stringMatching(/^is not available yet; /) },
    ]);
  });

  test('is marked in docs/configuration.md, and nothing else is', () => {
    const asInReference = (path: string): string =>
      path
        .replace(/\[\d+\]/, '[]')
        .replace(/^stores\.app/, 'stores.legacy')
        .replace(/\.records\.item\./, '.records.NAME.');
    const refused = new Set(missing.map(([path]) => asInReference(path)));
    const page = readFileSync('docs/configuration.md', 'utf8').split('\n');
    const marked = page.flatMap((line) => /^- `(\S+)`.*\*\*Not available yet/.exec(line)?.[1] ?? []);
    expect(new Set(marked)).toEqual(refused);
    expect(new Set(Object.keys(unavailableKeys))).toEqual(refused);
  });
});
