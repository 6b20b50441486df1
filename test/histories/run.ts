/**
 * Runs a program of histories over the real sync: stores over HTTP, a real Redis, the workers of two processes, and a third
 * process that takes the proxy's rings and hands partitions over.
 */
import type { Ownership } from '../../src/core/ownership.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import type { TestRedis } from '../support/redis.ts';
import { connectorFor, type RestStoreOptions } from '../support/rest-store.ts';
import { startSyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';
import { Handovers } from './handovers.ts';
import { Stage } from './stage.ts';
import { Telling, webhookSecret } from './telling.ts';
import { type Body, differencesIn, Family, isLive, Slot } from './truth.ts';
import { type History, type Program, rounds, type Side, type Step, type Trouble } from './words.ts';

export interface Outcome {
  /** Records that are not as they should be, and what must never happen at all. */
  readonly wrong: readonly string[];
  readonly done: Readonly<Record<string, number>>;
}

const settledWithinMs = 120_000;
/** Longer than a call that failed can still take effect in these stores. */
const settleMs = 2_000;

export async function runProgram(server: TestRedis, program: Program): Promise<Outcome> {
  const heard = new Map<string, Ownership>();
  const rig = await startSyncRig(server, rigOptions(program, heard));
  const run = new Run(new Stage(rig, program), heard);
  try {
    return await run.outcome();
  } finally {
    await run.stop();
  }
}

function rigOptions(program: Program, heard: ReadonlyMap<string, Ownership>) {
  const { since, softDeletes, paging, window } = program;
  const legacy: RestStoreOptions = { since, softDeletes: softDeletes.legacy, paging, pageSize: 150 };
  const app: RestStoreOptions = {
    ...{ softDeletes: softDeletes.app, paging, pageSize: 70 },
    ...(program.bulk ? { bulk: 20 } : {}),
  };
  const events = ['new', 'none'].map((names) => ({
    ...{ where: { names }, kind: 'appointment', id: 'data.id' },
    ...(names === 'new' ? { partition: 'data.owner' } : {}),
  }));
  const webhook = { signatures: [{ scheme: 'stripe', secrets: [webhookSecret] }], events };
  return {
    ...{ legacy, app },
    legacyConnector: { webhook },
    legacyStore: { settleMs },
    appStore: { connector: { ...connectorFor(app), webhook }, settleMs },
    sync: { fullPassMs: 1_000, rollbackWindow: window ? 'on' : 'off' },
    more: { webhooks: { port: 0 } },
    ownershipOf: (partition: string) => heard.get(partition),
  };
}

class Run {
  readonly #stage: Stage;
  readonly #telling: Telling;
  readonly #handovers: Handovers;

  constructor(stage: Stage, heard: Map<string, Ownership>) {
    this.#stage = stage;
    this.#telling = new Telling(stage);
    this.#handovers = new Handovers(stage, heard);
    const { histories } = stage.program;
    stage.families.push(...histories.map((history, at) => this.#begin(`h${at}`, history)));
  }

  async outcome(): Promise<Outcome> {
    const { program, families, wrong, done } = this.#stage;
    await Promise.all([this.#stage.startWorker(), this.#stage.startWorker()]);
    for (let round = 0; round < rounds; round += 1) {
      const steps = program.histories.map(({ steps: all }) => all[round]);
      await Promise.all(
        families.map((family, at) => this.#step(family, steps[at] ?? { do: 'nothing' }, round)),
      );
      await this.#disturb(program.troubles[round] ?? 'none');
      await this.#telling.deliver(round);
    }
    await this.#end();
    return { wrong, done };
  }

  async stop(): Promise<void> {
    await this.#handovers.ended();
    await Promise.all(this.#stage.workers.map(({ sync }) => sync.stop()));
    await this.#stage.rig.stop();
  }

  #begin(name: string, { before }: History): Family {
    const { rig, program } = this.#stage;
    const slots = before.map(({ owner }, at) => new Slot(`${name}.${at}`, owner === 'none' ? 0 : owner));
    const family = new Family(name, slots, program.window);
    for (const [at, { owner, copy }] of before.entries()) {
      const slot = slots[at];
      if (slot === undefined) continue;
      if (owner !== 'none') {
        slot.body = bodyOf(slot.id, family.partition(slot.side), `${slot.id} before`);
        rig.legacy.set(slot.body);
      }
      const side = copy === 'other-partition' ? other(slot.side) : slot.side;
      const title = copy === 'older' ? 'an older one' : `${slot.id} before`;
      if (copy !== 'none') rig.app.set(bodyOf(slot.id, family.partition(side), title));
    }
    return family;
  }

  // --- what the users do ------------------------------------------------------------------------------

  async #step(family: Family, step: Step, round: number): Promise<void> {
    if (step.do === 'nothing') return;
    if (step.do === 'handoff') {
      this.#handovers.start(family, step.side, step.ends);
      return;
    }
    const slot = family.slots[step.record];
    if (slot === undefined) return;
    await this.#handovers.untilFree(family, step.do === 'move' ? [0, 1] : [slot.side]);
    const store = family.owners[slot.side];
    const oldPartition = family.partition(slot.side);
    const held = this.#stage.rig[store].records.get(slot.id);
    // Something else stands there under this id, a copy that has not been moved yet: the store takes no second one.
    if (isLive(held) && held?.['owner_id'] !== oldPartition) {
      this.#stage.count('refused by the store');
      return;
    }
    if (step.do === 'write') {
      slot.body = this.#written(step, slot, oldPartition);
      this.#stage.rig[store].set(slot.body);
    } else if (slot.body === undefined) return;
    else if (step.do === 'delete') {
      slot.body = undefined;
      this.#stage.rig[store].remove(slot.id);
    } else {
      // A record whose two partitions have different owners cannot be moved: the proxy refuses it.
      if (family.owners[0] !== family.owners[1]) return;
      slot.side = other(slot.side);
      slot.body = { ...slot.body, owner_id: family.partition(slot.side) };
      this.#stage.rig[store].set(slot.body);
    }
    this.#stage.count(step.do);
    const partition = family.partition(slot.side);
    this.#telling.tell({ store, id: slot.id, partition, oldPartition }, step.told, round);
  }

  #written({ note, title }: Extract<Step, { do: 'write' }>, { id, body }: Slot, partition: string): Body {
    const number = this.#stage.number();
    const kept = title === 'same' ? body?.['title'] : undefined;
    const written = bodyOf(id, partition, typeof kept === 'string' ? kept : `${id} write ${number}`);
    if (note === 'absent') return written;
    return { ...written, note: note === 'null' ? null : `note ${number}` };
  }

  // --- what happens to those who copy -----------------------------------------------------------------

  async #disturb(trouble: Trouble): Promise<void> {
    const { rig, workers } = this.#stage;
    this.#handovers.spread();
    await this.#agreeToDeletes();
    if (trouble !== 'none') this.#stage.count(trouble);
    switch (trouble) {
      case 'none':
        return;
      case 'restart':
        await workers.shift()?.sync.stop();
        await this.#stage.startWorker();
        return;
      case 'forget':
        await this.#forget();
        return;
      case 'catch-up':
        await until('nothing waits', async () => (await rig.sync.backlog()) === 0, 500).catch(
          () => undefined,
        );
    }
  }

  /** Here many records are gone on purpose: an operator says so. */
  async #agreeToDeletes(): Promise<void> {
    const released = await this.#stage.rig.sync.brakes.releaseAll();
    if (released !== undefined) this.#stage.count('deletes agreed to');
  }

  /** All at once, as a Redis loses it; the ledger's own keys stay. */
  async #forget(): Promise<void> {
    const script = `
      for _, part in ipairs(ARGV) do
        for _, key in ipairs(redis.call('KEYS', '?onewriter?:' .. part .. ':*')) do redis.call('DEL', key) end
      end`;
    const parts = ['record', 'control', 'scan', 'sync', 'budget', 'copying'];
    await this.#stage.rig.redis.eval(script, 0, ...parts);
  }

  // --- the end ----------------------------------------------------------------------------------------

  async #end(): Promise<void> {
    const { rig, wrong } = this.#stage;
    await this.#telling.deliver('all');
    await this.#handovers.ended();
    await this.#disturb('none');
    this.#stage.isFaulty = false;
    const isEqual = async (): Promise<boolean> => {
      await this.#agreeToDeletes();
      return this.#differences().length === 0;
    };
    await until('the stores are equal', isEqual, settledWithinMs).catch(() => undefined);
    // And they stay so: nobody knows of anything more to do.
    const written = this.#stage.copiesWritten();
    await this.#passes();
    if (this.#stage.copiesWritten() !== written) {
      wrong.push('copies were written after the stores were equal');
    }
    wrong.push(...this.#differences());
    // Nobody has gone around the sync, and it takes nothing of its own for that.
    await rig.sync.strayWatch.look(AbortSignal.timeout(settledWithinMs));
    const strays = await rig.sync.strays.list('open');
    wrong.push(...strays.map((stray) => `taken for a stray: ${JSON.stringify(stray)}`));
    if (wrong.length === 0) return;
    this.#explain();
    const letters = await rig.sync.deadLetters.list();
    wrong.push(...letters.map(({ partition, id, reason }) => `dead letter ${partition} ${id}: ${reason}`));
  }

  /** Two full passes that begin and end from now on, with nothing left to do for the workers. */
  async #passes(): Promise<void> {
    const { rig, program } = this.#stage;
    const passedMs = async (): Promise<number> => {
      if (!program.since) return Number(await rig.redis.hget(syncKeys.progress, 'reached'));
      const text = (await rig.redis.hget(syncKeys.progress, 'feed legacy appointment')) ?? '{}';
      return (JSON.parse(text) as { fullPassAtMs?: number }).fullPassAtMs ?? 0;
    };
    for (let pass = 0; pass < 2; pass += 1) {
      const nowMs = await rig.ledger.nowMs();
      await until('a full pass', async () => (await passedMs()) > nowMs, settledWithinMs);
      const isIdle = async (): Promise<boolean> => (await rig.sync.backlog()) === 0;
      await until('nothing waits', isIdle, settledWithinMs).catch(() => this.#noteWaiting());
    }
  }

  /** What happened to whom something is wrong with, and what was written of it. */
  #explain(): void {
    const { rig, wrong, program, families } = this.#stage;
    const named = new Set(wrong.flatMap((line) => line.match(/\bh\d+\.\d\b/g) ?? []));
    for (const [at, { name }] of families.entries()) {
      const ids = [...named].filter((id) => id.startsWith(`${name}.`));
      if (ids.length > 0) {
        wrong.push(`${name}: ${JSON.stringify(program.histories[at])}`);
        wrong.push(`${name} ends with owners ${JSON.stringify(families[at]?.owners)}`);
      }
      for (const id of ids) {
        for (const store of ['legacy', 'app'] as const) {
          const writes = rig[store].writes().filter(({ path }) => path.endsWith(`/${id}`));
          wrong.push(
            ...writes.map(({ method, body }) => `${method} ${id} to ${store}: ${JSON.stringify(body)}`),
          );
        }
      }
    }
    const { histories: _, ...others } = program;
    wrong.push(`the run: ${JSON.stringify(others)}`);
  }

  async #noteWaiting(): Promise<void> {
    const { rig, wrong } = this.#stage;
    const marks = await rig.redis.zrange(syncKeys.dirty, 0, 9);
    const said = rig.events.slice(-20).map(({ event, fields }) => `${event} ${JSON.stringify(fields)}`);
    wrong.push(`records wait for ever: ${marks.join(' ')}`, ...new Set(said));
  }

  #differences(): string[] {
    const { rig, families } = this.#stage;
    return [
      ...differencesIn('legacy', families, rig.legacy.records),
      ...differencesIn('app', families, rig.app.records),
    ];
  }
}

function other(side: Side): Side {
  return side === 0 ? 1 : 0;
}

function bodyOf(id: string, partition: string, title: string): Body {
  return { id, owner_id: partition, title };
}
