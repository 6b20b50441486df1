/** What doctor says of webhooks, of deletes that nobody marks, and of a way back from an app without a guard. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { checkStore } from '../../src/cli/doctor/stores.ts';
import { configOf } from '../support/proxy.ts';
import { connectorFor, startRestStore, type TestRestStore } from '../support/rest-store.ts';
import { appointment } from '../support/sync.ts';

let store: TestRestStore | undefined;
afterEach(async () => store?.stop());

const webhook = {
  signatures: [{ scheme: 'github', secrets: ['the-secret-text'] }],
  events: [{ kind: 'appointment', id: 'data.id' }],
};

async function findings(
  name: 'legacy' | 'app',
  connector: Record<string, unknown>,
  more: Record<string, unknown> = {},
  settings: Record<string, unknown> = {},
): Promise<string[]> {
  store = await startRestStore({ records: [appointment('1', 'ann')] });
  const { url } = store;
  const stores = {
    legacy: { url },
    app: { url },
    [name]: { url, connector: { ...connectorFor(), ...connector }, ...settings },
  };
  const found = await checkStore(configOf({ stores, ...more }), name);
  return found.map(({ level, check, detail, advice = '' }) => `${level} ${check}: ${detail} ${advice}`);
}

const matching = (found: readonly string[], words: RegExp): string[] =>
  found.filter((one) => words.test(one));

describe('webhooks', () => {
  test('that tell of a kind are said to, also for its deletes', async () => {
    const found = await findings('legacy', { webhook }, { webhooks: { port: 8_082 } });
    expect(matching(found, /^ok stores.legacy webhooks: of appointment .* port 8082, .*github/)).toHaveLength(
      1,
    );
    expect(matching(found, /^ok .*not marked: those that webhooks tell of show at once/)).toHaveLength(1);
    expect(matching(found, /^warn .*deleted records are not marked/)).toEqual([]);
  });

  test('are not spoken of where there are none', async () => {
    const found = await findings('legacy', {});
    expect(matching(found, /webhooks/)).toEqual([]);
    expect(matching(found, /^warn .*deleted records are not marked/)).toHaveLength(1);
  });
});

test.each([
  ['off', /and nothing that was flipped can go back to legacy/],
  ['on', /and what was flipped can go back to legacy only while its rollback window is open/],
])('an app without a guard, with the rollback window %s', async (rollbackWindow, words) => {
  const found = await findings('app', {}, { sync: { rollbackWindow } }, { guard: false });
  expect(matching(found, /^warn stores.app.guard/)).toEqual([expect.stringMatching(words)]);
});
