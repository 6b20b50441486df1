/** What a rest connector cannot be configured to do is said at its place, in a sentence. */
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { parseConfig } from '../../../src/config/load.ts';
import { problemsWith } from '../../support/config.ts';
import { yamlBelow } from '../../support/document.ts';

const connector = 'stores.legacy.connector';
const item = `${connector}.records.item`;

type Case = [what: string, changes: Record<string, unknown>, path: string, message: RegExp | string];

const cases: readonly Case[] = [
  [
    'no kind of credential',
    { [`${connector}.auth`]: { digest: {} } },
    `${connector}.auth`,
    /^must be one of/,
  ],
  [
    'Basic without a password',
    { [`${connector}.auth`]: { basic: { user: 'x' } } },
    `${connector}.auth.basic.password`,
    'is missing',
  ],
  [
    'a key in two places',
    { [`${connector}.auth`]: { apiKey: { header: 'x-key', query: 'key', value: 'x' } } },
    `${connector}.auth.apiKey`,
    'needs exactly one of header and query',
  ],
  [
    'a token endpoint without an address',
    { [`${connector}.auth`]: { oauth2: { clientId: 'a', clientSecret: 'b' } } },
    `${connector}.auth.oauth2.tokenUrl`,
    'is missing',
  ],
  [
    'a meaning of errors that is none',
    { [`${connector}.error`]: { path: 'error', kinds: { A: 'retry' } } },
    `${connector}.error.kinds.A`,
    /^must be one of "not-found"/,
  ],
  [
    'a body in a GET',
    { [`${item}.list.body`]: { owner: '{partition}' } },
    `${item}.list.method`,
    /^must be one that has a body/,
  ],
  [
    'a placeholder in a body that nothing fills in',
    { [`${item}.get.method`]: 'POST', [`${item}.get.body`]: { a: ['{id}', '{since}'] } },
    `${item}.get.body`,
    /^contains \{since\}, which nothing fills in; known here: \{id\}, \{partition\}/,
  ],
  [
    'a get of nothing in particular',
    { [`${item}.get`]: { method: 'POST', path: '/rpc', body: { call: 'get' } } },
    `${item}.get.path`,
    'must contain {id}, or the body',
  ],
  [
    'a put whose body has nothing of the record',
    { [`${item}.put.body`]: { call: 'put' } },
    `${item}.put.body`,
    /^must have \{record\}/,
  ],
  ['a form without fields', { [`${item}.list.form`]: true }, `${item}.list.form`, /^needs body/],
  [
    'more, and no way on',
    { [`${item}.list.more`]: 'has_more' },
    `${item}.list.more`,
    /^needs next or paging/,
  ],
  [
    'the last record without a cursor',
    { [`${item}.list.paging`]: { last: 'id' } },
    `${item}.list.paging`,
    /^needs \{cursor\}/,
  ],
  [
    'deleted ids without followed changes',
    { [`${item}.deletes`]: { path: '/deleted', query: { after: '{since}' } } },
    `${item}.deletes`,
    /^needs a list that is asked for changes beside it/,
  ],
  [
    'deleted ids that are not asked for what is new',
    {
      [`${item}.version`]: 'at',
      [`${item}.list.query.since`]: '{since}',
      [`${item}.deletes`]: { path: '/deleted' },
    },
    `${item}.deletes`,
    /^needs \{since\} in its query or body/,
  ],
  [
    'records that say no partition and are not asked for by it',
    { [`${item}.partition`]: '{partition}' },
    `${item}.get.path`,
    'must contain {partition}',
  ],
  [
    'a freeze without its way back',
    { [`${connector}.freeze`]: [{ method: 'POST', path: '/lock/{partition}' }] },
    `${connector}.unfreeze`,
    /^is missing: freeze and unfreeze are needed both/,
  ],
  [
    'a freeze of everybody',
    {
      [`${connector}.freeze`]: [{ method: 'POST', path: '/lock' }],
      [`${connector}.unfreeze`]: [{ method: 'DELETE', path: '/lock/{partition}' }],
    },
    `${connector}.freeze[0].path`,
    'must contain {partition}',
  ],
  ['no calls to freeze with', { [`${connector}.freeze`]: [] }, `${connector}.freeze`, /at least 1 entry/],
];

test.each([...cases])('%s is refused', (_, changes, path, message) => {
  const found = problemsWith(changes).find((problem) => problem.path === path);
  expect(found?.message).toEqual(typeof message === 'string' ? message : expect.stringMatching(message));
});

describe('what the document shows', () => {
  const document = 'docs/connectors-rest.md';

  test.each([
    'Example: ids that the platform assigns, hard deletes, OAuth2',
    'Example: one address, POST for everything, 200 for everything',
  ])('"%s" loads', (heading) => {
    const names = ['LEGACY_URL', 'APP_URL'].map(
      (name) => [name, `https://${name.slice(0, 3)}.example.org`] as const,
    );
    const secrets = ['OPS_TOKEN', 'ONEWRITER_SECRET', 'LEGACY_CLIENT_SECRET', 'LEGACY_KEY', 'APP_KEY'];
    const env = Object.fromEntries([
      ...names,
      ...secrets.map((name) => [name, 'a-secret-of-tests'] as const),
    ]);
    const result = parseConfig(yamlBelow(document, heading), env, 'example.yaml');
    expect(result.ok ? [] : result.problems).toEqual([]);
    expect(parse(yamlBelow(document, heading))).toHaveProperty('stores');
  });
});
