import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { needsRestart } from '../../../src/config/reload.ts';
import { loadConfig, parseConfig } from '../../../src/config/load.ts';
import { loadedWith, problemsWith, sound } from '../../support/config.ts';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'onewriter-config-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const sampleEnvironment = {
  ONEWRITER_SECRET: 'sixteen characters',
  OPS_TOKEN: '12345678',
  LEGACY_TOKEN: 'secret',
};

describe('the file', () => {
  test('the sample configuration loads with its secrets from the environment', () => {
    const result = loadConfig({ path: 'config/onewriter.yaml', env: sampleEnvironment });
    expect(result).toMatchObject({
      ok: true,
      warnings: [],
      config: {
        proxy: { port: 8080 },
        admin: { tokens: [{ token: '12345678' }] },
        stores: { legacy: { connector: { headers: { authorization: 'Bearer secret' } } } },
        sync: { rollbackWindow: 'off' },
      },
    });
    expect(result).toHaveProperty('path', join(process.cwd(), 'config/onewriter.yaml'));
  });

  test('without its environment, the sample names every missing variable and where it is needed', () => {
    const result = loadConfig({ path: 'config/onewriter.yaml', env: {} });
    expect(result).toMatchObject({
      ok: false,
      problems: [
        { path: 'admin.tokens[0].token', message: expect.stringContaining('OPS_TOKEN') },
        { path: 'secret', message: expect.stringContaining('ONEWRITER_SECRET') },
        {
          path: 'stores.legacy.connector.headers.authorization',
          message: expect.stringContaining('LEGACY_TOKEN'),
        },
      ],
    });
  });

  test('JSON is read like YAML, with tabs too', () => {
    const path = join(directory, 'config.json');
    writeFileSync(path, JSON.stringify(sound(), null, '\t'));
    expect(loadConfig({ path, env: {} })).toMatchObject({ ok: true, path });
  });

  test('a file that is not there is named, with the way to name another', () => {
    const path = join(directory, 'missing.yaml');
    expect(loadConfig({ path, env: {} })).toEqual({
      ok: false,
      problems: [
        { path: '', message: `there is no file ${path}; name the configuration with --config FILE` },
      ],
    });
  });

  test('a directory is no file', () => {
    expect(loadConfig({ path: directory, env: {} })).toMatchObject({
      problems: [{ message: `${directory} is a directory, not a file` }],
    });
  });

  const broken: [name: string, text: string, message: string | RegExp][] = [
    ['an open bracket', 'proxy:\n  trustedProxies: [a\nsecret: x\n', /^line 3, column 1: /],
    ['a key that is there twice', 'secret: a\nsecret: b\n', 'line 2, column 1: Map keys must be unique'],
    [
      'two documents',
      'secret: a\n---\nsecret: b\n',
      /^line 2, column 1: Source contains multiple documents$/,
    ],
    ['a tag that means nothing here', 'secret: !vault x\n', /^line 1, column 9: Unresolved tag$/],
    ['an alias without an anchor', 'secret: *x\n', /Unresolved alias/],
    ['nothing', '# only a comment\n', 'the file is empty'],
    ['a list', '- a\n', 'the file must be a mapping of sections, like "stores: …"'],
  ];
  test.each(broken)('a file with %s is refused with a place or a sentence', (_, text, message) => {
    const result = parseConfig(text, {}, 'test.yaml');
    const wanted = typeof message === 'string' ? message : expect.stringMatching(message);
    expect(result).toMatchObject({
      ok: false,
      problems: expect.arrayContaining([{ path: '', message: wanted }]),
    });
  });

  test('a syntax error does not quote the line, which could hold a secret', () => {
    const result = parseConfig('secret: "hunter2hunter2\nproxy: {\n', {}, 'test.yaml');
    expect(JSON.stringify(result)).not.toContain('hunter2');
  });
});

describe('placeholders', () => {
  test('a variable, a default for a missing one, and a default for an empty one are filled in', () => {
    const { config } = loadedWith(
      { secret: '${SECRET}', dataDir: '${DIR:-/var/lib/a}/b', 'proxy.host': '${HOST:-::1}' },
      { SECRET: 'from the environment', HOST: '' },
    );
    expect(config).toMatchObject({
      secret: 'from the environment',
      dataDir: '/var/lib/a/b',
      proxy: { host: '::1' },
    });
  });

  test('a number and a switch are converted where the schema wants them', () => {
    const { config } = loadedWith(
      {
        'proxy.port': '${PORT:-8080}',
        'proxy.debugHeaders': '${DEBUG}',
        'cohorts.tenth': { percent: '${SHARE}', salt: '${SALT}' },
      },
      { DEBUG: 'true', SHARE: '2.5', SALT: '7' },
    );
    expect(config).toMatchObject({
      proxy: { port: 8080, debugHeaders: true },
      cohorts: { tenth: { percent: 2.5, salt: '7' } },
    });
  });

  test('a token that looks like a number stays text', () => {
    const tokens = [{ name: 'ops', role: 'operator', token: '${OPS_TOKEN}' }];
    const { config } = loadedWith({ 'admin.tokens': tokens }, { OPS_TOKEN: '12345678' });
    expect(config.admin.tokens[0]?.token).toBe('12345678');
  });

  test('a value of an attribute, which may be text, is not converted', () => {
    const { config } = loadedWith(
      { 'cohorts.large': { where: { plan: '${PLAN}', seats: { gt: '${SEATS}' } } } },
      { PLAN: '7', SEATS: '100' },
    );
    expect(config.cohorts['large']).toEqual({ where: { plan: '7', seats: { gt: 100 } } });
  });

  test('what a variable contains is neither filled in again nor parsed', () => {
    const { config } = loadedWith({ secret: '${SECRET}' }, { SECRET: '${OTHER}: [a, {b: c}]' });
    expect(config.secret).toBe('${OTHER}: [a, {b: c}]');
  });

  test('a doubled dollar stands for itself', () => {
    expect(loadedWith({ secret: 'a $${NAME} that stays' }).config.secret).toBe('a ${NAME} that stays');
  });

  test('a placeholder that is none is refused', () => {
    expect(problemsWith({ secret: 'price ${1,2} and more' })).toEqual([
      {
        path: 'secret',
        message: 'contains "${" without a placeholder; write ${NAME}, ${NAME:-default}, or $${ for "${"',
      },
    ]);
  });

  test('a variable that is not a number where one is wanted is told like any other text', () => {
    expect(problemsWith({ 'proxy.port': '${PORT}' }, { PORT: 'http' })).toEqual([
      { path: 'proxy.port', message: 'must be a number, not text' },
    ]);
  });

  test('a missing variable is one problem, not two', () => {
    expect(problemsWith({ 'proxy.port': '${PORT}' })).toEqual([
      { path: 'proxy.port', message: expect.stringContaining('environment variable PORT') },
    ]);
  });
});

describe('the result', () => {
  test('is frozen to its leaves', () => {
    const { config } = loadedWith();
    expect(Object.isFrozen(config)).toBe(true);
    expect(Object.isFrozen(config.stores.legacy)).toBe(true);
    expect(Object.isFrozen(config.identity[0])).toBe(true);
    expect(() => {
      (config.flip.waves as string[]).push('3');
    }).toThrow(TypeError);
  });

  const deciding: [name: string, changes: Record<string, unknown>][] = [
    ['identity', { identity: [{ header: 'x-account', from: ['127.0.0.0/8'] }] }],
    ['partition', { partition: [{ header: 'x-org' }] }],
    ['routes', { routes: [{ path: '/login', store: 'legacy' }] }],
    ['anonymousReads', { anonymousReads: 'refuse' }],
    ['pathEndings', { pathEndings: [] }],
    ['partitionNames', { partitionNames: { pattern: '[a-z]+' } }],
    ['letter case of partitionNames', { partitionNames: { letterCase: 'lower' } }],
    ['secret', { secret: 'another secret of the guard' }],
  ];
  test.each(deciding)('has another hash when %s changes', (_, changes) => {
    expect(loadedWith(changes).hash).not.toBe(loadedWith().hash);
  });

  test.each(deciding.filter(([name]) => name !== 'secret'))(
    'needs no restart when %s changes',
    (_, changes) => {
      expect(needsRestart(loadedWith().config, loadedWith(changes).config)).toEqual([]);
    },
  );

  test('has another hash for every condition of a route and every place of a partition', () => {
    const routes: Record<string, unknown>[] = [
      {},
      { host: 'example.org' },
      { query: { a: '1' } },
      { query: { a: '2' } },
      { headers: { 'x-a': '1' } },
      { body: { a: 1 } },
      { body: { a: '1' } },
      { graphql: true },
      { partition: 'query.a' },
      { partition: 'body.a' },
    ];
    const changes = [
      ...routes.map((more) => ({ routes: [{ path: '/a', ...more }] })),
      { partition: [{ query: 'a' }] },
      { partition: [{ body: 'a' }] },
    ];
    expect(new Set(changes.map((change) => loadedWith(change).hash)).size).toBe(changes.length);
  });

  test('keeps its hash when something else changes, or only the order of keys', () => {
    const { hash } = loadedWith();
    expect(hash).toMatch(/^[0-9a-f]{64}$/);
    expect(loadedWith({ 'proxy.port': 9999, cohorts: { a: { partitions: ['x'] } } }).hash).toBe(hash);
    expect(loadedWith({ identity: [{ from: ['127.0.0.0/8'], header: 'x-user' }] }).hash).toBe(hash);
  });

  test('has another hash when anything in an identity rule changes, and tells no secret by it', () => {
    const introspect = { url: 'http://a/me', user: 'id', headers: { 'x-key': 'one' } };
    const rules: unknown[] = [
      { cookie: 'a', introspect },
      { cookie: 'b', introspect },
      { cookie: 'a', from: ['::1'] },
      { cookie: 'a', jwt: { secret: 'x'.repeat(32) } },
      { cookie: 'a', jwt: { secret: 'y'.repeat(32) } },
      { body: 'a', introspect },
      { body: 'a', introspect, bodyBytesMax: 5 },
      { basic: true, introspect },
      { bearer: true, introspect },
      { bearer: true, introspect: { ...introspect, user: 'sub' } },
      { bearer: true, introspect: { ...introspect, cacheMs: 1 } },
      { bearer: true, introspect: { ...introspect, form: true } },
      { bearer: true, introspect: { ...introspect, headers: { 'x-key': 'two' } } },
    ];
    const hashes = rules.map((rule) => loadedWith({ identity: [rule] }).hash);
    expect(new Set(hashes).size).toBe(rules.length);
  });

  test('a JWT secret under 32 bytes is a warning, not an error', () => {
    const { warnings } = loadedWith({ identity: [{ jwt: { secret: 'short' } }] });
    expect(warnings).toEqual([
      'identity[0].jwt.secret is shorter than 32 bytes, the least that RFC 7518 asks for HS256.',
    ]);
    expect(loadedWith({ identity: [{ jwt: { secret: 'x'.repeat(32) } }] }).warnings).toEqual([]);
  });

  const warned: [name: string, changes: Record<string, unknown>, words: string][] = [
    ['no tokens', { 'admin.tokens': [] }, 'admin.tokens is empty'],
    ['a very short lease', { 'ledger.leaseMs': 300 }, 'ledger.leaseMs is 300'],
    [
      'an identity header from everywhere',
      { identity: [{ header: 'x-user', from: ['0.0.0.0/0'] }] },
      '0.0.0.0/0',
    ],
    [
      'a rule behind another one for the same place',
      {
        identity: [
          { jwt: { secret: 'x'.repeat(32) } },
          { bearer: true, introspect: { url: 'http://a', user: 'b' } },
        ],
      },
      'identity[1] never decides',
    ],
    [
      'a bound for copies that only a full pass could keep',
      {
        routes: [{ path: '/items/*', reads: 'copy' }],
        'stores.legacy.connector.records.item.version': 'changed',
        'stores.legacy.connector.records.item.list.query': { since: '{since}' },
      },
      'copies are hardly ever as new as maxStalenessMs (5000) asks',
    ],
    ['an app without a guard that settles at once', { 'stores.app.guard': false }, 'settleMs 0'],
  ];
  test.each(warned)('%s is a warning', (_, changes, words) => {
    expect(loadedWith(changes).warnings).toEqual([expect.stringContaining(words)]);
  });

  test.each([
    ['a longer bound', { routes: [{ path: '/items/*', reads: 'copy', maxStalenessMs: 70_000 }] }],
    ['tombstones', { 'stores.legacy.connector.records.item.deleted': 'deleted_at' }],
    ['lists that show everything', { 'stores.legacy.connector.records.item.version': undefined }],
    ['full passes that come often', { 'sync.fullPassMs': 2_000 }],
  ])('reads of copies with %s are no matter for one', (_, changes) => {
    const reads = {
      routes: [{ path: '/items/*', reads: 'copy' }],
      'stores.legacy.connector.records.item.version': 'changed',
      'stores.legacy.connector.records.item.list.query': { since: '{since}', owner: '{partition}' },
    };
    expect(loadedWith({ ...reads, ...changes }).warnings).toEqual([]);
  });
});
