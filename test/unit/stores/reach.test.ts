import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { expect, test } from '@jest/globals';
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
