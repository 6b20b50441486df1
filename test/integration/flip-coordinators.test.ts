import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { FlipBook } from '../../src/ledger/flips.ts';
import { FlipRig, leadMs, names, type TestDesk } from '../support/flip.ts';
import { until } from '../support/until.ts';

let rig: FlipRig;

beforeEach(async () => {
  rig = await FlipRig.start();
});
afterEach(async () => {
  await rig.close();
});

function loggedBy(...desks: TestDesk[]): string[] {
  return desks.flatMap(({ events }) => events.map(({ event }) => event));
}

describe('two coordinators on one ledger', () => {
  test('do not run the same flip: one moves it, the other shows how far it is', async () => {
    await rig.ledger.join();
    const [first, second] = [await rig.open({ batch: 1 }), await rig.open({ batch: 1 })];
    const letGo = rig.holdAt('u03');
    const { id } = await rig.start(first.desk);
    const seen = await rig.untilFlip(second.desk, id, 'it shows', ({ committed }) => committed === 3);
    expect(seen).toMatchObject({ state: 'running', total: 12, aborted: 0, pending: 9 });
    letGo();
    for (const { desk } of [first, second]) {
      expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12, aborted: 0 });
    }
    expect((await second.desk.flip(id))?.pauseMs).toEqual((await first.desk.flip(id))?.pauseMs);
    expect(loggedBy(first, second)).not.toContain('handoff.aborted');
    expect(loggedBy(second)).not.toContain('flip.taken-over');
    for (const name of names) expect((await rig.ledger.ledger.read(name)).ownership.epoch).toBe(4);
  });

  test('reserve across processes: flips ordered at once for overlapping cohorts never meet', async () => {
    await rig.ledger.join();
    const [first, second] = [await rig.open(), await rig.open()];
    const order = { to: 'app', reason: 'test', by: 'ops' } as const;
    const started = await Promise.all([
      first.desk.start({ cohort: 'pilot', ...order }),
      second.desk.start({ cohort: 'early', ...order }),
    ]);
    let committed = 0;
    for (const flip of started) {
      if ('refused' in flip) {
        expect(flip).toMatchObject({ refused: 'nothing-can-move' });
        expect(flip.blocked?.every(({ code }) => code === 'reserved')).toBe(true);
      } else committed += (await rig.ended(first.desk, flip.id)).committed;
    }
    expect(committed).toBe(12);
    expect(loggedBy(first, second)).not.toContain('handoff.aborted');
    for (const name of names) expect((await rig.ledger.ledger.read(name)).ownership.epoch).toBe(4);
  });

  test('free the partitions of a flip that has ended', async () => {
    await rig.ledger.join();
    const [first, second] = [await rig.open({ batch: 1 }), await rig.open()];
    const letGo = rig.holdAt('u03');
    const { id } = await rig.start(first.desk);
    await until('u03 is fenced', async () => (await rig.ownerOf('u03')) === 'fenced legacy');
    expect(await second.desk.start({ cohort: 'early', to: 'app', reason: 'test', by: 'ops' })).toMatchObject({
      refused: 'nothing-can-move',
    });
    const aborted = first.desk.abort(id, 'ops', 'another time');
    await until('u03 is open again', async () => (await rig.ownerOf('u03')) === 'open legacy');
    letGo();
    await aborted;
    rig.onCatchUp = async () => undefined;
    const again = await rig.start(second.desk);
    expect(await rig.ended(second.desk, again.id)).toMatchObject({ state: 'completed', committed: 9 });
  });
});

describe('a coordinator that falls silent', () => {
  test('is replaced within the lease; its handoffs are no failures, and it does not come back', async () => {
    await rig.ledger.join();
    const cutter = await rig.cutter();
    const first = await rig.open({ batch: 1, url: cutter.url });
    const second = await rig.open({ batch: 1 });
    const letGo = rig.holdAt('u05');
    const { id } = await rig.start(first.desk);
    await until('u05 is fenced', async () => (await rig.ownerOf('u05')) === 'fenced legacy');
    expect(loggedBy(second)).not.toContain('flip.taken-over');
    cutter.cut();
    const cutAtMs = performance.now();
    rig.onCatchUp = async () => undefined;
    await until('the other takes over', () => loggedBy(second).includes('flip.taken-over'));
    expect(performance.now() - cutAtMs).toBeLessThan(leadMs + 1_000);
    const done = await rig.ended(second.desk, id);
    expect(done).toMatchObject({ state: 'completed', committed: 12, aborted: 0, blocked: [] });
    cutter.mend();
    letGo();
    const shown = await rig.untilFlip(
      first.desk,
      id,
      'it says the same',
      ({ state }) => state === 'completed',
    );
    expect(shown).toEqual(done);
    for (const name of names) expect(await rig.ownerOf(name)).toBe('open app');
  });

  test('begins no further handoff once another has its flip; what is under way ends well', async () => {
    await rig.ledger.join();
    const first = await rig.open({ batch: 1 });
    const letGo = rig.holdAt('u02');
    const { id } = await rig.start(first.desk);
    await until('u02 is fenced', async () => (await rig.ownerOf('u02')) === 'fenced legacy');
    const book = new FlipBook(rig.redis);
    await rig.redis.del(`{onewriter}:flip:of:${id}:lease`);
    const term = await until('another takes it', () => book.take(id, 60_000));
    const flip = await book.flip(id);
    if (flip === undefined) throw new Error('no flip');
    const progress = { ...flip.progress, detail: 'run by another' };
    expect(await book.save(id, term, { progress, reports: [], free: [] })).toBe(true);
    await rig.untilFlip(first.desk, id, 'the first knows', ({ detail }) => detail === 'run by another');
    letGo();
    await until('u02 has moved', async () => (await rig.ownerOf('u02')) === 'open app');
    // Round trips give a coordinator that goes on every chance to.
    for (let round = 0; round < 50; round += 1) await rig.ledger.ledger.read('u03');
    for (const name of names.slice(3)) expect(await rig.ownerOf(name)).toBe('open legacy');
    expect((await book.flip(id))?.progress).toEqual(progress);
  });

  test('by its own will hands its flips over at once', async () => {
    await rig.ledger.join();
    const [first, second] = [await rig.open({ batch: 1 }), await rig.open()];
    const letGo = rig.holdAt('u03');
    const { id } = await rig.start(first.desk);
    await until('u03 is fenced', async () => (await rig.ownerOf('u03')) === 'fenced legacy');
    const left = first.desk.stop();
    letGo();
    rig.onCatchUp = async () => undefined;
    await left;
    expect(await rig.ended(second.desk, id)).toMatchObject({ state: 'completed', committed: 12, aborted: 0 });
    const reports = await second.desk.flipReports(id, names);
    expect(reports.map(({ outcome }) => outcome)).toEqual(names.map(() => 'moved'));
  });
});

describe('an order', () => {
  test('to pause, to resume and to abort reaches the coordinator through another admin', async () => {
    await rig.ledger.join();
    const [first, second] = [await rig.open({ batch: 1 }), await rig.open()];
    let letGo = rig.holdAt('u02');
    const { id } = await rig.start(first.desk);
    await until('u02 is fenced', async () => (await rig.ownerOf('u02')) === 'fenced legacy');
    expect(await second.desk.pause(id, 'olga', 'lunch')).toMatchObject({
      state: 'paused',
      detail: 'paused by olga: lunch',
    });
    const resumeLate = letGo;
    letGo = rig.holdAt('u04');
    resumeLate();
    await until('u02 has moved', async () => (await rig.ownerOf('u02')) === 'open app');
    expect(await first.desk.flip(id)).toMatchObject({ state: 'paused' });
    expect(await second.desk.resume(id, 'olga', 'back')).toMatchObject({ state: 'running' });
    await until('u04 is fenced', async () => (await rig.ownerOf('u04')) === 'fenced legacy');
    const aborting = second.desk.abort(id, 'olga', 'enough');
    await until('u04 is open again', async () => (await rig.ownerOf('u04')) === 'open legacy');
    letGo();
    expect(await aborting).toMatchObject({ state: 'aborted', committed: 4, pending: 8 });
    expect(await first.desk.resume(id, 'ops', 'no')).toMatchObject({ refused: 'wrong-state' });
  });

  test('and another at the same moment are both heeded: none is lost', async () => {
    await rig.ledger.join();
    const desks = [await rig.open({ batch: 1 }), await rig.open(), await rig.open()];
    const [first] = desks;
    if (first === undefined) throw new Error('no desk');
    const letGo = rig.holdAt('u02');
    const { id } = await rig.start(first.desk);
    await Promise.all(desks.map(({ desk }, at) => desk.pause(id, `op${at}`, 'now')));
    const texts = await rig.redis.hmget('{onewriter}:flip:progress', id);
    expect(JSON.parse(texts[0] ?? '{}')).toMatchObject({ heeded: 3, state: 'paused' });
    await desks[2]?.desk.resume(id, 'op2', 'on');
    letGo();
    expect(await rig.ended(first.desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('to abort stands until the flip has ended, also where its coordinator leaves in the middle', async () => {
    await rig.ledger.join();
    const [first, second] = [await rig.open({ batch: 1 }), await rig.open({ batch: 4, waves: ['100%'] })];
    const letGo = rig.holdAt('u02');
    const { id } = await rig.start(first.desk);
    await until('u02 is fenced', async () => (await rig.ownerOf('u02')) === 'fenced legacy');
    const aborting = second.desk.abort(id, 'olga', 'enough');
    await until('the order is heeded', async () => (await rig.ownerOf('u02')) === 'open legacy');
    await first.desk.stop();
    expect(await aborting).toMatchObject({ state: 'aborted', committed: 2, pending: 10 });
    letGo();
  });

  test('that nobody was there to take is carried out by who takes the flip over', async () => {
    await rig.ledger.join();
    const cutter = await rig.cutter();
    const first = await rig.open({ batch: 1, url: cutter.url });
    const second = await rig.open({ batch: 4, waves: ['100%'] });
    const letGo = rig.holdAt('u02');
    const { id } = await rig.start(first.desk);
    await rig.untilFlip(second.desk, id, 'two have moved', ({ committed }) => committed === 2);
    cutter.cut();
    rig.onCatchUp = async () => undefined;
    expect(await second.desk.pause(id, 'olga', 'what is this')).toMatchObject({
      state: 'paused',
      detail: 'paused by olga: what is this',
    });
    expect(await second.desk.flip(id)).toMatchObject({ committed: 2, aborted: 0 });
    for (const name of names.slice(3)) expect((await rig.ledger.ledger.read(name)).ownership.epoch).toBe(1);
    letGo();
    await second.desk.resume(id, 'olga', 'on');
    expect(await rig.ended(second.desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('to a flip that nobody has heard of is refused', async () => {
    const { desk } = await rig.open();
    expect(await desk.pause('none', 'ops', 'x')).toMatchObject({ refused: 'no-such-flip' });
  });
});
