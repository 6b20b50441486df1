/** What doctor says of credentials that should only read. */
import { afterEach, expect, test } from '@jest/globals';
import { checkStore } from '../../src/cli/doctor/stores.ts';
import { configOf } from '../support/proxy.ts';
import { connectorFor, startRestStore, type TestRestStore } from '../support/rest-store.ts';
import { appointment } from '../support/sync.ts';

let store: TestRestStore | undefined;
afterEach(async () => store?.stop());

const check = 'stores.legacy.connector.headers';

async function findings(
  intercept: TestRestStore['intercept'],
  asked: { probeWrites: boolean },
  connector: Record<string, unknown> = {},
  sync: Record<string, unknown> = {},
): Promise<string[]> {
  store = await startRestStore({ records: [appointment('1', 'ann')] });
  store.intercept = intercept;
  const stores = {
    legacy: { url: store.url, connector: { ...connectorFor(), ...connector } },
    app: { url: store.url },
  };
  const found = await checkStore(configOf({ stores, sync }), 'legacy', asked);
  return found.filter((finding) => finding.check === check).map(({ level, detail }) => `${level}: ${detail}`);
}

const probe = { probeWrites: true };

test('without being told to ask, doctor only reads, and says that it does not know', async () => {
  const [told] = await findings(undefined, { probeWrites: false });
  expect(told).toMatch(/^ok: nothing is written with them; whether they could write is not known/);
  expect(store?.writes()).toEqual([]);
});

test.each([
  [403, 'ok: cannot write, as it should be'],
  [401, 'ok: cannot write, as it should be'],
  [404, 'warn: can write, as it seems'],
  [204, 'warn: can write, as it seems'],
  [412, 'warn: can write, as it seems'],
  [405, 'warn: whether they could write cannot be known'],
  [500, 'warn: whether they could write cannot be known'],
])('a store that answers the question with %i', async (status, said) => {
  const answer: TestRestStore['intercept'] = ({ method }) =>
    method === 'GET' ? undefined : { status, body: {} };
  const [told] = await findings(answer, probe);
  expect(told).toContain(said);
  expect(told).toContain(String(status));
  const [asked, ...more] = store?.writes() ?? [];
  expect(more).toEqual([]);
  expect(asked).toMatchObject({ method: 'DELETE', headers: { 'if-match': '"onewriter-never"' } });
  expect(asked?.path).toMatch(/^\/appointments\/onewriter-never-/);
  expect(store?.records.size).toBe(1);
});

test('a delete that names its record in the query is never asked', async () => {
  const { records } = connectorFor();
  const byQuery = { ...records['appointment'], delete: { path: '/appointments?id={id}' } };
  const [told] = await findings(undefined, probe, { records: { appointment: byQuery } });
  expect(told).toContain('cannot be known: no path of a single record');
  expect(store?.writes()).toEqual([]);
});
