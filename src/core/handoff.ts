/**
 * The coordinator's side of the protocol: one attempt to move one partition from its owner to the other
 * store. Deterministic: events and time come in, orders go out. Whoever runs it (src/handoff) executes
 * the orders against ledger, members, guards and sync, and feeds back what happened.
 *
 * The order of the steps is the proof. The old owner's position is read only after every member has
 * drained (Vitess #16563); the copy ends before the commit; a failure before the commit reopens at the
 * old owner first and reports after (gh-ost #1270).
 */
import type { DrainAnswer } from './member.ts';
import { otherStore, type StoreName } from './ownership.ts';

export interface HandoffSettings {
  readonly drainMs: number;
  readonly fenceMs: number;
  /** How late the old owner's lists show a finished write. */
  readonly feedDelayMs: number;
  /** Stores that answer the guard's advance and seal calls. */
  readonly guarded: Readonly<Record<StoreName, boolean>>;
  /** By the store that is left; `copies` where nothing is said. */
  readonly proof?: Readonly<Partial<Record<StoreName, ProofKind>>>;
}

/**
 * How it is proven that the new owner has everything. `copies`: what is left is copied, until a comparison
 * finds no difference. `unwritten`: nothing is copied in this direction; the old owner's guard says, when it
 * is advanced, that it took no user's write since it became the owner.
 */
export type ProofKind = 'copies' | 'unwritten';

export type HandoffFailure =
  | 'fence-refused'
  /** Too few replicas have the fence, or nobody could say whom it must wait for. */
  | 'fence-not-durable'
  | 'drain-timeout'
  | 'write-in-doubt'
  | 'feed-delay-exceeds-fence'
  /** The old owner did not take the right to write away, or nobody knows whether it did. */
  | 'freeze-failed'
  /** The new owner did not give the right to write back that it had taken away. */
  | 'unfreeze-failed'
  | 'guard-advance-failed'
  | 'app-was-written'
  | 'catch-up-failed'
  | 'guard-seal-failed'
  | 'fence-deadline'
  | 'commit-refused'
  /** The partition was written together with one that stays behind. */
  | 'cuts-link'
  /** Or with one that is being moved itself. */
  | 'linked-busy'
  /** Nobody could say whom it was written together with. */
  | 'links-unread'
  | 'stopped-by-operator';

export type HandoffOrder =
  | { readonly order: 'fence' }
  | { readonly order: 'advance-guard'; readonly store: StoreName; readonly epoch: number }
  /** Read the old owner's position now, copy what is left, and prove that nothing is. */
  | { readonly order: 'catch-up'; readonly epoch: number; readonly notBeforeMs: number }
  | { readonly order: 'seal-guard'; readonly store: StoreName; readonly epoch: number }
  | { readonly order: 'commit' }
  | { readonly order: 'release' }
  | { readonly order: 'abort' }
  /** The outcome of a transition is unknown: read the ledger's record and report it. */
  | { readonly order: 'reread' };

export type HandoffEvent =
  /**
   * The fence is in the ledger; `members` are all that were listed after it was. A member that left took
   * what it knew of finished writes with it, so they may be as young as its departure.
   */
  | {
      readonly event: 'fenced';
      readonly epoch: number;
      readonly members: readonly string[];
      readonly lastDepartureAgeMs: number;
    }
  | {
      readonly event: 'acknowledged';
      readonly member: string;
      readonly answer: DrainAnswer;
      readonly lastWriteAgeMs: number;
      readonly settlesInMs: number;
    }
  /**
   * The member is not listed any more: it left with nothing in flight, or was proven gone, its writes settled.
   * What it knew of finished writes is gone with it, so they may be as young as this event.
   */
  | { readonly event: 'member-gone'; readonly member: string }
  /** `written`: whether the store took a user's write since it became the owner; absent where nobody knows. */
  | { readonly event: 'guard-advanced'; readonly written?: boolean | undefined }
  | { readonly event: 'caught-up'; readonly proof: CaughtUpProof }
  | { readonly event: 'guard-sealed' }
  | { readonly event: 'committed' }
  | { readonly event: 'released' }
  | { readonly event: 'aborted' }
  /** The order before failed in the named way; nothing of it took effect, or it does not matter. */
  | {
      readonly event: 'failed';
      readonly failure: HandoffFailure;
      readonly detail: string;
      readonly retryAfterMs?: number;
    }
  | { readonly event: 'transition-unknown' }
  | { readonly event: 'stop'; readonly detail: string }
  | { readonly event: 'tick' };

/** Positive evidence that the new owner has everything; stored with the commit's report. */
export interface CaughtUpProof {
  readonly recordsCompared: number;
  readonly recordsCopied: number;
  readonly passes: number;
  /** Nothing was compared: the old owner had taken no write. */
  readonly unwritten?: true | undefined;
}

interface GuardAdvance {
  readonly store: StoreName;
  readonly epoch: number;
}

export type HandoffStep =
  | 'fencing'
  | 'draining'
  | 'advancing-guard'
  | 'catching-up'
  | 'sealing-guard'
  | 'committing'
  | 'releasing'
  | 'aborting'
  | 'done'
  | 'aborted';

export interface HandoffState {
  readonly step: HandoffStep;
  readonly from: StoreName;
  readonly to: StoreName;
  /** Epoch of the fence; 0 until it is in the ledger. */
  readonly epoch: number;
  /** When the fence was ordered, so never later than the ledger counts its deadline from. */
  readonly fencedAtMs: number;
  readonly awaiting: readonly string[];
  /** Guards that must still be advanced, the one under way first. */
  readonly advances: readonly GuardAdvance[];
  readonly newestWriteMs: number;
  readonly proof?: CaughtUpProof;
  /** The operator's stop, which came while the fence was being ordered. */
  readonly stopping?: string;
  readonly failure?: HandoffFailed;
}

export interface HandoffFailed {
  readonly code: HandoffFailure;
  readonly detail: string;
  /** Trying again before this time is over would fail alike. */
  readonly retryAfterMs?: number;
}

export interface HandoffMove {
  readonly state: HandoffState;
  readonly orders: readonly HandoffOrder[];
}

/** Share of the fence kept back for the commit's own round trip. */
const commitReserve = 0.1;

export function startHandoff(from: StoreName, nowMs: number): HandoffMove {
  const state: HandoffState = {
    step: 'fencing',
    from,
    to: otherStore(from),
    epoch: 0,
    fencedAtMs: nowMs,
    awaiting: [],
    advances: [],
    newestWriteMs: Number.NEGATIVE_INFINITY,
  };
  return { state, orders: [{ order: 'fence' }] };
}

/** `nowMs` is the coordinator's monotonic clock. An event that comes too late for its step is ignored. */
export function stepHandoff(
  state: HandoffState,
  event: HandoffEvent,
  nowMs: number,
  settings: HandoffSettings,
): HandoffMove {
  switch (event.event) {
    case 'fenced': {
      if (state.step !== 'fencing') return stay(state);
      const fenced: HandoffState = {
        ...state,
        step: 'draining',
        epoch: event.epoch,
        awaiting: event.members,
        newestWriteMs: nowMs - event.lastDepartureAgeMs,
      };
      if (state.stopping !== undefined) return abort(fenced, 'stopped-by-operator', state.stopping);
      return drainIfAll(fenced, nowMs, settings);
    }
    case 'acknowledged':
      return acknowledged(state, event, nowMs, settings);
    case 'member-gone':
      if (state.step !== 'draining' || !state.awaiting.includes(event.member)) return stay(state);
      return drainIfAll({ ...without(state, event.member), newestWriteMs: nowMs }, nowMs, settings);
    case 'guard-advanced':
      if (state.step !== 'advancing-guard') return stay(state);
      if (!provenUnwritten(state, settings)) {
        return advanceNext({ ...state, advances: state.advances.slice(1) }, nowMs, settings);
      }
      return event.written === false
        ? proven(state, { recordsCompared: 0, recordsCopied: 0, passes: 0, unwritten: true }, settings)
        : abort(state, 'app-was-written', wasWritten(state, event.written));
    case 'caught-up':
      return state.step === 'catching-up' ? proven(state, event.proof, settings) : stay(state);
    case 'guard-sealed':
      return state.step === 'sealing-guard' ? commit(state) : stay(state);
    case 'committed':
      // Also reached from `aborting`, when a re-read shows that the commit had gone through after all.
      if (state.step !== 'committing' && state.step !== 'aborting') return stay(state);
      return move({ ...state, step: 'releasing' }, [{ order: 'release' }]);
    case 'released':
      return state.step === 'releasing' ? move({ ...state, step: 'done' }, []) : stay(state);
    case 'aborted':
      return isOver(state) ? stay(state) : move({ ...state, step: 'aborted' }, []);
    case 'failed':
      return failed(state, event.failure, event.detail, event.retryAfterMs);
    case 'transition-unknown':
      return isOver(state) ? stay(state) : move(state, [{ order: 'reread' }]);
    case 'stop':
      // The fence is under way: aborting now could overtake it and leave a fence that nobody lifts.
      if (state.step === 'fencing') return stay({ ...state, stopping: event.detail });
      return mayAbort(state) ? abort(state, 'stopped-by-operator', event.detail) : stay(state);
    case 'tick':
      return tick(state, nowMs, settings);
  }
}

export function isOver(state: HandoffState): boolean {
  return state.step === 'done' || state.step === 'aborted';
}

function acknowledged(
  state: HandoffState,
  event: Extract<HandoffEvent, { event: 'acknowledged' }>,
  nowMs: number,
  settings: HandoffSettings,
): HandoffMove {
  if (state.step !== 'draining') return stay(state);
  if (event.answer === 'in-doubt') {
    const detail = `${event.member} has a write whose outcome is unknown; it settles in ${Math.ceil(event.settlesInMs)} ms`;
    return abort(state, 'write-in-doubt', detail, event.settlesInMs);
  }
  const newestWriteMs = Math.max(state.newestWriteMs, nowMs - event.lastWriteAgeMs);
  return drainIfAll(without({ ...state, newestWriteMs }, event.member), nowMs, settings);
}

function drainIfAll(state: HandoffState, nowMs: number, settings: HandoffSettings): HandoffMove {
  if (state.awaiting.length > 0) return stay(state);
  return advanceNext({ ...state, advances: advancesOf(state, settings) }, nowMs, settings);
}

/**
 * What guards must know before anything is read. The old owner's: what came before the fence is over. The new
 * owner's: copies from before the fence are over, also one that its sender sent and gave up long ago; the
 * handoff's own come under the fence's epoch.
 */
function advancesOf(state: HandoffState, settings: HandoffSettings): GuardAdvance[] {
  const { from, to, epoch } = state;
  const unwritten = provenUnwritten(state, settings);
  return [
    ...(settings.guarded[from] || unwritten ? [{ store: from, epoch }] : []),
    ...(settings.guarded[to] && !unwritten ? [{ store: to, epoch: epoch - 1 }] : []),
  ];
}

function advanceNext(state: HandoffState, nowMs: number, settings: HandoffSettings): HandoffMove {
  const next = state.advances[0];
  if (next === undefined) return catchUp(state, nowMs, settings);
  return move({ ...state, step: 'advancing-guard' }, [{ order: 'advance-guard', ...next }]);
}

function catchUp(state: HandoffState, nowMs: number, settings: HandoffSettings): HandoffMove {
  const notBeforeMs = Math.max(nowMs, state.newestWriteMs + settings.feedDelayMs);
  if (notBeforeMs >= commitBy(state, settings)) {
    const waitMs = Math.round(notBeforeMs - nowMs);
    return abort(
      state,
      'feed-delay-exceeds-fence',
      `a write finished so recently that the old owner's list shows it only in ${waitMs} ms, after the fence deadline`,
      waitMs,
    );
  }
  return move({ ...state, step: 'catching-up' }, [{ order: 'catch-up', epoch: state.epoch, notBeforeMs }]);
}

function provenUnwritten(state: HandoffState, { proof }: HandoffSettings): boolean {
  return proof?.[state.from] === 'unwritten';
}

function wasWritten({ from, to }: HandoffState, written: boolean | undefined): string {
  return written === true
    ? `${from} has accepted a user's write since it became the owner, and nothing is copied to ${to}`
    : `the guard of ${from} does not say whether it accepted a user's write since it became the owner`;
}

function proven(state: HandoffState, proof: CaughtUpProof, settings: HandoffSettings): HandoffMove {
  if (!settings.guarded[state.to]) return commit({ ...state, proof });
  return move({ ...state, proof, step: 'sealing-guard' }, [
    { order: 'seal-guard', store: state.to, epoch: state.epoch },
  ]);
}

function tick(state: HandoffState, nowMs: number, settings: HandoffSettings): HandoffMove {
  if (state.step === 'draining' && nowMs >= state.fencedAtMs + settings.drainMs) {
    return abort(state, 'drain-timeout', `no acknowledgement from ${state.awaiting.join(', ')}`);
  }
  if (mayAbort(state) && nowMs >= commitBy(state, settings)) {
    return abort(state, 'fence-deadline', `${state.step} did not end before the fence deadline`);
  }
  return stay(state);
}

function failed(
  state: HandoffState,
  code: HandoffFailure,
  detail: string,
  retryAfterMs?: number,
): HandoffMove {
  if (state.step === 'fencing') {
    return move({ ...state, step: 'aborted', failure: { code, detail } }, []);
  }
  // A commit that was refused, or that a failover lost before its release, changed nothing; the abort's
  // compare-and-set settles any race.
  const uncommitted =
    state.step === 'committing' || (state.step === 'releasing' && code === 'commit-refused');
  return mayAbort(state) || uncommitted ? abort(state, code, detail, retryAfterMs) : stay(state);
}

/**
 * From the fence until the commit is ordered, anything can still be undone. While a transition is under
 * way only the ledger knows.
 */
function mayAbort(state: HandoffState): boolean {
  switch (state.step) {
    case 'draining':
    case 'advancing-guard':
    case 'catching-up':
    case 'sealing-guard':
      return true;
    case 'fencing':
    case 'committing':
    case 'releasing':
    case 'aborting':
    case 'done':
    case 'aborted':
      return false;
  }
}

/** How long after its fence an attempt must have ordered the commit, ms; whoever drives it ticks then. */
export function commitWithinMs(settings: HandoffSettings): number {
  return settings.fenceMs * (1 - commitReserve);
}

function commitBy(state: HandoffState, settings: HandoffSettings): number {
  return state.fencedAtMs + commitWithinMs(settings);
}

function commit(state: HandoffState): HandoffMove {
  return move({ ...state, step: 'committing' }, [{ order: 'commit' }]);
}

function abort(
  state: HandoffState,
  code: HandoffFailure,
  detail: string,
  retryAfterMs?: number,
): HandoffMove {
  const failure = { code, detail, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
  return move({ ...state, step: 'aborting', failure }, [{ order: 'abort' }]);
}

function without(state: HandoffState, member: string): HandoffState {
  return { ...state, awaiting: state.awaiting.filter((name) => name !== member) };
}

function move(state: HandoffState, orders: readonly HandoffOrder[]): HandoffMove {
  return { state, orders };
}

function stay(state: HandoffState): HandoffMove {
  return { state, orders: [] };
}
