/** What a process keeps of the ledger on disk, and what the next one makes of it (I5). */
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ViewKeeper } from '../../src/ledger/keeper.ts';
import { type KeptView, KeptViews } from '../../src/ledger/kept-views.ts';
import { checkOnStart } from '../../src/ledger/regression.ts';
import { Rescues } from '../../src/ledger/rescues.ts';
import type { Holder, Holding } from '../../src/ledger/holding.ts';
import { Witness } from '../../src/ledger/witness.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: TestLedger;
let dataDir: string;
let views: KeptViews;
const ledgerName = '127.0.0.1:6379/0';
const keepers: ViewKeeper[] = [];
const witnesses: Witness[] = [];

beforeEach(async () => {
  server = await startRedis();
  rig = await openLedger(server);
  dataDir = mkdtempSync(join(tmpdir(), 'onewriter-kept-'));
  views = new KeptViews(dataDir, ledgerName, 'a test');
});
afterEach(async () => {
  for (const keeper of keepers.splice(0)) await keeper.stop();
  for (const witness of witnesses.splice(0)) await witness.stop();
  await rig.close();
  await server.stop();
  rmSync(dataDir, { recursive: true });
});

function keep(holder: Holder, kept?: KeptView): ViewKeeper {
  const keeper = new ViewKeeper({
    holder,
    views,
    rescues: new Rescues(rig.redis),
    kept,
    log: () => undefined,
  });
  keeper.start();
  keepers.push(keeper);
  return keeper;
}

async function fence(partition: string) {
  const order = { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 60_000 } as const;
  const result = await rig.ledger.order({ partition, order, by: 'test', reason: 'test' });
  if (result.result !== 'done') throw new Error(JSON.stringify(result));
  return { version: result.record.version, id: result.record.transitionId };
}

const files = (): string[] => readdirSync(join(dataDir, 'ledger-views'));

function holdingAt(version: number, id = `id-${version}`): Holding {
  const position = { version, id };
  return { confirmed: position, position, partitions: [], rules: undefined };
}

describe('a view on disk', () => {
  test('follows what was confirmed to a member, within seconds and readable by its user only', async () => {
    const member = await rig.join();
    keep(member);
    const position = await fence('u');
    const kept = await until('it is kept', async () => {
      const newest = await views.newest();
      return newest?.confirmed.version === position.version && newest;
    });
    expect(kept.confirmed).toEqual(position);
    expect(kept.document.partitions.get('u')).toMatchObject({ phase: 'fenced', epoch: 2 });
    expect(kept.document.rules).toEqual({ hash: 'same', newPartitions: 'legacy' });
    expect(statSync(kept.file).mode & 0o777).toBe(0o600);
    expect(files()).toHaveLength(1);
  });

  test('is written once more when the process stops', async () => {
    const member = await rig.join();
    const keeper = keep(member);
    const { version } = await fence('u');
    await until('confirmed', () => member.holding().confirmed?.version === version);
    await keeper.stop();
    expect((await views.newest())?.confirmed.version).toBe(version);
  });

  test('is never replaced by one that knows less, whichever process writes last', async () => {
    await views.save(holdingAt(7));
    await views.save(holdingAt(5));
    expect((await views.newest())?.confirmed.version).toBe(7);
    await Promise.all([9, 12, 8, 10, 11].map((version) => views.save(holdingAt(version))));
    expect((await views.newest())?.confirmed.version).toBe(12);
  });

  test('that another process replaces while it is read is looked for again', async () => {
    await views.save(holdingAt(7));
    const slow = new KeptViews(dataDir, ledgerName, 'a slow reader', async (file) => {
      if (file.includes('0007.')) await views.save(holdingAt(8));
      return readFile(file, 'utf8');
    });
    expect((await slow.newest())?.confirmed.version).toBe(8);
  });

  test('that is listed and cannot be found is named, not looked for for ever', async () => {
    await views.save(holdingAt(7));
    const [name = ''] = files();
    const file = join(dataDir, 'ledger-views', name);
    rmSync(file);
    symlinkSync(join(dataDir, 'nowhere'), file);
    await expect(views.newest()).rejects.toThrow(`${file}, which says`);
  });

  test('of another ledger says nothing about this one', async () => {
    await views.save(holdingAt(7));
    expect(await new KeptViews(dataDir, 'elsewhere:6379/0', 'a test').newest()).toBeUndefined();
  });

  test('that was cut off is no view, and is named', async () => {
    await views.save({ ...holdingAt(7), partitions: [['u', { phase: 'open', owner: 'app', epoch: 4 }]] });
    const [name = ''] = files();
    const file = join(dataDir, 'ledger-views', name);
    writeFileSync(file, readFileSync(file, 'utf8').split('\n').slice(0, 2).join('\n'));
    await expect(views.newest()).rejects.toThrow(`${file}, which says`);
  });
});

describe('a process that starts', () => {
  /** One process lives, is confirmed a fence of `u`, and ends; the ledger goes on to `v`. */
  async function before() {
    const member = await rig.join();
    const keeper = keep(member);
    await fence('u');
    const { version } = await fence('v');
    await until('confirmed', () => member.holding().confirmed?.version === version);
    await keeper.stop();
    await member.stop();
    const kept = await views.newest();
    if (kept === undefined) throw new Error('nothing was kept');
    return kept;
  }

  test('finds a ledger that has everything sound', async () => {
    const kept = await before();
    expect(await checkOnStart(rig.redis, rig.ledger, views, kept)).toBeUndefined();
    expect(await rig.ledger.regression()).toBeUndefined();
  });

  test('tells at once that the ledger lost data while nobody ran, and which file says so', async () => {
    const kept = await before();
    await rig.redis.flushall();
    const sentence = await checkOnStart(rig.redis, rig.ledger, views, kept);
    expect(sentence).toContain(kept.file);
    expect(sentence).toContain('onewriter ledger restore --from member');
    expect(sentence).toContain('--from empty');
    expect((await rig.ledger.regression())?.by).toContain(kept.file);
  });

  test('as a member claims what the file says with its first heartbeat, and admits nothing', async () => {
    const kept = await before();
    await rig.redis.flushall();
    const member = await rig.join({ before: kept });
    expect(member.trouble()).toContain('ledger-regressed');
    expect(member.admit('w')).toEqual({ verdict: 'refuse', code: 'lease-lapsed' });
    // Reads still go where the partition was last known to be.
    expect(member.ownershipOf('u')).toMatchObject({ phase: 'fenced', epoch: 2 });
    await expect(fence('w')).rejects.toThrow('ledger-regressed');
  });

  test('publishes what the file says beside the ledger that lost it', async () => {
    const kept = await before();
    await rig.redis.flushall();
    const member = await rig.join({ before: kept });
    keep(member, kept);
    const [document] = await until('a rescue view', async () => {
      const all = [...(await new Rescues(rig.redis).all()).values()];
      return all.length > 0 && all;
    });
    expect([...(document?.partitions.keys() ?? [])].toSorted()).toEqual(['u', 'v']);
    expect(document?.position).toEqual(kept.document.position);
  });

  test('without the file, because the operator deleted it, takes the emptied ledger as it is', async () => {
    const kept = await before();
    await rig.redis.flushall();
    await checkOnStart(rig.redis, rig.ledger, views, kept);
    rmSync(kept.file);
    expect(await checkOnStart(rig.redis, rig.ledger, views, await views.newest())).toBeUndefined();
    expect(await rig.ledger.regression()).toBeUndefined();
    const member = await rig.join();
    await until('it admits', () => member.admit('w').verdict === 'admit');
  });

  test('that another data directory holds takes nothing back: who cannot see the file proves nothing', async () => {
    const kept = await before();
    await rig.redis.flushall();
    await checkOnStart(rig.redis, rig.ledger, views, kept);
    const elsewhere = new KeptViews(join(dataDir, 'other'), 'the ledger', 'another');
    expect(await checkOnStart(rig.redis, rig.ledger, elsewhere, undefined)).toContain('lost data');
    rmSync(kept.file);
    expect(await checkOnStart(rig.redis, rig.ledger, elsewhere, undefined)).toContain('lost data');
    expect(await checkOnStart(rig.redis, rig.ledger, views, undefined)).toBeUndefined();
  });

  test('does not withdraw what a living member said, whatever was deleted', async () => {
    const member = await rig.join({ leaseMs: 300 });
    await fence('u');
    await until('confirmed', () => (member.holding().confirmed?.version ?? 0) >= 2);
    await rig.redis.flushall();
    await until('marked', () => rig.ledger.regression());
    expect(await checkOnStart(rig.redis, rig.ledger, views, undefined)).toContain('The ledger has lost data');
    expect(await rig.ledger.regression()).toMatchObject({ by: '' });
  });
});

describe('a witness', () => {
  async function open(): Promise<Witness> {
    const { ledger, feed } = rig;
    const parts = { ledger, feed, defaultOwner: 'legacy', everyMs: 50, before: undefined } as const;
    const witness = await Witness.open({ ...parts, log: () => undefined });
    witnesses.push(witness);
    return witness;
  }

  test('finds the loss though no member is left to tell', async () => {
    const witness = await open();
    const position = await fence('u');
    await until('confirmed', () => witness.holding().confirmed?.version === position.version);
    await rig.redis.flushall();
    expect(await witness.lost()).toContain('was confirmed');
    await until('marked', () => witness.regressed());
    expect(await rig.ledger.regression()).toBeDefined();
  });

  test('goes back, with the feed that it shares, when only unconfirmed changes were lost', async () => {
    const first = await fence('u');
    const witness = await open();
    const heard: string[] = [];
    rig.feed.onTransition(({ partition }) => heard.push(partition));
    await until('confirmed', () => witness.holding().confirmed?.version === first.version);
    // As in a failover between two heartbeats: the change was seen, and is gone before anybody was confirmed it.
    const fields = [
      'previous',
      first.id,
      'kind',
      'doubt-resolved',
      'payload',
      '{"partition":"x"}',
      'id',
      'lost',
      'atMs',
      '1',
    ];
    await rig.redis.xadd('{onewriter}:changes', '2-0', ...fields, 'by', 'test', 'reason', 'test');
    await until('it was seen', () => witness.holding().position.id === 'lost');
    await rig.redis.del('{onewriter}:changes');
    await until('it went back', () => witness.holding().position.id === first.id);
    await fence('v');
    await until('the feed heard of it', () => heard.includes('v'));
    expect(await rig.ledger.regression()).toBeUndefined();
  });
});
