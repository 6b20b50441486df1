/** What the parts of one run share: the stores and the sync between them, who works there, and what was seen. */
import type { Sync } from '../../src/sync/create.ts';
import { SeededRandom } from '../model/random.ts';
import type { TestRestStore } from '../support/rest-store.ts';
import type { SyncRig } from '../support/sync.ts';
import { faultyCalls } from './faults.ts';
import { type Body, type Family, isLive } from './truth.ts';
import type { Program } from './words.ts';

export type StoreName = 'legacy' | 'app';

export interface WorkerProcess {
  readonly sync: Sync;
  /** Where it takes webhooks. */
  readonly url: string;
}

export class Stage {
  readonly rig: SyncRig;
  readonly program: Program;
  readonly random: SeededRandom;
  readonly families: Family[] = [];
  readonly workers: WorkerProcess[] = [];
  /** What must never happen at all. */
  readonly wrong: string[] = [];
  readonly done: Record<string, number> = {};
  isFaulty = true;
  #numbers = 0;

  constructor(rig: SyncRig, program: Program) {
    this.rig = rig;
    this.program = program;
    this.random = new SeededRandom(program.seed);
    this.#watch('app', rig.app);
    this.#watch('legacy', rig.legacy);
  }

  /** Another one each time. */
  number(): number {
    this.#numbers += 1;
    return this.#numbers;
  }

  count(what: string): void {
    this.done[what] = (this.done[what] ?? 0) + 1;
  }

  async startWorker(): Promise<void> {
    const sync = await this.rig.another();
    const { webhooks = '' } = await sync.startWorkers();
    this.workers.push({ sync, url: webhooks });
  }

  copiesWritten(): number {
    return this.rig.app.writes().length + this.rig.legacy.writes().length;
  }

  /** No copy goes to where a partition is owned, and none to legacy where none goes back. */
  #watch(store: StoreName, platform: TestRestStore): void {
    const faulty = faultyCalls(platform, this.program.faults, this.random);
    platform.intercept = (call) => {
      if (call.method !== 'GET') {
        const what = `${call.method} ${call.path} in ${store}`;
        if (store === 'legacy' && !this.program.window) this.wrong.push(`${what}: nothing goes back`);
        const touched = Array.isArray(call.body) ? (call.body as Body[]) : [call.body ?? {}];
        // A tombstone that a record has left behind is nobody's any more.
        const held = platform.records.get(call.path.split('/')[2] ?? '');
        const partitions = [...touched, ...(isLive(held) ? [held] : [])].map((body) => body?.['owner_id']);
        for (const family of this.families) {
          for (const side of [0, 1] as const) {
            const isOwners = family.owners[side] === store && partitions.includes(family.partition(side));
            if (isOwners) this.wrong.push(`${what} wrote where ${family.partition(side)} is owned`);
          }
        }
      }
      return this.isFaulty ? faulty(call) : undefined;
    };
  }
}
