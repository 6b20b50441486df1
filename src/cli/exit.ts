/** What the exit code of a command says. Scripts rely on it; docs/cli.md has the table. */
import type { FlipAnswer, PlanAnswer } from '../admin/answers.ts';

export const exitCodes = {
  done: 0,
  error: 1,
  planNotEmpty: 2,
  paused: 3,
  aborted: 4,
  timeout: 5,
  stale: 6,
  denied: 7,
  precheckFailed: 8,
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** Why a command could not do what was asked: one sentence that says what to do next, and the exit code. */
export interface CliRefusal {
  readonly exit: ExitCode;
  readonly code: string;
  readonly detail: string;
  /** Everything that stands in the way, one line each. */
  readonly lines?: readonly string[];
}

export type Attempt<Value> =
  { readonly ok: true; readonly value: Value } | { readonly ok: false; readonly refusal: CliRefusal };

export function refusal(code: string, detail: string, exit: ExitCode = exitCodes.error): CliRefusal {
  return { exit, code, detail };
}

export function failedAttempt(why: CliRefusal): { readonly ok: false; readonly refusal: CliRefusal } {
  return { ok: false, refusal: why };
}

export function exitOfPlan(plan: Pick<PlanAnswer, 'flip' | 'blocked' | 'blockers'>): ExitCode {
  if (plan.blockers.length > 0) return exitCodes.precheckFailed;
  if (plan.flip.length > 0) return exitCodes.planNotEmpty;
  return plan.blocked.length > 0 ? exitCodes.precheckFailed : exitCodes.done;
}

/** For a flip that has ended, or will not go on without somebody. */
export function exitOfFlip(flip: Pick<FlipAnswer, 'state' | 'aborted' | 'blocked' | 'pending'>): ExitCode {
  switch (flip.state) {
    case 'completed':
      return flip.aborted > 0 || flip.blocked.length > 0 || flip.pending > 0
        ? exitCodes.aborted
        : exitCodes.done;
    case 'aborted':
    case 'failed':
      return exitCodes.aborted;
    case 'planned':
    case 'awaiting-approval':
    case 'scheduled':
    case 'running':
    case 'paused':
      return exitCodes.paused;
  }
}

const restoreRefused: ReadonlySet<string> = new Set([
  'ledger-not-regressed',
  'restore-conflicts',
  'nothing-to-restore-from',
  'directory-lost',
  'guard-silent',
  'member-alive',
]);

/** By the code of a problem document and its HTTP status. */
export function exitOfProblem(status: number, code: string): ExitCode {
  if (status === 401 || status === 403) return exitCodes.denied;
  if (code === 'stale-plan') return exitCodes.stale;
  if (restoreRefused.has(code)) return exitCodes.precheckFailed;
  if (code === 'nothing-can-move' || code === 'no-clean-way-back') return exitCodes.precheckFailed;
  return exitCodes.error;
}
