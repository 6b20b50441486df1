/** One run of chaos: traffic, flips and faults together for a while, then a healed deployment and the verdict. */
import { pause } from '../../src/pause.ts';
import { chanceFrom } from './chance.ts';
import { check, type Verdict } from './checker.ts';
import { type FlipCounts, Flips } from './flips.ts';
import { Nemesis } from './nemesis.ts';
import { Rig } from './rig.ts';
import { Shuttle } from './shuttle.ts';
import { clockCanJump, timing } from './rig-plan.ts';
import { Traffic } from './traffic.ts';
import { bothStores } from './words.ts';

export interface ChaosOptions {
  readonly minutes: number;
  readonly seed: number;
  readonly say: (line: string) => void;
  /** With the rollback window on: who has written in the app goes back, too. */
  readonly window?: boolean;
}

export interface ChaosResult {
  readonly seed: number;
  readonly seconds: number;
  readonly verdict: Verdict;
  readonly flips: FlipCounts;
  /** Partitions that went to the app and back. */
  readonly shuttle: Shuttle['counts'];
  readonly acts: Readonly<Record<string, number>>;
  /** How processes ended that nobody had ended. */
  readonly crashes: readonly string[];
  /** A flip of partitions in use, ordered after everything was mended, moved all of its partitions. */
  readonly recovered: boolean;
  /** Logs of everything. */
  readonly directory: string;
}

const users = 48;
const partitions = 24;
const thinkMs = 300;
const recoverWithinMs = 60_000;

export async function runChaos({ minutes, seed, say, window = false }: ChaosOptions): Promise<ChaosResult> {
  const startedMs = performance.now();
  const stamped = (line: string): void =>
    say(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)} s  ${line}`);
  say(`seed ${seed}`);
  if (!clockCanJump)
    say('libfaketime is not installed, so no clock jumps (Debian: apt-get install faketime)');
  const rig = await Rig.start(seed, { window });
  try {
    stamped(`everything runs; logs are in ${rig.directory}`);
    // Each has its own chance, so that the acts of a seed do not depend on how fast the users were.
    const flips = new Flips({
      admin: rig.admin,
      chance: chanceFrom(seed + 1),
      partitions,
      users,
      say: stamped,
    });
    const traffic = new Traffic({
      ...{ users, thinkMs, proxies: rig.proxies, historyPath: rig.historyPath, chance: chanceFrom(seed + 2) },
      partitionOf: (user) => flips.partitionOf(user),
    });
    const nemesis = new Nemesis({ rig, flips, chance: chanceFrom(seed), say: stamped });
    const shuttle = new Shuttle({ rig, traffic, window, chance: chanceFrom(seed + 3), say: stamped });
    // Some writes always take a while, so that a fence finds them on their way.
    const everyday = {
      name: 'everyday',
      misbehaviour: 'slow',
      calls: ['write'],
      forMs: 500,
      probability: 0.2,
    } as const;
    for (const store of bothStores) rig.misbehave(store, everyday);
    traffic.start();
    flips.start();
    shuttle.start();
    nemesis.start();
    await pause(minutes * 60_000);
    await nemesis.stop();
    await Promise.all([flips.stop(), shuttle.stop()]);
    await rig.heal();
    await rig.untilHealthy();
    stamped('everything is mended');
    const recovered = await flips.untilOneCompletes(recoverWithinMs);
    await traffic.stop();
    // What was given up may still take effect.
    await pause(timing.writeTimeoutMs + timing.settleMs);
    stamped('judging');
    const verdict = check(await rig.evidence());
    return {
      ...{ seed, verdict, recovered, flips: flips.counts, shuttle: shuttle.counts, crashes: rig.crashes() },
      seconds: (performance.now() - startedMs) / 1000,
      acts: Object.fromEntries(nemesis.counts),
      directory: rig.directory,
    };
  } catch (error) {
    stamped(`the run broke off; all logs are in ${rig.directory}`);
    throw error;
  } finally {
    await rig.stop();
  }
}
