/** Writes on pinned routes: which of them other rules would not leave at their store. */
import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { expect, test } from '@jest/globals';
import { createClassifier } from '../../../src/proxy/classify.ts';
import { PinnedWrites } from '../../../src/proxy/pinned.ts';
import { configOf } from '../../support/proxy.ts';

const inbox = { path: '/inbox/*', store: 'legacy' };
const calendars = { path: '/cal/:owner/*', store: 'legacy' };

test('a MOVE in doubt is waited for where either of its two targets is pinned no more', () => {
  const before = configOf({ routes: [inbox, calendars] });
  const request = new IncomingMessage(new Socket());
  request.httpVersion = '1.1';
  request.method = 'MOVE';
  request.url = '/inbox/a.ics';
  request.rawHeaders = ['Host', 'h', 'Destination', '/cal/u1/a.ics'];
  request.headers = { host: 'h', destination: '/cal/u1/a.ics' };
  const match = createClassifier(before).match(request, false);
  if (match.match !== 'request') throw new Error(`not matched: ${match.match}`);
  const pinned = new PinnedWrites();
  pinned.begin(request, match.request, 'legacy', before, 600_000)('in-doubt');
  const doubtsUnder = (routes: unknown[]): number => {
    const next = configOf({ routes });
    return pinned.unpinnedBy(createClassifier(next), next).inDoubt;
  };
  expect(doubtsUnder([inbox, calendars])).toBe(0);
  expect(doubtsUnder([inbox, { path: '/cal/:owner/*', partition: 'path.owner' }])).toBe(1);
  expect(doubtsUnder([{ path: '/inbox/*', partition: 'user' }, calendars])).toBeGreaterThan(0);
});
