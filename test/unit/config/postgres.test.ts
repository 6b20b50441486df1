import { describe, expect, test } from '@jest/globals';
import { loadedWith, problemsWith } from '../../support/config.ts';

const place = 'stores.app.connector';
const note = { table: 'public.notes', id: 'id', partition: 'owner' };

function given(connector: Record<string, unknown>, record: Record<string, unknown> = {}) {
  return {
    'stores.legacy.connector': undefined,
    [place]: {
      kind: 'postgres',
      url: 'postgres://u:p@h/d',
      records: { item: { ...note, ...record } },
      ...connector,
    },
  };
}

describe('a connector to PostgreSQL', () => {
  test('has defaults for all that need not be said', () => {
    const { connector } = loadedWith(given({})).config.stores.app;
    expect(connector).toMatchObject({
      poolSize: 8,
      timeoutMs: 10_000,
      connectTimeoutMs: 3_000,
      feedDelayMs: 0,
    });
    expect(connector?.kind === 'postgres' && connector.records['item']).toEqual({
      ...{ ...note, forms: {}, bulkMax: 500, pageSize: 1_000 },
    });
  });

  const wrong: [
    what: string,
    connector: Record<string, unknown>,
    record: Record<string, unknown>,
    path: string,
  ][] = [
    ['no address', { url: undefined }, {}, place],
    ['two addresses', { host: 'h' }, {}, place],
    ['a password beside a URL', { password: 'p' }, {}, `${place}.password`],
    ['another protocol', { url: 'mysql://h/d' }, {}, `${place}.url`],
    ['a parameter in the URL', { url: 'postgres://h/d?sslmode=disable' }, {}, `${place}.url`],
    ['a key without a certificate', { tls: { key: 'k' } }, {}, `${place}.tls`],
    ['TLS over a Unix socket', { url: undefined, host: '/run', tls: {} }, {}, `${place}.tls`],
    ['no records', { records: {} }, {}, `${place}.records`],
    ['a table of three parts', {}, { table: 'a.b.c' }, `${place}.records.item.table`],
    ['a quote that does not end', {}, { table: 'a."b' }, `${place}.records.item.table`],
    ['a column with a dot as id', {}, { id: 'a.b' }, `${place}.records.item.id`],
    ['one column for two things', {}, { version: 'owner' }, `${place}.records.item.version`],
    ['a channel that is no name', { notify: 'a b' }, {}, `${place}.notify`],
    ['a form that is not known', {}, { forms: { price: 'cents' } }, `${place}.records.item.forms.price`],
  ];
  test.each(wrong)('is refused with %s', (_what, connector, record, path) => {
    expect(problemsWith(given(connector, record))).toEqual([{ path, message: expect.any(String) }]);
  });

  test('may have the id for the partition, and names of tables in quotes', () => {
    expect(problemsWith(given({}, { partition: 'id', table: '"a.b"."c""d"' }))).toEqual([]);
  });

  test('cannot have the guard of a legacy store', () => {
    const legacy = { ...given({})[place], url: 'postgres://h/old' };
    const changes = { 'stores.legacy.connector': legacy, 'stores.legacy.guard': true };
    expect(problemsWith({ ...given({}), ...changes })).toEqual([
      { path: 'stores.legacy.guard', message: expect.stringContaining('that of the app') },
    ]);
  });
});
