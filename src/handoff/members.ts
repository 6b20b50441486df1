/**
 * Watches the members' heartbeat counters on this process's own clock: a counter that moves is the only
 * proof of life, and one that stands still long enough the only proof of death.
 */
import type { Ledger, MemberRecord } from '../core/ports.ts';
import { pause } from '../pause.ts';

/** How often a member is looked at that somebody waits for. */
const lookAgainMs = 100;

interface Sighting {
  record: MemberRecord;
  /** When the counter was last seen to move; undefined until it has been seen to. */
  movedAtMs: number | undefined;
  firstSeenAtMs: number;
  /** For how long it has stood still while it could have been seen to move, ms. */
  silentMs: number;
}

export interface MemberHealth {
  readonly fresh: readonly MemberRecord[];
  /** Listed since before this coordinator looked, and not yet seen to move: the next heartbeat tells. */
  readonly unproven: readonly MemberRecord[];
  /** Silent for longer than its lease. While there is one that is not fresh, no fence may begin. */
  readonly stale: readonly MemberRecord[];
}

/**
 * Tells, until the returned stop is called, of each member that is waited for and listed no more: it has left, or was
 * removed as gone, so it answers nothing any more, and need not. While the ledger is away nobody is known to have
 * left. It may tell of one again that is still waited for.
 */
export function watchAwaited(
  watch: Pick<MemberWatch, 'listedSince'>,
  awaited: () => readonly string[],
  left: (member: string) => void,
): () => void {
  const sinceMs = performance.now();
  const look = async (): Promise<void> => {
    const listed = await watch.listedSince(sinceMs);
    for (const member of awaited()) if (!listed.has(member)) left(member);
  };
  const timer = setInterval(() => void look().catch(() => undefined), lookAgainMs);
  return () => clearInterval(timer);
}

export class MemberWatch {
  readonly #ledger: Ledger;
  readonly #lookEveryMs: number;
  readonly #onGone: (member: MemberRecord) => void;
  readonly #sightings = new Map<string, Sighting>();
  /** When the ledger last answered. */
  #lookedAtMs: number | undefined;
  /** Who was listed, and when that was asked, by the monotonic clock. */
  #roll: { readonly listed: ReadonlySet<string>; readonly askedAtMs: number } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;

  constructor(ledger: Ledger, leaseMs: number, onGone: (member: MemberRecord) => void) {
    this.#ledger = ledger;
    this.#lookEveryMs = Math.max(50, leaseMs / 4);
    this.#onGone = onGone;
  }

  start(): void {
    const look = (): void => void this.look().catch(() => undefined);
    look();
    this.#timer = setInterval(look, this.#lookEveryMs);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking?.catch(() => undefined);
  }

  look(): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  /** Who is listed, as of a look that began after `sinceMs`; shared by all who ask at about the same time. */
  async listedSince(sinceMs: number): Promise<ReadonlySet<string>> {
    for (;;) {
      const roll = this.#roll;
      const recent = roll !== undefined && performance.now() - roll.askedAtMs < lookAgainMs;
      if (recent && roll.askedAtMs > sinceMs) return roll.listed;
      await this.look();
    }
  }

  /**
   * Waits until each of them has sent a heartbeat from now on. False as soon as one turns out to be silent for
   * its lease, or is not listed any more.
   */
  async allAlive(members: readonly string[], signal: AbortSignal): Promise<boolean> {
    await this.look().catch(() => undefined);
    const before = new Map(members.map((id) => [id, this.#sightings.get(id)?.record.sequence]));
    while (!signal.aborted) {
      const { stale } = this.health();
      const seen = members.map((id) => this.#sightings.get(id)?.record);
      if (seen.includes(undefined) || stale.some(({ id }) => before.has(id))) return false;
      if (seen.every((record) => record?.sequence !== before.get(record?.id ?? ''))) return true;
      await pause(lookAgainMs, signal).catch(() => undefined);
      await this.look().catch(() => undefined);
    }
    return false;
  }

  /**
   * For how long its counter has stood still while the ledger answered, as of the last look; undefined for who is not
   * listed. While the ledger is away a living member cannot be heard either.
   */
  silentMs(id: string): number | undefined {
    return this.#sightings.get(id)?.silentMs;
  }

  health(): MemberHealth {
    const fresh: MemberRecord[] = [];
    const unproven: MemberRecord[] = [];
    const stale: MemberRecord[] = [];
    const nowMs = performance.now();
    for (const { record, movedAtMs, firstSeenAtMs } of this.#sightings.values()) {
      const silentMs = nowMs - (movedAtMs ?? firstSeenAtMs);
      if (silentMs > record.leaseMs) stale.push(record);
      else (movedAtMs === undefined ? unproven : fresh).push(record);
    }
    return { fresh, unproven, stale };
  }

  async #lookOnce(): Promise<void> {
    const askedAtMs = performance.now();
    const members = await this.#ledger.members();
    const nowMs = performance.now();
    // In a longer time between two looks the ledger was away, or this process stood still.
    const listenedMs = Math.min(nowMs - (this.#lookedAtMs ?? nowMs), 2 * this.#lookEveryMs);
    const listed = new Set(members.map((member) => member.id));
    this.#roll = { listed, askedAtMs };
    for (const id of this.#sightings.keys()) if (!listed.has(id)) this.#sightings.delete(id);
    for (const record of members) {
      const seen = this.#sightings.get(record.id);
      if (seen === undefined) {
        // Who appears after the first look has just registered; who was there before may be dead.
        const movedAtMs = this.#lookedAtMs === undefined ? undefined : nowMs;
        this.#sightings.set(record.id, { record, movedAtMs, firstSeenAtMs: nowMs, silentMs: 0 });
      } else {
        const moved = record.sequence !== seen.record.sequence;
        if (moved) seen.movedAtMs = nowMs;
        seen.silentMs = moved ? 0 : seen.silentMs + listenedMs;
        seen.record = record;
        await this.#removeIfGone(seen);
      }
    }
    this.#lookedAtMs = nowMs;
  }

  /** Gone: silent for its lease, and for as long as its last write could run and then take effect. */
  async #removeIfGone({ record, silentMs }: Sighting): Promise<void> {
    if (record.unexpirable === true) return;
    if (silentMs <= record.leaseMs + record.writeTimeoutMs + record.settleMs) return;
    if (!(await this.#ledger.removeMember(record.id, record.sequence))) return;
    this.#sightings.delete(record.id);
    this.#onGone(record);
  }
}
