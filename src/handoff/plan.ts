/** What a flip would do: every real check, and no change anywhere. */
import { createHash, randomUUID } from 'node:crypto';
import { inBatches } from '../batches.ts';
import { resolveCohort } from '../core/cohort.ts';
import type { Doubts } from '../core/doubt.ts';
import type { BlockedPartition, Blocker, NamedCohort, Plan } from '../core/flip.ts';
import { otherStore, type StoreName } from '../core/ownership.ts';
import type { StrayDesk } from '../core/stray.ts';
import { type LinkBook, partedBy, sideBySide, wholeWaves } from '../core/links.ts';
import type { CopyDesk, GuardCalls, Ledger, LedgerRecord, Registry, StoreReader } from '../core/ports.ts';
import { sentenceOf } from '../log.ts';
import type { HandoffSettings } from '../core/handoff.ts';
import { waveSizes } from '../core/waves.ts';
import { cutsLinks } from './linked.ts';
import type { MemberWatch } from './members.ts';
import { longestWaitMs } from './move-partition.ts';
import { askAllWritten, isProvenByGuard, wayBackFrom, withoutGuard } from './way-back.ts';

export interface PlanParts {
  readonly ledger: Ledger;
  readonly registry: Registry;
  readonly doubts: Pick<Doubts, 'unsettled'>;
  /** Left out: nobody looks for strays. */
  readonly strays?: Pick<StrayDesk, 'open'>;
  readonly links: Pick<LinkBook, 'partnersOf'>;
  readonly copies: CopyDesk;
  readonly guards: GuardCalls;
  readonly members: MemberWatch;
  /** Readers of the stores that have a connector. */
  readonly readers: Readonly<Partial<Record<StoreName, StoreReader>>>;
  /** Stores that copies can be written to. */
  readonly writable: readonly StoreName[];
  readonly guarded: Readonly<Record<StoreName, boolean>>;
  readonly settings: Pick<HandoffSettings, 'proof'>;
  readonly acceptLoss: boolean;
  /** The configuration is one of proxies that only observe. */
  readonly observing?: boolean;
  readonly pinnedRoutes: readonly string[];
}

export interface PlanRequest {
  readonly cohort: NamedCohort;
  readonly to: StoreName;
  readonly by: string;
  readonly waves: readonly string[];
  /** Partitions that another flip, still running, is about to move. */
  readonly reserved: ReadonlyMap<string, string>;
}

const probeWithinMs = 5_000;
const askedAtOnce = 200;

export async function makePlan(parts: PlanParts, request: PlanRequest): Promise<Plan> {
  const { cohort, to, by } = request;
  const partitions = resolveCohort(cohort.selection, await parts.registry.all());
  const touched = await parts.ledger.touched();
  const { movable, unchanged, blocked } = await sortOut(parts, request, partitions, touched);
  const partners = await parts.links.partnersOf(movable);
  const partnersOf = (partition: string): readonly string[] => partners.get(partition) ?? [];
  const recordOf = (partition: string): LedgerRecord => touched.get(partition) ?? parts.ledger.untouched;
  const isThere = (partition: string): boolean => livesAt(recordOf(partition), to);
  const parted = partedBy({ moving: movable, partnersOf, isThere });
  const whole = movable.filter((partition) => !parted.has(partition));
  const flip = sideBySide(whole, partnersOf);
  for (const [partition, behind] of parted) blocked.push({ partition, ...cutsLinks(partition, behind) });
  return {
    ...{ id: randomUUID(), cohort: cohort.name, to, by, createdAtMs: await parts.ledger.nowMs() },
    ...{ flip, unchanged, blocked },
    blockers: flip.length + blocked.length === 0 ? [] : await globalBlockers(parts, to),
    epochs: Object.fromEntries(flip.map((partition) => [partition, recordOf(partition).ownership.epoch])),
    membershipHash: createHash('sha256').update(partitions.join('\n')).digest('hex'),
    selection: cohort.selection,
    waveSizes: wholeWaves(waveSizes(flip.length, request.waves), flip, partnersOf),
    pinnedRoutes: parts.pinnedRoutes,
    wayBack: wayBackFrom(to, parts),
  };
}

/** What each partition itself says; whom it would leave behind is another question. */
async function sortOut(
  parts: PlanParts,
  request: PlanRequest,
  partitions: readonly string[],
  touched: ReadonlyMap<string, LedgerRecord>,
): Promise<{ movable: string[]; unchanged: string[]; blocked: BlockedPartition[] }> {
  const { to } = request;
  const movable: string[] = [];
  const unchanged: string[] = [];
  const blocked: BlockedPartition[] = [];
  const byGuard = isProvenByGuard(parts.settings, otherStore(to));
  const letters = byGuard ? new Map<string, number>() : await countLetters(parts, partitions);
  const brakes = byGuard ? new Map<string, string>() : await parts.copies.deleteBrakes();
  const closed = byGuard ? new Set<string>() : await parts.copies.closedWindows();
  const doubts = await doubtful(parts);
  const strays = (await parts.strays?.open()) ?? new Map<string, number>();
  const written = byGuard ? await askGuard(parts, otherStore(to), partitions, touched) : undefined;
  for (const partition of partitions) {
    const record = touched.get(partition) ?? parts.ledger.untouched;
    if (livesAt(record, to)) {
      unchanged.push(partition);
      continue;
    }
    const blocker =
      whyBlocked(request, partition, record, letters.get(partition) ?? 0) ??
      heldBack(brakes.get(partition)) ??
      closedWindow(partition, to, closed) ??
      doubts.get(partition) ??
      strayed(strays.get(partition) ?? 0) ??
      written?.get(partition);
    if (blocker === undefined) movable.push(partition);
    else blocked.push({ partition, ...blocker });
  }
  return { movable, unchanged, blocked };
}

function heldBack(brake: string | undefined): Blocker | undefined {
  return brake === undefined ? undefined : { code: 'delete-brake', detail: brake };
}

function closedWindow(partition: string, to: StoreName, closed: ReadonlySet<string>): Blocker | undefined {
  if (to === 'app' || !closed.has(partition)) return undefined;
  const detail = `the rollback window of the partition was closed, so ${to} lacks what was written since. Correct it forward, in the store that owns it now; or, where "onewriter window status" says that a restore of the ledger has closed it, open it again: onewriter window open COHORT --reason TEXT`;
  return { code: 'window-closed', detail };
}

function livesAt({ ownership }: LedgerRecord, store: StoreName): boolean {
  return ownership.phase === 'open' && ownership.owner === store;
}

/** What somebody changed in the wrong store would be lost, or come back as if it were the truth. */
function strayed(strays: number): Blocker | undefined {
  if (strays === 0) return undefined;
  const detail = `${strays} changes were made in the store that does not own the partition; look at them with "strays list", and say with "strays resolve" what became of each`;
  return { code: 'open-stray', detail };
}

/** Partitions with a write in doubt that outlasts what a flip waits for; for the others it waits. */
async function doubtful({ doubts, ledger }: PlanParts): Promise<Map<string, Blocker>> {
  const nowMs = await ledger.nowMs();
  const found = new Map<string, Blocker>();
  for (const { partition, method, path, settlesAtMs } of await doubts.unsettled()) {
    const settlesInMs = settlesAtMs - nowMs;
    if (settlesInMs <= longestWaitMs) continue;
    const seconds = Math.ceil(settlesInMs / 1_000);
    found.set(partition, {
      code: 'write-in-doubt',
      detail: `nobody knows what became of ${method} ${path}, and it may take effect for another ${seconds} s. Look into it and say so with "partitions resolve", or wait`,
    });
  }
  return found;
}

/** On a way back without copies: which partitions only a copy could bring back. */
async function askGuard(
  { guards, guarded, ledger }: PlanParts,
  from: StoreName,
  partitions: readonly string[],
  touched: ReadonlyMap<string, LedgerRecord>,
): Promise<ReadonlyMap<string, Blocker>> {
  if (!guarded[from]) return new Map();
  const epochs = new Map<string, number>();
  for (const partition of partitions) {
    const { ownership } = touched.get(partition) ?? ledger.untouched;
    if (ownership.phase === 'open' && ownership.owner === from) epochs.set(partition, ownership.epoch);
  }
  return askAllWritten(guards, from, epochs);
}

/** Many at once: a cohort can have ten thousand partitions, and each answer is a round trip. */
async function countLetters(
  { copies }: PlanParts,
  partitions: readonly string[],
): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const group of inBatches(partitions, askedAtOnce)) {
    const found = await Promise.all(group.map((partition) => copies.deadLetters(partition)));
    for (const [index, partition] of group.entries()) counts.set(partition, found[index] ?? 0);
  }
  return counts;
}

function whyBlocked(
  request: PlanRequest,
  partition: string,
  { ownership }: LedgerRecord,
  letters: number,
): Blocker | undefined {
  const holder = request.reserved.get(partition);
  if (holder !== undefined) {
    return { code: 'reserved', detail: `flip ${holder} is moving this partition; wait for it, or abort it` };
  }
  if (ownership.phase !== 'open') {
    return {
      code: ownership.phase,
      detail: `the partition is ${ownership.phase}; try again in a few seconds`,
    };
  }
  if (letters > 0) {
    return {
      code: 'dead-letters',
      detail:
        `${letters} records could not be copied: "onewriter sync status" lists them with the reasons. Mend them, then: ` +
        `onewriter sync retry --partition "${partition}" --reason TEXT`,
    };
  }
  return undefined;
}

/** Everything that stops all partitions alike; all of it, not the first. */
async function globalBlockers(parts: PlanParts, to: StoreName): Promise<Blocker[]> {
  const from = otherStore(to);
  const blockers: Blocker[] = [];
  const add = (code: string, detail: string): void => void blockers.push({ code, detail });
  const byGuard = isProvenByGuard(parts.settings, from);
  if (byGuard && !parts.guarded[from]) blockers.push(withoutGuard(from, to));
  if (!byGuard && !parts.writable.includes(to)) {
    add(
      'no-way-back',
      `copies to ${to} are switched off, so nothing can be handed back to it: what was written to ${from} would be lost. ` +
        'Nothing was changed.',
    );
  }
  for (const store of [from, to]) await checkStore(parts, store, add);
  if (!byGuard) blockers.push(...(await parts.copies.halted(to)));
  for (const { notWritable, kind } of byGuard ? [] : (parts.readers[to]?.capabilities ?? [])) {
    if (notWritable !== undefined) add('not-writable', `${to} cannot take copies of ${kind}: ${notWritable}`);
  }
  const lost = await parts.ledger.regression();
  if (lost !== undefined) {
    add('ledger-regressed', `the ledger lost data (${lost.detail}); restore it: "onewriter ledger restore"`);
  }
  checkMembers(parts, add);
  await checkObservers(parts, add);
  if (!parts.acceptLoss) {
    for (const gap of await parts.ledger.durabilityGaps()) {
      add(
        'ledger-not-durable',
        `${gap} Or set ledger.acceptLoss to true to flip although a failover could lose a step.`,
      );
    }
  }
  return blockers;
}

async function checkStore(
  parts: PlanParts,
  store: StoreName,
  add: (code: string, detail: string) => void,
): Promise<void> {
  const reader = parts.readers[store];
  if (reader === undefined) {
    add('no-connector', `stores.${store}.connector is not configured, so its records cannot be compared`);
    return;
  }
  try {
    await reader.probe(AbortSignal.timeout(probeWithinMs));
  } catch (error) {
    add('store-unreachable', `${store} could not be read: ${sentenceOf(error)}`);
    return;
  }
  if (!parts.guarded[store]) return;
  try {
    const stamp = { partition: 'onewriter-probe', epoch: 1 };
    await parts.guards.verdict(store, stamp, 'read', AbortSignal.timeout(probeWithinMs));
  } catch (error) {
    add('guard-unreachable', `the guard of ${store} does not answer its signed calls: ${sentenceOf(error)}`);
  }
}

/** What they are sent goes to legacy whatever the ledger says; see lua/transition.lua, which refuses each fence. */
async function checkObservers(parts: PlanParts, add: (code: string, detail: string) => void): Promise<void> {
  if (parts.observing === true) {
    add(
      'observe-mode',
      'the configuration says proxy.mode observe; set it to enforce, and restart everything',
    );
  }
  for (const { id, pid, host } of await parts.ledger.observers.list()) {
    add(
      'observing',
      `proxy ${id} (pid ${pid} on ${host}) only observes and sends every write to legacy. Stop it or start it with proxy.mode enforce; if it is dead, take it off the list: onewriter members remove ${id}`,
    );
  }
}

function checkMembers(parts: PlanParts, add: (code: string, detail: string) => void): void {
  const { fresh, unproven, stale } = parts.members.health();
  const listed = [...fresh, ...unproven, ...stale];
  if (listed.length === 0) {
    add(
      'no-members',
      'no proxy is registered in the ledger; start one first, so that writes follow the move',
    );
  }
  const hashes = new Set(listed.map((member) => member.configHash));
  if (hashes.size > 1) {
    add(
      'config-differs',
      'the proxies run different rules for identity, partition or routes; restart them with one configuration',
    );
  }
}
