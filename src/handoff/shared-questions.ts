/** What many handoffs ask the ledger at about the same time, each after its own fence or commit. */
import type { Ledger } from '../core/ports.ts';
import { Rounds } from '../ledger/rounds.ts';
import type { Regression } from '../core/regression.ts';

/** Who is listed, and how long ago the last member left. */
export interface Roll {
  readonly members: readonly string[];
  readonly lastDepartureAgeMs: number;
}

export interface SharedQuestions {
  readonly roll: Rounds<Roll>;
  readonly durable: Rounds<boolean>;
  /** What the ledger has lost, if anything; fails while it does not answer. */
  readonly regression: Rounds<Regression | undefined>;
}

export function shareQuestions(ledger: Ledger): SharedQuestions {
  return {
    roll: new Rounds(async () => {
      const [listed, departedAtMs, nowMs] = await Promise.all([
        ledger.members(),
        ledger.lastDepartureMs(),
        ledger.nowMs(),
      ]);
      return {
        members: listed.map((member) => member.id),
        lastDepartureAgeMs: Math.max(0, nowMs - departedAtMs),
      };
    }),
    durable: new Rounds(() => ledger.confirmDurable()),
    regression: new Rounds(() => ledger.regression()),
  };
}
