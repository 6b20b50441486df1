/**
 * The world around the machines of src/core: one ledger, processes, coordinators, stores and a discrete
 * clock. A step changes it; a fork is an independent copy. Everything in it is immutable but the arrays'
 * slots and the machines, so that a fork costs little.
 */
import type { GuardRow } from '../../src/core/guard.ts';
import type { HandoffSettings } from '../../src/core/handoff.ts';
import type { Ownership, StoreName } from '../../src/core/ownership.ts';
import type { Core } from './core.ts';
import { emptyLedger } from './ledger.ts';
import type {
  Acknowledged,
  Attempt,
  Budget,
  Constants,
  Copy,
  Ghost,
  LedgerState,
  Lock,
  Process,
  Rules,
  Stores,
  Violation,
  Witness,
  Worker,
  Write,
} from './types.ts';

/** A length that is never over in a scenario. */
export const endless = 1_000_000;

export interface WorldSettings {
  readonly core: Core;
  readonly constants: Constants;
  readonly rules: Rules;
  readonly partitions: number;
  readonly coordinators: number;
  /** Orders are read and swapped in two steps, so that others come between. */
  readonly splitOrders: boolean;
  /** Heartbeats are sent, handled and answered in three steps. */
  readonly splitBeats: boolean;
  /** Something can come between the admission of a write and its sending. */
  readonly splitSends: boolean;
  /** No attempt starts before a member was removed: what comes earlier belongs to other scenarios. */
  readonly startsAfterRemoval: boolean;
  /** Links are noted, and looked at before a commit; each attempt is a flip of its own. */
  readonly links: boolean;
  /** A step changes the machines themselves: for a simulation, which never looks back. */
  readonly inPlace: boolean;
}

/** What a world is made of, without what it can do. */
type Fields = {
  [Name in keyof World as World[Name] extends (...args: never[]) => unknown ? never : Name]: World[Name];
};

export class World {
  readonly settings: WorldSettings;
  readonly handoff: HandoffSettings;
  now: number;
  budget: Budget;
  ledger: LedgerState;
  /** States to which a failover can fall back: from the last that the replica confirmed. */
  lossy: readonly LedgerState[];
  processes: readonly Process[];
  gone: readonly string[];
  attempts: readonly Attempt[];
  acknowledgements: readonly Acknowledged[];
  writes: readonly Write[];
  stores: Stores;
  guard: readonly GuardRow[];
  locks: readonly (Lock | undefined)[];
  workers: readonly Worker[];
  copies: readonly Copy[];
  ghosts: readonly Ghost[];
  witnesses: readonly Witness[];
  /** Redis holds the link of the partitions 0 and 1. */
  linked: boolean;
  serial: number;
  commits: number;
  violation: Violation | undefined;

  private constructor(from: Fields) {
    this.settings = from.settings;
    this.handoff = from.handoff;
    this.now = from.now;
    this.budget = from.budget;
    this.ledger = from.ledger;
    this.lossy = from.lossy;
    this.processes = from.processes;
    this.gone = from.gone;
    this.attempts = from.attempts;
    this.acknowledgements = from.acknowledgements;
    this.writes = from.writes;
    this.stores = from.stores;
    this.guard = from.guard;
    this.locks = from.locks;
    this.workers = from.workers;
    this.copies = from.copies;
    this.ghosts = from.ghosts;
    this.witnesses = from.witnesses;
    this.linked = from.linked;
    this.serial = from.serial;
    this.commits = from.commits;
    this.violation = from.violation;
  }

  static begin(settings: WorldSettings, budget: Budget): World {
    const { core, constants, partitions } = settings;
    const { drainMs, fenceMs, feedDelayMs, guarded } = constants;
    const each = <T>(value: T): T[] => Array.from({ length: partitions }, () => value);
    return new World({
      ...{ settings, budget, now: 0, serial: 0, commits: 0, linked: false, violation: undefined },
      handoff: { drainMs, fenceMs, feedDelayMs, guarded: { legacy: false, app: guarded } },
      ...{ ledger: emptyLedger(core, partitions), lossy: [], processes: [], gone: [], attempts: [] },
      ...{ acknowledgements: [], writes: [], workers: [], copies: [], ghosts: [] },
      ...{
        stores: { legacy: each(0), app: each(0) },
        guard: each(core.unknownToGuard),
        locks: each(undefined),
      },
      witnesses: each<Witness>({ sent: { legacy: 0, app: 0 }, acknowledged: 0 }),
    });
  }

  fork(): World {
    return new World(this);
  }

  fail(invariant: Violation['invariant'], detail: string): void {
    this.violation ??= { invariant, detail };
  }

  newId(kind: string): string {
    this.serial += 1;
    return `${kind}${this.serial}`;
  }

  spend(kind: keyof Budget): void {
    if (this.budget[kind] < 1) throw new Error(`no ${kind} left`);
    if (this.budget[kind] >= endless) return;
    this.budget = { ...this.budget, [kind]: this.budget[kind] - 1 };
  }

  ownership(partition: number): Ownership {
    const record = this.ledger.records[partition];
    if (record === undefined) throw new Error(`no partition ${partition}`);
    return record.ownership;
  }

  /** The ledger's primary goes on to `next`; its replica follows later. */
  setLedger(next: LedgerState): void {
    if (next === this.ledger) return;
    if (this.budget.failovers > 0) this.lossy = [...this.lossy, this.ledger];
    this.ledger = next;
  }

  /** The replica has everything. */
  confirm(): void {
    if (this.lossy.length > 0) this.lossy = [];
  }

  setProcess(slot: number, process: Process): void {
    this.processes = this.processes.with(slot, process);
  }

  setWrite(index: number, change: Partial<Write>): void {
    const write = this.write(index);
    this.writes = this.writes.with(index, { ...write, ...change });
  }

  write(index: number): Write {
    const write = this.writes[index];
    if (write === undefined) throw new Error(`no write ${index}`);
    return write;
  }

  process(index: number): Process {
    const process = this.processes[index];
    if (process === undefined) throw new Error(`no process ${index}`);
    return process;
  }

  attempt(index: number): Attempt {
    const attempt = this.attempts[index];
    if (attempt === undefined) throw new Error(`no attempt ${index}`);
    return attempt;
  }

  setAttempt(index: number, change: Partial<Attempt>): void {
    this.attempts = this.attempts.with(index, { ...this.attempt(index), ...change });
  }

  guardRow(partition: number): GuardRow {
    const row = this.guard[partition];
    if (row === undefined) throw new Error(`no partition ${partition}`);
    return row;
  }

  setGuard(partition: number, row: GuardRow): void {
    if (row.epoch < this.guardRow(partition).epoch) this.fail('I5', 'the epoch of the guard went back');
    this.guard = this.guard.with(partition, row);
  }

  held(store: StoreName, partition: number): number {
    return this.stores[store][partition] ?? 0;
  }

  setHeld(store: StoreName, partition: number, mask: number): void {
    this.stores = { ...this.stores, [store]: this.stores[store].with(partition, mask) };
  }

  /** What the store's list shows: a write that it has just finished may be missing, in legacy's. */
  shown(store: StoreName, partition: number): number {
    const { feedDelayMs } = this.settings.constants;
    let mask = this.held(store, partition);
    if (store === 'app' || feedDelayMs === 0) return mask;
    for (const write of this.writes) {
      const touched = write.partition === partition || write.also === partition;
      if (!touched || write.fate !== 'done' || write.ticket?.owner !== store) continue;
      if (this.now < write.doneAt + feedDelayMs) mask &= ~write.bit;
    }
    return mask;
  }

  witness(partition: number): Witness {
    const witness = this.witnesses[partition];
    if (witness === undefined) throw new Error(`no partition ${partition}`);
    return witness;
  }

  setWitness(partition: number, change: Partial<Witness>): void {
    this.witnesses = this.witnesses.with(partition, { ...this.witness(partition), ...change });
  }
}

/** What can happen next: the name of a step, and what it is about. */
export interface Action {
  readonly step: string;
  readonly a: number;
  readonly b: number;
}

export type Steps = Readonly<Record<string, (world: World, a: number, b: number) => void>>;

export function nameOf({ step, a, b }: Action): string {
  return `${step}${a < 0 ? '' : ` ${a}`}${b < 0 ? '' : ` ${b}`}`;
}
