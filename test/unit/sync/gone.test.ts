import { afterEach, expect, test } from '@jest/globals';
import { newlyGone } from '../../../src/sync/gone.ts';
import { startHttpPlatform } from '../../support/http-platform.ts';
import { never, restStoreOf } from '../../support/rest-client.ts';

const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

test.each([
  ['by the id, where that is enough', '/items/{id}', ['/items/r1', '/items/r2'], ['r1']],
  ['not where it wants the partition, too: a full pass finds them', '/{partition}/items/{id}', [], []],
])('a copy is asked for what is gone %s', async (_, path, asked, found) => {
  const platform = await startHttpPlatform((call) =>
    call.path === '/items/r1' ? { body: { id: 'r1', owner: 'ann' } } : { status: 404 },
  );
  ends.push(() => platform.stop());
  const record = { list: { path: '/items' }, get: { path }, id: 'id', partition: 'owner' };
  const { reader } = restStoreOf(platform.url, { records: { item: record } });
  ends.push(() => reader.close());
  const now = new Map<string, string>();
  const tell = (before?: ReadonlyMap<string, string>) =>
    newlyGone({ records: [], problems: [], gone: ['r1', 'r2'] }, 'item', reader, { before, now }, never);
  expect(await tell()).toEqual(found.map((id) => ({ partition: 'ann', kind: 'item', id })));
  expect(platform.calls.map((call) => call.path).toSorted()).toEqual(asked);
  // Only once.
  expect(await tell(now)).toEqual([]);
  expect(platform.calls).toHaveLength(asked.length);
});
