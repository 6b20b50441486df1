/** Which GraphQL requests are reads: only those that certainly read. */
import { describe, expect, test } from '@jest/globals';
import { graphqlAccess } from '../../../src/proxy/graphql.ts';
import type { SeenBody } from '../../../src/proxy/seen-body.ts';

const json = (value: unknown): SeenBody => ({
  kind: 'json',
  text: typeof value === 'string' ? value : JSON.stringify(value),
});
const posted = (body: SeenBody, query = ''): string => graphqlAccess({ method: 'POST', query, body });
const asked = (query: string): string => graphqlAccess({ method: 'GET', query, body: { kind: 'none' } });
const encoded = (parameters: Record<string, string>): string => new URLSearchParams(parameters).toString();

const two = 'query A { a } query B { b }';
const mixed = 'query A { a } mutation B { b }';
const hash = { persistedQuery: { version: 1, sha256Hash: 'ab' } };

describe('a posted request', () => {
  const reads: [name: string, body: unknown][] = [
    ['a query', { query: 'query { a }' }],
    ['a query in short form', { query: '{ a(x: "mutation { b }") }' }],
    ['a subscription', { query: 'subscription { a }' }],
    [
      'a query with fragments and variables',
      { query: '{ ...F } fragment F on T { a }', variables: { a: 1 } },
    ],
    ['one of several queries, by name', { query: two, operationName: 'B' }],
    ['an operation name that is null', { query: '{ a }', operationName: null }],
    ['extensions that name no stored document', { query: '{ a }', extensions: { client: 'x' } }],
    ['a batch of queries', [{ query: '{ a }' }, { query: '{ b }' }]],
  ];
  test.each(reads)('%s is a read', (_, body) => {
    expect(posted(json(body))).toBe('read');
  });

  const writes: [name: string, body: unknown][] = [
    ['a mutation', { query: 'mutation { a }' }],
    ['a mutation beside the chosen query', { query: mixed, operationName: 'A' }],
    ['a chosen mutation', { query: mixed, operationName: 'B' }],
    ['one of several without a name', { query: two }],
    ['a name that no operation has', { query: two, operationName: 'C' }],
    ['a name that two operations have', { query: 'query A { a } query A { b }', operationName: 'A' }],
    ['an empty name', { query: '{ a }', operationName: '' }],
    ['a name that is no text', { query: '{ a }', operationName: 1 }],
    ['fragments alone', { query: 'fragment F on T { a }' }],
    ['a schema', { query: '{ a } type T { a: Int }' }],
    ['what is no GraphQL', { query: '{ a' }],
    ['an empty document', { query: '' }],
    ['a document that is no text', { query: ['{ a }'] }],
    ['nothing', {}],
    ['a stored document without text', { extensions: hash }],
    ['a stored document with a text beside it', { query: '{ a }', extensions: hash }],
    ['a stored document named in a text', { query: '{ a }', extensions: JSON.stringify(hash) }],
    ['a stored document by id', { query: '{ a }', documentId: 'x' }],
    ['two documents', '{"query":"{ a }","query":"mutation { a }"}'],
    ['two documents by letter case', '{"query":"{ a }","Query":"mutation { a }"}'],
    ['two names', `{"query":"${two}","operationName":"A","operationName":"B"}`],
    ['a batch with a mutation', [{ query: '{ a }' }, { query: 'mutation { b }' }]],
    ['a batch in a batch', [[{ query: '{ a }' }]]],
    ['an empty batch', []],
    ['a batch without end', Array.from({ length: 101 }, () => ({ query: '{ a }' }))],
    ['too many tokens', { query: `{ ${'a '.repeat(10_001)} }` }],
    ['too many tokens in a batch', Array.from({ length: 3 }, () => ({ query: `{ ${'a '.repeat(4_000)} }` }))],
    ['a document that is too deep', { query: `${'{ a '.repeat(101)}${'}'.repeat(101)}` }],
  ];
  test.each(writes)('%s is a write', (_, body) => {
    expect(posted(json(body))).toBe('write');
  });

  test('is read as the type of its body says', () => {
    expect(posted({ kind: 'graphql', text: '{ a }' })).toBe('read');
    expect(posted({ kind: 'graphql', text: 'mutation { a }' })).toBe('write');
    for (const body of [
      { kind: 'form', text: 'query=%7Ba%7D' },
      { kind: 'none' },
      { kind: 'foreign' },
      { kind: 'parts' },
      { kind: 'unreadable' },
    ] as const) {
      expect([body.kind, posted(body)]).toEqual([body.kind, 'write']);
    }
  });

  test('with a document in its URL, too, is a write', () => {
    const body = json({ query: '{ a }' });
    expect(posted(body, 'x=1')).toBe('read');
    for (const name of ['query', 'QUERY', 'operationName', 'extensions', 'documentId', 'id']) {
      expect([name, posted(body, `${name}=x`)]).toEqual([name, 'write']);
    }
  });
});

describe('a request in the URL', () => {
  test('is a read where its document only reads', () => {
    expect(asked(encoded({ query: '{ a }' }))).toBe('read');
    expect(asked(encoded({ query: two, operationName: 'A', key: 'x' }))).toBe('read');
    expect(asked(encoded({ query: '{ a }', extensions: '{"client":1}' }))).toBe('read');
  });

  test('is a write otherwise', () => {
    const queries = [
      '',
      encoded({ query: 'mutation { a }' }),
      encoded({ query: mixed, operationName: 'A' }),
      encoded({ query: two }),
      encoded({ extensions: JSON.stringify(hash) }),
      encoded({ query: '{ a }', extensions: JSON.stringify(hash) }),
      encoded({ query: '{ a }', extensions: '{"persisted\\u0051uery":1}' }),
      encoded({ query: '{ a }', extensions: '{' }),
      encoded({ query: '{ a }', id: '1' }),
      `${encoded({ query: '{ a }' })}&${encoded({ query: 'mutation { a }' })}`,
      `${encoded({ query: '{ a }' })}&${encoded({ Query: 'mutation { a }' })}`,
    ];
    for (const query of queries) expect([query, asked(query)]).toEqual([query, 'write']);
  });

  test('with a body is a write', () => {
    const query = encoded({ query: '{ a }' });
    expect(graphqlAccess({ method: 'GET', query, body: json({ query: 'mutation { a }' }) })).toBe('write');
  });
});

test('other methods ask nothing, so they are writes; a preflight is a read', () => {
  const body = json({ query: '{ a }' });
  expect(graphqlAccess({ method: 'PUT', query: '', body })).toBe('write');
  expect(graphqlAccess({ method: 'OPTIONS', query: '', body: { kind: 'none' } })).toBe('read');
});
