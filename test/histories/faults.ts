/** A store that fails now and then: before it has done anything, after it, or a while after it has answered. */
import type { SeededRandom } from '../model/random.ts';
import type { GivenAnswer, SeenCall, TestRestStore } from '../support/rest-store.ts';

/** Well within the settle time of the stores in these tests. */
const lateMs = 100;

export function faultyCalls(
  store: TestRestStore,
  ofHundred: number,
  random: SeededRandom,
): (call: SeenCall) => GivenAnswer | undefined {
  return (call) => {
    if (random.next() * 100 >= ofHundred) return undefined;
    const kind = random.below(4);
    if (kind === 0) return { status: 429, headers: { 'retry-after': '0' } };
    if (call.method !== 'GET' && !Array.isArray(call.body)) {
      if (kind === 1) take(store, call);
      if (kind === 2) setTimeout(() => take(store, call), lateMs);
    }
    return { status: 503, body: { title: 'Out of order' } };
  };
}

function take(store: TestRestStore, { method, path, body }: SeenCall): void {
  if (method === 'DELETE') store.remove(path.split('/')[2] ?? '');
  else if (body !== undefined) store.set(body);
}
