/**
 * Partitions that go to the app and come back, again and again: the way back is open as long as nobody wrote at
 * the app, so sometimes a write is raced against it. Where the write wins, the partition stays, and another one
 * takes its place.
 */
import { pause } from '../../src/pause.ts';
import type { Chance } from './chance.ts';
import type { Rig } from './rig.ts';
import type { Traffic } from './traffic.ts';
import { otherOf, type Store } from './words.ts';

export interface ShuttleSettings {
  readonly rig: Pick<Rig, 'admin' | 'proxies' | 'misbehave' | 'behave'>;
  readonly traffic: Traffic;
  /** What they write in the app is copied back. */
  readonly window: boolean;
  readonly chance: Chance;
  readonly say: (line: string) => void;
}

interface Passenger {
  readonly partition: string;
  readonly records: string[];
}

const passengers = 3;
const recordsOfEach = 2;
const flipWithinMs = 25_000;

export class Shuttle {
  readonly counts = { there: 0, back: 0, written: 0 };
  readonly #settings: ShuttleSettings;
  #made = 0;
  #rides = 0;
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(settings: ShuttleSettings) {
    this.#settings = settings;
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    const { chance } = this.#settings;
    while (!this.#stopped) {
      const group = await Promise.all(Array.from({ length: passengers }, () => this.#newPassenger()));
      let at: Store = 'legacy';
      while (!this.#stopped && (await this.#ride(group, otherOf(at)))) {
        at = otherOf(at);
        // Every stay leaves something new to be copied, where copies go on from there.
        if (at === 'legacy' || this.#settings.window) await this.#write(chance.oneOf(group));
        await pause(chance.between(100, 1_000));
      }
    }
  }

  /** False when not all of them got there: the group is left where it is. */
  async #ride(group: readonly Passenger[], to: Store): Promise<boolean> {
    const { chance, say } = this.#settings;
    const { admin } = this.#settings.rig;
    this.#rides += 1;
    const partitions = group.map(({ partition }) => partition);
    const raced = chance.happens(to === 'legacy' ? 0.4 : 0.7);
    const racing = raced ? group.map((passenger) => this.#race(passenger, otherOf(to))) : [];
    const flip = await admin.startFlip(`shuttle-${this.#rides}`, partitions, flipWithinMs, to);
    const ended = flip && (await admin.untilEnded(flip.id, flipWithinMs));
    await Promise.all(racing);
    const arrived = ended?.state === 'completed' && ended.committed === passengers;
    if (arrived) this.counts[to === 'app' ? 'there' : 'back'] += 1;
    else this.counts.written += raced && to === 'legacy' && !this.#settings.window ? 1 : 0;
    say(
      `shuttle to ${to}: ${arrived ? 'arrived' : (ended?.state ?? 'refused, or not over yet')}${raced ? ', raced by a write' : ''}`,
    );
    return arrived;
  }

  /** A write that is slow, so that it is on its way to its store when the fence comes. */
  async #race(passenger: Passenger, at: Store): Promise<void> {
    const { rig } = this.#settings;
    const { partition } = passenger;
    const rule = { name: `race ${partition}`, misbehaviour: 'slow', calls: ['write'], forMs: 1_500 } as const;
    rig.misbehave(at, { ...rule, partition, times: 1 });
    await this.#write(passenger);
    rig.behave(at, rule.name);
  }

  async #newPassenger(): Promise<Passenger> {
    this.#made += 1;
    const passenger: Passenger = { partition: `shuttle${this.#made}`, records: [] };
    for (let record = 0; record < recordsOfEach; record += 1) {
      const { traffic, rig, chance } = this.#settings;
      const { partition } = passenger;
      const order = {
        user: 'rider',
        partition,
        operation: 'create',
        proxy: chance.oneOf(rig.proxies),
      } as const;
      const done = await traffic.act(order);
      if (done.record !== undefined) passenger.records.push(done.record);
    }
    return passenger;
  }

  async #write({ partition, records }: Passenger): Promise<void> {
    const { traffic, rig, chance } = this.#settings;
    const [record] = records;
    const operation = record === undefined ? 'create' : 'change';
    await traffic.act({ user: 'rider', partition, operation, record, proxy: chance.oneOf(rig.proxies) });
  }
}
