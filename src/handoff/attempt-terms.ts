/** What one attempt is made with, what it is asked to do, and what it reports. */
import type { StoreFreezes } from '../core/freeze.ts';
import type { CaughtUpProof, HandoffFailed, HandoffSettings, HandoffStep } from '../core/handoff.ts';
import type { StoreName } from '../core/ownership.ts';
import type { CopyDesk, GuardCalls, Ledger, LedgerFeed } from '../core/ports.ts';
import type { Cut } from './linked.ts';
import type { MemberWatch } from './members.ts';
import type { SharedQuestions } from './shared-questions.ts';

export interface AttemptParts {
  readonly ledger: Ledger;
  readonly feed: LedgerFeed;
  readonly copies: CopyDesk;
  readonly guards: GuardCalls;
  /** Absent where no store can take the right to write away. */
  readonly freezes?: StoreFreezes | undefined;
  readonly members: Pick<MemberWatch, 'listedSince' | 'allAlive'>;
  readonly settings: HandoffSettings;
  /** Asked together with other attempts of this process; alone where nothing is given. */
  readonly shared?: SharedQuestions;
}

export interface AttemptRequest {
  readonly partition: string;
  readonly from: StoreName;
  readonly by: string;
  readonly reason: string;
  /** Aborted when the operator stops the flip. */
  readonly stop: AbortSignal;
  /** Asked right before the commit: who would be left behind that the partition is written together with. */
  readonly whyCut?: () => Promise<Cut | undefined>;
}

export type AttemptReport =
  | {
      readonly outcome: 'moved';
      readonly pauseMs: number;
      readonly proof: CaughtUpProof;
      /** How long each step took, by this process's clock. */
      readonly stepsMs: Readonly<Partial<Record<HandoffStep, number>>>;
    }
  | ({
      readonly outcome: 'aborted';
      readonly pauseMs: number;
      /** Members that did not acknowledge in time. */
      readonly awaiting?: readonly string[];
    } & HandoffFailed);
