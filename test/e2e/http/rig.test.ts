/** The rig itself: what the tests beside it take for granted. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { statusOf } from '../../support/raw-http.ts';
import { HttpRig, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start();
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

test('a request reaches legacy, and after a move the app', async () => {
  expect(
    (await rig.exchange(requestText('POST /a', { lines: ['Content-Length: 2'], body: 'hi' }))).body,
  ).toBe('ok');
  expect(rig.legacy.requests.map(({ startLine, body }) => [startLine, body])).toEqual([
    ['POST /a HTTP/1.1', 'hi'],
  ]);
  await rig.moveToApp('mover');
  await rig.exchange(requestText('POST /b', { user: 'mover', lines: ['Content-Length: 0'] }));
  expect(rig.app.requests.map(({ startLine }) => startLine)).toEqual(['POST /b HTTP/1.1']);
  expect(rig.legacy.requests).toHaveLength(1);
});

test('a fence holds a write until it is lifted, and is counted', async () => {
  const fence = await rig.fence('ann');
  const client = await rig.connect();
  client.send(requestText('POST /a', { lines: ['Content-Length: 2'], body: 'hi' }));
  await rig.counted('held_writes', 1);
  expect(rig.legacy.bytes).toBe('');
  await fence.reopen();
  expect(statusOf(await client.answer())).toBe(200);
  await rig.counted('held_writes', 0);
});
