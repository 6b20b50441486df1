import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { expect, test } from '@jest/globals';
import { configSchema } from '../../../src/config/schema.ts';
import { watchReach } from '../../../src/stores/reach.ts';
import { closedPort } from '../../support/unreachable.ts';

test('names the store that takes no connection, by its address and without what else the URL holds', async () => {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const closed = await closedPort();
  const troubles = watchReach({
    legacy: { url: `http://127.0.0.1:${port}/api` },
    app: { url: `http://127.0.0.1:${closed}/v1` },
  });
  const detail = `http://127.0.0.1:${closed} cannot be reached (ECONNREFUSED)`;
  expect(await troubles()).toEqual([{ store: 'app', detail }]);
  await new Promise<void>((resolve) => server.close(() => resolve()));
});

test('names the database that takes no connection, too, and says nothing of who connects to it', async () => {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const closed = await closedPort();
  const url = `http://127.0.0.1:${port}`;
  const connector = { kind: 'postgres', records: { note: { table: 'notes', id: 'id', partition: 'owner' } } };
  const { stores } = configSchema.parse({
    secret: 'a secret of the reach tests',
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    stores: {
      legacy: { url, connector: { ...connector, url: `postgres://user:password@127.0.0.1:${closed}/d` } },
      app: { url, connector: { ...connector, host: '127.0.0.1', port } },
    },
  });
  const detail = `postgres://127.0.0.1:${closed} cannot be reached (ECONNREFUSED)`;
  expect(await watchReach(stores)()).toEqual([{ store: 'legacy', detail }]);
  const socket = { ...stores.legacy, connector: { ...stores.app.connector, host: '/run/postgresql' } };
  expect(await watchReach({ legacy: socket as typeof stores.legacy, app: stores.app })()).toEqual([]);
  await new Promise<void>((resolve) => server.close(() => resolve()));
});
