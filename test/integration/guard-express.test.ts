/** The guard's middleware where the application lets reads in unsigned. */
import { createServer } from 'node:http';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import express from 'express';
import { listen, type Listening } from '../../examples/calendar/network.ts';
import { guardMiddleware } from '../../src/guard/express.ts';
import { signGuard } from '../../src/guard/signature.ts';
import { ask, askSigned, calendarSecret } from '../support/calendar.ts';

let server: Listening;

beforeAll(async () => {
  const app = express();
  // No request of this file gets as far as the database.
  const database = { query: () => Promise.reject(new Error('asked the database')) };
  app.use(guardMiddleware({ secret: calendarSecret, database, allowUnsignedReads: true }));
  app.use((request, response) => {
    response.json({ claims: request.onewriter ?? null });
  });
  server = await listen(createServer(app), 0);
});

afterAll(() => server.close());

test('a read without a signature passes without claims, a write does not', async () => {
  expect(await ask(server.url, { path: '/x' })).toEqual({ status: 200, body: { claims: null } });
  const written = await ask(server.url, { method: 'POST', path: '/x' });
  expect(written).toMatchObject({ status: 403, body: { code: 'unsigned' } });
});

test('a read with a forged or expired signature is refused all the same', async () => {
  const claims = { user: 'u1', partition: 'u1', epoch: 1, access: 'read' } as const;
  const old = Math.floor(Date.now() / 1000) - 3600;
  const statement = { secret: calendarSecret, timestampSeconds: old, method: 'GET', target: '/x', ...claims };
  const expired = await ask(server.url, { path: '/x', headers: signGuard(statement) });
  expect(expired).toMatchObject({ status: 403, body: { code: 'expired' } });
  const forged = await ask(server.url, { path: '/y', headers: signGuard(statement) });
  expect(forged).toMatchObject({ status: 403, body: { code: 'bad-signature' } });
});

test('a signed request carries its claims, with names beyond ASCII', async () => {
  const claims = { user: 'Zoë', partition: 'équipe 7', epoch: 3, access: 'write' } as const;
  const answer = await askSigned(server.url, claims, { method: 'PUT', path: '/x?a=%20b' });
  expect(answer).toEqual({ status: 200, body: { claims } });
});

test('a request that touches several partitions is let in only where the application says that it checks all', async () => {
  const claims = { user: 'u1', partition: 'u1', epoch: 3, access: 'write' } as const;
  const also = [{ partition: 'u2', epoch: 5 }];
  const request = { method: 'POST', path: '/batch' };
  const refused = await askSigned(server.url, { ...claims, also }, request);
  expect(refused).toMatchObject({ status: 403, body: { code: 'several-partitions' } });
  const app = express();
  const database = { query: () => Promise.reject(new Error('asked the database')) };
  app.use(guardMiddleware({ secret: calendarSecret, database, severalPartitions: true }));
  app.use((asked, response) => void response.json({ claims: asked.onewriter ?? null }));
  const taking = await listen(createServer(app), 0);
  try {
    expect(await askSigned(taking.url, { ...claims, also }, request)).toEqual({
      status: 200,
      body: { claims: { ...claims, also } },
    });
    // Orders to the guard are of one partition.
    const path = '/.well-known/onewriter/guard/seal';
    const order = { method: 'POST', path, body: { partition: 'u1', epoch: 3 } };
    const sealed = await askSigned(taking.url, { ...claims, access: 'copy', also }, order);
    expect(sealed).toMatchObject({ status: 400, body: { code: 'bad-guard-call' } });
  } finally {
    await taking.close();
  }
});

test('a read of the guard’s own paths is not let in unsigned', async () => {
  const path = '/.well-known/onewriter/guard/verdict';
  expect(await ask(server.url, { path })).toMatchObject({ status: 403, body: { code: 'unsigned' } });
});
