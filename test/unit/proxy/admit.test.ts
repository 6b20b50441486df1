/** A read that had to wait for where its partition lives is planned anew, like every request that waited. */
import { beforeEach, describe, expect, test } from '@jest/globals';
import type { Found, Homes } from '../../../src/core/homes.ts';
import { DirectoryMemory } from '../../../src/ledger/directory.ts';
import { admit, type Decision, type RulesState } from '../../../src/proxy/admit.ts';
import { Holds } from '../../../src/proxy/hold.ts';
import type { Place } from '../../../src/proxy/place.ts';
import { createTestGate, type TestGate } from '../../support/gate.ts';

let gate: TestGate;
let service: RulesState;
let place: Place;
let gone: boolean;
let decisions: Decision[];
let bugs: unknown[];
/** What is asked for, in order, and how each is answered. */
let asked: { readonly partition: string; readonly answer: (found: Found) => void }[];
let known: Set<string>;
let looks: { readonly user: string; readonly fail: () => void }[];

beforeEach(() => {
  gate = createTestGate();
  service = { now: 'open' };
  place = { place: 'partition', partition: 'org1' };
  [gone, decisions, bugs, asked, known, looks] = [false, [], [], [], new Set(), []];
});

const homes: Homes = {
  known: (partition) => known.has(partition),
  settle: () => undefined,
  find: (partition) => new Promise((answer) => asked.push({ partition, answer })),
};

const links = { known: () => true, note: async () => undefined };

function read(): void {
  const holds = new Holds(gate, { perPartition: 1, total: 1, holdMs: 1_000 });
  const counters = { held: 0, abandonedHolds: 0 };
  const directory = new DirectoryMemory(
    (user) => new Promise((_, reject) => looks.push({ user, fail: () => reject(new Error('away')) })),
  );
  admit(
    { gate, homes, directory, links, holds, counters, service },
    {
      place: () => place,
      staysPinned: () => true,
      route: '/a',
      ...{ access: 'read', identified: true },
      client: { gone: () => gone, onGone: () => () => undefined },
      bug: (error) => void bugs.push(error),
    },
    (decision) => void decisions.push(decision),
  );
}

/** Answers the last question, and lets what waits for it run. */
async function answer(found: Found): Promise<void> {
  asked.at(-1)?.answer(found);
  await settled();
}
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const inApp = { store: 'app', home: 'new' } as const;
const inLegacy = { store: 'legacy', home: 'known' } as const;

describe('a read that waited for where its partition lives', () => {
  test('goes where it was found, after one question', async () => {
    read();
    expect(decisions).toEqual([]);
    await answer(inApp);
    expect(decisions).toEqual([
      { decision: 'forward', passage: { store: 'app', partition: 'org1', epoch: 1 } },
    ]);
    expect(asked.length).toBe(1);
  });

  test('is judged anew where the rules were replaced meanwhile', async () => {
    read();
    service.now = 'replaced';
    await answer(inLegacy);
    expect(decisions).toEqual([{ decision: 'again', heldSinceMs: undefined }]);
  });

  test('goes under the partition that its user belongs to by now', async () => {
    read();
    place = { place: 'partition', partition: 'org2' };
    await answer(inLegacy);
    expect(decisions).toEqual([]);
    expect(asked.map(({ partition }) => partition)).toEqual(['org1', 'org2']);
    await answer(inApp);
    expect(decisions).toEqual([
      { decision: 'forward', passage: { store: 'app', partition: 'org2', epoch: 1 } },
    ]);
  });

  test('goes to the owner of by now where the ledger spoke of the partition meanwhile', async () => {
    read();
    gate.move('org1', 'app');
    known.add('org1');
    await answer(inLegacy);
    expect(decisions).toEqual([
      { decision: 'forward', passage: { store: 'app', partition: 'org1', epoch: 4 } },
    ]);
  });

  test('is told to come again where its partition never stands still', async () => {
    read();
    for (let at = 2; at <= 6; at += 1) {
      place = { place: 'partition', partition: `org${at}` };
      await answer(inLegacy);
    }
    expect(asked.length).toBe(5);
    expect(decisions).toMatchObject([{ decision: 'refuse', failure: { code: 'directory-unavailable' } }]);
  });

  test('is forgotten where its client went away', async () => {
    read();
    gone = true;
    await answer(inApp);
    expect([decisions, bugs]).toEqual([[], []]);
  });
});

test('a directory that does not answer refuses nobody who is judged by other rules by now', async () => {
  place = { place: 'look-up', user: 'ann' };
  read();
  service.now = 'replaced';
  looks[0]?.fail();
  await settled();
  expect(decisions).toEqual([{ decision: 'again', heldSinceMs: undefined }]);
});
