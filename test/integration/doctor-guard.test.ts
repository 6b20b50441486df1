/** What doctor says of a guard where routes have requests that touch several partitions. */
import { createServer } from 'node:http';
import express from 'express';
import { afterEach, expect, test } from '@jest/globals';
import { listen, type Listening } from '../../examples/calendar/network.ts';
import { checkStore } from '../../src/cli/doctor/stores.ts';
import { guardMiddleware } from '../../src/guard/express.ts';
import { configOf, rigSecret } from '../support/proxy.ts';

let server: Listening | undefined;
afterEach(async () => server?.close());

async function findings(options: { severalPartitions?: boolean }, routes: unknown[]): Promise<string[]> {
  const app = express();
  const row = {
    partition: 'p',
    epoch: 1,
    owner: 'legacy',
    closed: false,
    written: false,
    accept: true,
    code: null,
  };
  const database = { query: async () => ({ rows: [row] }) };
  app.use(guardMiddleware({ secret: rigSecret, database, ...options }));
  server = await listen(createServer(app), 0);
  const stores = { legacy: { url: server.url }, app: { url: server.url, guard: true } };
  const found = await checkStore(configOf({ stores, routes }), 'app');
  return found
    .filter(({ check }) => check === 'stores.app.guard')
    .map(({ level, detail }) => `${level}: ${detail}`);
}

const batch = [{ path: '/batch', partitions: 'body.requests[*].owner' }];

test('that takes them is told apart from one that refuses them, and is not asked without need', async () => {
  expect(await findings({ severalPartitions: true }, batch)).toEqual([
    'ok: answers the signed verdict',
    'ok: takes requests that touch several partitions',
  ]);
  await server?.close();
  expect(await findings({}, batch)).toEqual([
    'ok: answers the signed verdict',
    expect.stringMatching(
      /^fail: refuses requests that touch several partitions, as those of \/batch do: .*403/,
    ),
  ]);
  await server?.close();
  expect(await findings({}, [])).toEqual(['ok: answers the signed verdict']);
});
