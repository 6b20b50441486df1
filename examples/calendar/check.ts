/**
 * Judges a run of the example from the outside: the users' journal against what both stores hold and
 * logged. It knows nothing of onewriter and shares no code with it.
 */
import type { AcceptedWrite, Appointment } from './appointment.ts';
import type { Ended, JournalEntry } from './journal.ts';

export type Store = 'legacy' | 'app';

/** The store that takes a user's writes from this time on (Unix ms) until the next entry. */
export interface OwnerSpan {
  readonly owner: Store;
  readonly fromMs: number;
}

export interface CheckInput {
  readonly journal: readonly JournalEntry[];
  readonly legacyDump: readonly Appointment[];
  readonly appDump: readonly Appointment[];
  readonly legacyLog: readonly AcceptedWrite[];
  readonly appLog: readonly AcceptedWrite[];
  /** Per user, in order of time; who is not named belongs to legacy throughout. */
  readonly ownership: Readonly<Record<string, readonly OwnerSpan[]>>;
}

export type FindingKind =
  /** Acknowledged, but no store logged it, or the owner does not hold what it left. */
  | 'lost'
  /** One request took effect more than once, or the owner holds its result twice. */
  | 'doubled'
  /** A person's write was taken by a store that did not own the user then. */
  | 'wrong-store'
  /** Two live appointments of one calendar at the same time, in the owner's store. */
  | 'overlap'
  /** The user was told that nothing was done, but it was. */
  | 'refused-but-done';

export interface Finding {
  readonly finding: FindingKind;
  readonly user: string;
  readonly detail: string;
}

export interface Evidence {
  readonly acknowledgedWrites: number;
  readonly unknownWrites: number;
  readonly findings: readonly Finding[];
  readonly count: Readonly<Record<FindingKind, number>>;
  /** Requests that were answered with a failure, by problem code. */
  readonly failedByCode: Readonly<Record<string, number>>;
  /** Requests whose connection was refused or broke, as to a process that was killed. */
  readonly brokenConnections: number;
}

interface Taken extends AcceptedWrite {
  readonly store: Store;
}

export function checkJournal(input: CheckInput): Evidence {
  const ended = input.journal.filter((entry) => entry.step !== 'invoke' && entry.step !== 'reread');
  const taken = [
    ...input.legacyLog.map((entry): Taken => ({ ...entry, store: 'legacy' })),
    ...input.appLog.map((entry): Taken => ({ ...entry, store: 'app' })),
  ]
    .filter((entry) => entry.hand === 'user')
    .toSorted((a, b) => a.at_ms - b.at_ms);
  const writes = ended.filter((entry) => entry.method !== 'GET');
  const findings = [
    ...countEffects(writes, taken),
    ...compareWithOwner(unended(input.journal, writes), input),
    ...wrongStores(taken, input.ownership),
    ...overlapping(input),
  ];
  const count = { lost: 0, doubled: 0, 'wrong-store': 0, overlap: 0, 'refused-but-done': 0 };
  for (const { finding } of findings) count[finding] += 1;
  const failed = ended.filter((entry) => entry.step !== 'ok');
  const failedByCode: Record<string, number> = {};
  for (const { status, code = 'none' } of failed) {
    if (status !== undefined) failedByCode[code] = (failedByCode[code] ?? 0) + 1;
  }
  return {
    acknowledgedWrites: writes.filter((entry) => entry.step === 'ok').length,
    unknownWrites: writes.filter((entry) => entry.step === 'unknown').length,
    findings,
    count,
    failedByCode,
    brokenConnections: failed.filter((entry) => entry.status === undefined).length,
  };
}

/** The journal of a process, one entry a line. A last line that was cut off is left out. */
export function parseJournal(text: string): JournalEntry[] {
  const lines = text.split('\n');
  if (lines.at(-1) !== '') lines.pop();
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as JournalEntry);
}

/** Each acknowledged request once in one log; each refused one in none; an unknown one at most once. */
function countEffects(writes: readonly Ended[], taken: readonly Taken[]): Finding[] {
  const effects = new Map<string, number>();
  for (const entry of taken) {
    const key = effectKey(entry);
    effects.set(key, (effects.get(key) ?? 0) + 1);
  }
  const findings: Finding[] = [];
  for (const write of writes) {
    const times = effects.get(effectKey(write)) ?? 0;
    const { user } = write;
    const detail = `${describe(write)} (${write.step}) was logged ${times} times`;
    if (write.step === 'ok' && times === 0) findings.push({ finding: 'lost', user, detail });
    if (write.step !== 'fail' && times > 1) findings.push({ finding: 'doubled', user, detail });
    // A refused delete says nothing: the same appointment may have been deleted by another request.
    if (write.step === 'fail' && write.method !== 'DELETE' && times > 0) {
      findings.push({ finding: 'refused-but-done', user, detail });
    }
  }
  return findings;
}

/** Writes that the journal saw start but not end count as unknown. */
function unended(journal: readonly JournalEntry[], writes: readonly Ended[]): Ended[] {
  const known = new Set(writes.map((write) => `${write.user} ${write.request} ${write.title}`));
  const open = journal
    .filter((entry) => entry.step === 'invoke' && entry.method !== 'GET')
    .filter((entry) => !known.has(`${entry.user} ${entry.request} ${entry.title}`))
    .map((entry): Ended => ({ ...entry, step: 'unknown', tookMs: 0 }));
  return [...writes, ...open];
}

/** What the owner holds of each appointment is what its last acknowledged write left, or one in doubt. */
function compareWithOwner(writes: readonly Ended[], input: CheckInput): Finding[] {
  const byId = new Map<string, Ended[]>();
  for (const write of writes) {
    if (write.id === undefined || write.step === 'fail') continue;
    byId.set(write.id, [...(byId.get(write.id) ?? []), write]);
  }
  const dumps = { legacy: heldBy(input.legacyDump), app: heldBy(input.appDump) };
  const findings: Finding[] = [];
  for (const [id, history] of byId) {
    const user = history[0]?.user ?? '';
    const owner = ownerOf(input.ownership, user, Number.POSITIVE_INFINITY);
    const held = dumps[owner].get(id) ?? [];
    if (held.length > 1) {
      findings.push({ finding: 'doubled', user, detail: `${owner} holds ${id} ${held.length} times` });
    }
    const acknowledged = history.filter((write) => write.step === 'ok');
    const last = acknowledged.toSorted((a, b) => a.at_ms - b.at_ms).at(-1);
    const allowed = history
      .filter((write) => write === last || write.step === 'unknown')
      .map((write) => (write.method === 'DELETE' ? undefined : write.title));
    const [live] = held.filter((record) => record.deleted_at === null);
    if (last !== undefined && !allowed.includes(live?.title)) {
      const found = live === undefined ? 'nothing' : `"${live.title}"`;
      const detail = `${describe(last)} was acknowledged; ${owner} holds ${found} under ${id}`;
      findings.push({ finding: 'lost', user, detail });
    }
  }
  for (const [store, dump] of Object.entries({ legacy: input.legacyDump, app: input.appDump })) {
    const titles = new Map<string, string>();
    for (const { title, id, owner_id: user, deleted_at } of dump) {
      if (deleted_at !== null || ownerOf(input.ownership, user, Number.POSITIVE_INFINITY) !== store) continue;
      const other = titles.get(`${user} ${title}`);
      titles.set(`${user} ${title}`, id);
      if (other === undefined || other === id) continue;
      const detail = `${store} holds "${title}" as ${other} and as ${id}`;
      findings.push({ finding: 'doubled', user, detail });
    }
  }
  return findings;
}

/** By the clock, and without it: a user's writes change stores no more often than the owner did. */
function wrongStores(taken: readonly Taken[], ownership: CheckInput['ownership']): Finding[] {
  const findings: Finding[] = [];
  const lastStore = new Map<string, Store>();
  const changes = new Map<string, number>();
  for (const entry of taken) {
    const user = entry.owner_id;
    const owner = ownerOf(ownership, user, entry.at_ms);
    if (owner !== entry.store) {
      const detail = `${describe(entry)} was taken by ${entry.store} while ${owner} owned ${user}`;
      findings.push({ finding: 'wrong-store', user, detail });
    }
    const before = lastStore.get(user);
    if (before !== undefined && before !== entry.store) changes.set(user, (changes.get(user) ?? 0) + 1);
    lastStore.set(user, entry.store);
  }
  for (const [user, times] of changes) {
    const spans = ownership[user] ?? [];
    const first = spans[0]?.owner === 'app' ? 1 : 0; // legacy owned the time before the first span
    const moves = spans.filter((span, at) => at > 0 && spans[at - 1]?.owner !== span.owner).length + first;
    if (times <= moves) continue;
    const detail = `the writes of ${user} changed stores ${times} times, its owner ${moves} times`;
    findings.push({ finding: 'wrong-store', user, detail });
  }
  return findings;
}

function overlapping(input: CheckInput): Finding[] {
  const findings: Finding[] = [];
  for (const [store, dump] of Object.entries({ legacy: input.legacyDump, app: input.appDump })) {
    const live = dump
      .filter((record) => record.deleted_at === null)
      .filter((record) => ownerOf(input.ownership, record.owner_id, Number.POSITIVE_INFINITY) === store)
      .toSorted((a, b) => Date.parse(a.starts_at) - Date.parse(b.starts_at));
    const longest = new Map<string, Appointment>();
    for (const record of live) {
      const user = record.owner_id;
      const before = longest.get(user);
      if (before !== undefined && Date.parse(record.starts_at) < Date.parse(before.ends_at)) {
        const detail = `${before.id} and ${record.id} overlap in ${store}`;
        findings.push({ finding: 'overlap', user, detail });
      }
      if (before === undefined || Date.parse(record.ends_at) > Date.parse(before.ends_at)) {
        longest.set(user, record);
      }
    }
  }
  return findings;
}

function ownerOf(ownership: CheckInput['ownership'], user: string, atMs: number): Store {
  return (ownership[user] ?? []).findLast((span) => span.fromMs <= atMs)?.owner ?? 'legacy';
}

function heldBy(dump: readonly Appointment[]): Map<string, Appointment[]> {
  const held = new Map<string, Appointment[]>();
  for (const record of dump) held.set(record.id, [...(held.get(record.id) ?? []), record]);
  return held;
}

/** A write with a title is known by it; a delete by its appointment. */
function effectKey(write: { method: string; id?: string; title?: string }): string {
  return write.method === 'DELETE' ? `DELETE ${write.id}` : `${write.method} ${write.title}`;
}

function describe(write: { method: string; id?: string; title?: string }): string {
  return `${write.method} ${write.id ?? ''} "${write.title ?? ''}"`;
}
