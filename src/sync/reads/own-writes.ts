/**
 * The writes of this member that others must know of: what is to be said of them, and since when it is known to have been
 * said. Times are monotonic, ms, where nothing else is said.
 */
import type { Call } from './script.ts';

type Said = Call['said'];

interface Written {
  open: number;
  /** A write that has ended may still take effect until then. */
  settlesAtMs: number;
  /** What Redis holds of it. Unknown while a call is under way, and after one whose outcome is unknown. */
  told: 'open' | 'ended' | 'unknown';
  /** When `told` became 'open' for certain. */
  openSinceMs: number;
  /** Another member read the copy then. */
  wanted: boolean;
}

export class OwnWrites {
  readonly #written = new Map<string, Written>();

  begin(partition: string): void {
    const known = this.#written.get(partition);
    if (known !== undefined) known.open += 1;
    else {
      const fresh = { open: 1, settlesAtMs: 0, told: 'ended', openSinceMs: 0, wanted: false } as const;
      this.#written.set(partition, { ...fresh });
    }
  }

  end(partition: string, settlesAtMs: number): void {
    const known = this.#written.get(partition);
    if (known === undefined) return;
    known.open -= 1;
    known.settlesAtMs = Math.max(known.settlesAtMs, settlesAtMs);
  }

  /** One is under way, or its end was not told yet. */
  isOpen(partition: string): boolean {
    return this.#written.has(partition);
  }

  /** Something has begun that nobody has been told of. */
  get isUrgent(): boolean {
    for (const { open, told } of this.#written.values()) if (open > 0 && told !== 'open') return true;
    return false;
  }

  /** What to say now; `all`: also what has been said before. Until the answer, nobody knows what Redis holds of these. */
  toSay(nowMs: number, all: boolean): Said {
    const said: [string, 'open' | number][] = [];
    for (const [partition, written] of this.#written) {
      const { open, told, settlesAtMs } = written;
      if (open > 0 && told === 'open') {
        // Said again for whoever begins to listen now: for the others nothing changes.
        if (all) said.push([partition, 'open']);
        continue;
      }
      said.push([partition, open > 0 ? 'open' : Math.max(0, Math.ceil(settlesAtMs - nowMs))]);
      written.told = 'unknown';
    }
    return said;
  }

  /** Redis took all of it before `nowMs`, its clock said `redisNowMs`. Returns what has ended, with its end there. */
  wasSaid(
    said: Said,
    wanted: readonly boolean[],
    nowMs: number,
    redisNowMs: number,
  ): [string, endedMs: number][] {
    const ended: [string, number][] = [];
    for (const [at, [partition, state]] of said.entries()) {
      const written = this.#written.get(partition);
      if (written === undefined) continue;
      if (state === 'open') {
        if (written.told === 'open') continue;
        Object.assign(written, { told: 'open', openSinceMs: nowMs, wanted: wanted[at] === true });
        continue;
      }
      ended.push([partition, redisNowMs + state]);
      written.told = 'ended';
      if (written.open <= 0) this.#written.delete(partition);
    }
    return ended;
  }

  /** When every member that reads the copy knows of the write: `knownMs` after it was told. Undefined: not told yet. */
  knownToAllMs(partition: string, knownMs: number): number | undefined {
    const written = this.#written.get(partition);
    if (written?.told !== 'open') return undefined;
    return written.openSinceMs + (written.wanted ? knownMs : 0);
  }
}
