/**
 * Runs a program of histories over the real sync: stores over HTTP, a real Redis, two worker processes' worth of
 * workers, and a third that takes the proxy's rings and hands partitions over.
 */
import { createHmac } from 'node:crypto';
import { type Ownership } from '../../src/core/ownership.ts';
import { keyPrefix } from '../../src/ledger/connection.ts';
import type { Sync } from '../../src/sync/create.ts';
import { SeededRandom } from '../model/random.ts';
import type { TestRedis } from '../support/redis.ts';
import { connectorFor, type RestStoreOptions, type TestRestStore } from '../support/rest-store.ts';
import { startSyncRig, type SyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';
import { faultyCalls } from './faults.ts';
import { type Body, differencesIn, Family, Slot } from './truth.ts';
import type { Delivery, History, Program, Side, Step, Told, Trouble } from './words.ts';
import { rounds } from './words.ts';

export interface Outcome {
  /** Records that are not as they should be, and what must never happen at all. */
  readonly wrong: readonly string[];
  readonly done: Readonly<Record<string, number>>;
}

type StoreName = 'legacy' | 'app';

const secret = 'the-secret-of-the-histories';
const settledWithinMs = 120_000;

export async function runProgram(server: TestRedis, program: Program): Promise<Outcome> {
  const heard = new Map<string, Ownership>();
  const rig = await startSyncRig(server, rigOptions(program, heard));
  const run = new Run(rig, program, heard);
  try {
    return await run.outcome();
  } finally {
    await run.stop();
  }
}

function rigOptions(program: Program, heard: ReadonlyMap<string, Ownership>) {
  const { since, softDeletes, paging } = program;
  const legacy: RestStoreOptions = { since, softDeletes: softDeletes.legacy, paging, pageSize: 150 };
  const app: RestStoreOptions = {
    ...{ softDeletes: softDeletes.app, paging, pageSize: 70 },
    ...(program.bulk ? { bulk: 20 } : {}),
  };
  const events = ['new', 'none'].map((names) => ({
    ...{ where: { names }, kind: 'appointment', id: 'data.id' },
    ...(names === 'new' ? { partition: 'data.owner' } : {}),
  }));
  const webhook = { signatures: [{ scheme: 'stripe', secrets: [secret] }], events };
  return {
    ...{ legacy, app },
    legacyConnector: { webhook },
    appStore: { connector: { ...connectorFor(app), webhook }, settleMs: 2_000 },
    sync: { fullPassMs: 1_000 },
    more: { webhooks: { port: 0 } },
    ownershipOf: (partition: string) => heard.get(partition),
  };
}

class Run {
  readonly #rig: SyncRig;
  readonly #program: Program;
  readonly #random: SeededRandom;
  readonly #families: readonly Family[];
  readonly #heard: Map<string, Ownership>;
  readonly #heardLater = new Map<string, Ownership>();
  readonly #workers: { sync: Sync; url: string }[] = [];
  /** Resolves when the handoff that holds the partition's writes has ended. */
  readonly #held = new Map<string, Promise<void>>();
  readonly #handoffs = new Map<string, Promise<void>>();
  readonly #due = new Map<number, { place: number; send: () => Promise<void> }[]>();
  readonly #wrong: string[] = [];
  readonly #done: Record<string, number> = {};
  #round = 0;
  #writes = 0;
  #isFaulty = true;

  constructor(rig: SyncRig, program: Program, heard: Map<string, Ownership>) {
    this.#rig = rig;
    this.#program = program;
    this.#heard = heard;
    this.#random = new SeededRandom(program.seed);
    this.#families = program.histories.map((history, at) => this.#begin(`h${at}`, history));
  }

  async outcome(): Promise<Outcome> {
    const { legacy, app } = this.#rig;
    this.#watch('app', app);
    this.#watch('legacy', legacy);
    const [one, two] = await Promise.all([this.#worker(), this.#worker()]);
    this.#workers.push(one, two);
    for (this.#round = 0; this.#round < rounds; this.#round += 1) {
      await Promise.all(this.#families.map((family, at) => this.#step(family, at)));
      await this.#disturb(this.#program.troubles[this.#round] ?? 'none');
      await this.#deliver(this.#due.get(this.#round) ?? []);
    }
    await this.#end();
    return { wrong: this.#wrong, done: this.#done };
  }

  async stop(): Promise<void> {
    await Promise.allSettled(this.#handoffs.values());
    await Promise.all(this.#workers.map(({ sync }) => sync.stop()));
    await this.#rig.stop();
  }

  #begin(name: string, { before }: History): Family {
    const slots = before.map(({ owner }, at) => new Slot(`${name}.${at}`, owner === 'none' ? 0 : owner));
    const family = new Family(name, slots);
    for (const [at, { owner, copy }] of before.entries()) {
      const slot = slots[at];
      if (slot === undefined) continue;
      if (owner !== 'none') {
        slot.body = bodyOf(slot.id, family.partition(slot.side), `${slot.id} before`);
        this.#rig.legacy.set(slot.body);
      }
      const side = copy === 'other-partition' ? other(slot.side) : slot.side;
      const title = copy === 'older' ? 'an older one' : `${slot.id} before`;
      if (copy !== 'none') this.#rig.app.set(bodyOf(slot.id, family.partition(side), title));
    }
    return family;
  }

  async #worker(): Promise<{ sync: Sync; url: string }> {
    const sync = await this.#rig.another();
    const { webhooks = '' } = await sync.startWorkers();
    return { sync, url: webhooks };
  }

  // --- what the users do ------------------------------------------------------------------------------

  async #step(family: Family, at: number): Promise<void> {
    const step = this.#program.histories[at]?.steps[this.#round];
    if (step === undefined || step.do === 'nothing') return;
    if (step.do === 'handoff') {
      this.#startHandoff(family, step.side, step.ends);
      return;
    }
    const slot = family.slots[step.record];
    if (slot === undefined) return;
    await this.#free(family, step.do === 'move' ? [0, 1] : [slot.side]);
    const store = family.owners[slot.side];
    const { side } = slot;
    if (step.do === 'write') {
      slot.body = this.#written(step, slot, family.partition(side));
      this.#rig[store].set(slot.body);
    } else if (slot.body === undefined) return;
    else if (step.do === 'delete') {
      slot.body = undefined;
      this.#rig[store].remove(slot.id);
    } else {
      // A record whose two partitions have different owners cannot be moved: the proxy refuses it.
      if (family.owners[0] !== family.owners[1]) return;
      slot.side = other(side);
      slot.body = { ...slot.body, owner_id: family.partition(slot.side) };
      this.#rig[store].set(slot.body);
    }
    this.#count(step.do);
    this.#tell(store, slot.id, family.partition(slot.side), family.partition(side), step.told);
  }

  #written({ note, title }: Extract<Step, { do: 'write' }>, { id, body }: Slot, partition: string): Body {
    this.#writes += 1;
    const kept = title === 'same' ? body?.['title'] : undefined;
    const written = bodyOf(id, partition, typeof kept === 'string' ? kept : `${id} write ${this.#writes}`);
    if (note === 'absent') return written;
    return { ...written, note: note === 'null' ? null : `note ${this.#writes}` };
  }

  /** Writes of a partition that is under a fence wait, as they do in the proxy. */
  async #free(family: Family, sides: readonly Side[]): Promise<void> {
    for (;;) {
      const held = sides
        .map((side) => this.#held.get(family.partition(side)))
        .filter((one) => one !== undefined);
      if (held.length === 0) return;
      await Promise.all(held);
    }
  }

  #tell(store: StoreName, id: string, partition: string, oldPartition: string, told: Told): void {
    if (told.receipt) {
      const named = this.#random.next() < 0.2 ? oldPartition : partition;
      this.#rig.sync.doorbell.ring({ partition: named, kind: 'appointment', id });
      this.#count('receipt');
    }
    for (const delivery of told.deliveries) {
      this.#writes += 1;
      const event = this.#eventOf(delivery, id, partition, oldPartition);
      const round = this.#round + delivery.late;
      const due = this.#due.get(round) ?? [];
      this.#due.set(round, due);
      // A double has the same id or, from a careless sender, another one.
      for (let time = 0; time < delivery.times; time += 1) {
        const body = JSON.stringify(time === 2 ? { ...event, id: `${event.id} again` } : event);
        due.push({ place: delivery.place + time, send: () => this.#send(store, body) });
      }
    }
  }

  #eventOf({ names }: Delivery, id: string, partition: string, oldPartition: string) {
    const owner = names === 'old' ? oldPartition : partition;
    return {
      ...{ id: `delivery ${this.#writes}`, names: names === 'none' ? 'none' : 'new' },
      data: { id, ...(names === 'none' ? {} : { owner }) },
    };
  }

  async #deliver(due: readonly { place: number; send: () => Promise<void> }[]): Promise<void> {
    const inOrder = due.toSorted((left, right) => left.place - right.place);
    for (let at = 0; at < inOrder.length; at += 8) {
      await Promise.all(inOrder.slice(at, at + 8).map(({ send }) => send()));
    }
  }

  /** What nobody takes is lost. */
  async #send(store: StoreName, body: string): Promise<void> {
    const { url = '' } = this.#workers[this.#random.below(this.#workers.length)] ?? {};
    const seconds = Math.floor(Date.now() / 1_000);
    const mac = createHmac('sha256', secret).update(`${seconds}.${body}`).digest('hex');
    const headers = { 'stripe-signature': `t=${seconds},v1=${mac}` };
    try {
      const { status } = await fetch(`${url}/webhooks/${store}`, { method: 'POST', headers, body });
      this.#count(`delivery answered ${status}`);
    } catch {
      this.#count('delivery lost');
    }
  }

  // --- handoffs ---------------------------------------------------------------------------------------

  #startHandoff(family: Family, side: Side, ends: 'commit' | 'abort'): void {
    const partition = family.partition(side);
    if (this.#handoffs.has(partition) || family.owners[side] === 'app') return;
    const handoff = this.#handOver(family, side, ends).finally(() => this.#handoffs.delete(partition));
    this.#handoffs.set(partition, handoff);
  }

  async #handOver(family: Family, side: Side, ends: 'commit' | 'abort'): Promise<void> {
    const partition = family.partition(side);
    const { desk } = this.#rig.sync;
    const attempt = `attempt ${(this.#writes += 1)}`;
    try {
      await desk.bringUp(partition, AbortSignal.timeout(10_000));
    } catch {
      this.#count('handoff refused');
      return;
    }
    const hold = Promise.withResolvers<void>();
    this.#held.set(partition, hold.promise);
    try {
      await this.#order(partition, { kind: 'fence', to: 'app', attempt, fenceMs: 60_000 });
      const proven = await desk.catchUp(partition, attempt, AbortSignal.timeout(5_000)).then(
        () => true,
        () => false,
      );
      if (!proven || ends === 'abort') {
        await this.#order(partition, { kind: 'abort', attempt });
        this.#count(proven ? 'handoff aborted' : 'handoff not proven');
        return;
      }
      family.moveToApp(side);
      await this.#order(partition, { kind: 'commit', attempt });
      await this.#order(partition, { kind: 'release', attempt });
      this.#count('handoff committed');
    } finally {
      this.#held.delete(partition);
      hold.resolve();
    }
  }

  async #order(partition: string, order: Parameters<SyncRig['order']>[1]): Promise<void> {
    await this.#rig.order(partition, order);
    const { ownership } = await this.#rig.ledger.read(partition);
    // Some hear of it at once, some later.
    if (this.#random.next() < 0.5) this.#heard.set(partition, ownership);
    else this.#heardLater.set(partition, ownership);
  }

  // --- what happens to those who copy -----------------------------------------------------------------

  async #disturb(trouble: Trouble): Promise<void> {
    for (const [partition, ownership] of this.#heardLater) this.#heard.set(partition, ownership);
    this.#heardLater.clear();
    await this.#agreeToDeletes();
    if (trouble !== 'none') this.#count(trouble);
    switch (trouble) {
      case 'none':
        return;
      case 'restart': {
        const stopped = this.#workers.shift();
        await stopped?.sync.stop();
        this.#workers.push(await this.#worker());
        return;
      }
      case 'forget':
        await this.#forget();
        return;
      case 'catch-up':
        await until('nothing waits', async () => (await this.#rig.sync.backlog()) === 0, 500).catch(
          () => undefined,
        );
    }
  }

  /** Here many records are gone on purpose: an operator says so. */
  async #agreeToDeletes(): Promise<void> {
    if ((await this.#rig.sync.brakes.releaseAll()) !== undefined) this.#count('deletes agreed to');
  }

  /** All at once, as a Redis loses it; the ledger's own keys stay. */
  async #forget(): Promise<void> {
    const script = `
      for _, part in ipairs(ARGV) do
        for _, key in ipairs(redis.call('KEYS', '?onewriter?:' .. part .. ':*')) do redis.call('DEL', key) end
      end`;
    await this.#rig.redis.eval(script, 0, 'record', 'control', 'scan', 'sync', 'budget', 'copying');
  }

  /** No copy goes where a partition is owned, and none at all to legacy. */
  #watch(store: StoreName, platform: TestRestStore): void {
    const faulty = faultyCalls(platform, this.#program.faults, this.#random);
    platform.intercept = (call) => {
      if (call.method !== 'GET') {
        if (store === 'legacy') this.#wrong.push(`a copy was written to legacy: ${call.method} ${call.path}`);
        const touched = Array.isArray(call.body) ? (call.body as Body[]) : [call.body ?? {}];
        // A tombstone that a record has left behind is nobody's any more.
        const held = platform.records.get(call.path.split('/')[2] ?? '');
        const isLive = (held?.['deleted_at'] ?? null) === null;
        const partitions = [...touched, ...(isLive ? [held] : [])].map((body) => body?.['owner_id']);
        for (const family of this.#families) {
          for (const side of [0, 1] as const) {
            const isOwners = family.owners[side] === 'app' && partitions.includes(family.partition(side));
            if (isOwners)
              this.#wrong.push(`${call.method} ${call.path} wrote where ${family.partition(side)} is owned`);
          }
        }
      }
      return this.#isFaulty ? faulty(call) : undefined;
    };
  }

  // --- the end ----------------------------------------------------------------------------------------

  async #end(): Promise<void> {
    const late = [...this.#due].filter(([round]) => round >= rounds).flatMap(([, due]) => due);
    await this.#deliver(late);
    await Promise.all(this.#handoffs.values());
    await this.#disturb('none');
    this.#isFaulty = false;
    const isEqual = async (): Promise<boolean> => {
      await this.#agreeToDeletes();
      return this.#differences().length === 0;
    };
    await until('the stores are equal', isEqual, settledWithinMs).catch(() => undefined);
    // And they stay so: nobody knows of anything more to do.
    const writes = this.#writesSeen();
    await this.#passes();
    if (this.#writesSeen() !== writes) this.#wrong.push('copies were written after the stores were equal');
    this.#wrong.push(...this.#differences());
    if (this.#wrong.length > 0) {
      const letters = await this.#rig.sync.deadLetters.list();
      this.#wrong.push(
        ...letters.map(({ partition, id, reason }) => `dead letter ${partition} ${id}: ${reason}`),
      );
    }
  }

  /** Two full passes that begin and end from now on, with nothing left to do for the workers. */
  async #passes(): Promise<void> {
    for (let pass = 0; pass < 2; pass += 1) {
      const nowMs = await this.#rig.ledger.nowMs();
      const progress = `${keyPrefix}:sync:progress`;
      await until(
        'a full pass',
        async () => {
          const feed = JSON.parse(
            (await this.#rig.redis.hget(progress, 'feed legacy appointment')) ?? '{}',
          ) as { fullPassAtMs?: number };
          const reached = Number(await this.#rig.redis.hget(progress, 'reached'));
          return (this.#program.since ? (feed.fullPassAtMs ?? 0) : reached) > nowMs;
        },
        settledWithinMs,
      );
      await until('nothing waits', async () => (await this.#rig.sync.backlog()) === 0, settledWithinMs);
    }
  }

  #differences(): string[] {
    const { legacy, app } = this.#rig;
    return [
      ...differencesIn('legacy', this.#families, legacy.records),
      ...differencesIn('app', this.#families, app.records),
    ];
  }

  #writesSeen(): number {
    return this.#rig.app.writes().length + this.#rig.legacy.writes().length;
  }

  #count(what: string): void {
    this.#done[what] = (this.#done[what] ?? 0) + 1;
  }
}

function other(side: Side): Side {
  return side === 0 ? 1 : 0;
}

function bodyOf(id: string, partition: string, title: string): Body {
  return { id, owner_id: partition, title };
}
