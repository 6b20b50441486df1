/**
 * Every way in which the admin API says no (RFC 9457 problem details). One table, so that a code has one
 * status and one title; the sentence belongs to the call.
 */
import type { OrderRefusal } from '../core/flip.ts';

export const adminProblems = {
  'invalid-request': { status: 400, title: 'The request is not what this call takes' },
  'no-token': { status: 401, title: 'The call carries no bearer token' },
  'bad-token': { status: 401, title: 'The bearer token is not known' },
  'role-needed': { status: 403, title: 'The token may not do this' },
  'no-such-path': { status: 404, title: 'Nothing is served at this path' },
  'no-such-cohort': { status: 404, title: 'There is no such cohort' },
  'no-such-flip': { status: 404, title: 'There is no such flip' },
  'no-such-plan': { status: 404, title: 'There is no such plan' },
  'no-such-partition': { status: 404, title: 'The partition is not known' },
  'no-such-dead-letter': { status: 404, title: 'There is no such dead letter' },
  'no-such-brake': { status: 404, title: 'No such deletes are held back' },
  'no-such-verification': { status: 404, title: 'There is no such verification' },
  'no-such-erasure': { status: 404, title: 'There is no such erasure' },
  'no-such-stray': { status: 404, title: 'There is no such stray' },
  'no-such-user': { status: 404, title: 'The directory does not say where the user belongs' },
  'no-such-link': { status: 404, title: 'The two partitions are not noted as written together' },
  'no-such-member': { status: 404, title: 'No such member is listed' },
  'method-not-allowed': { status: 405, title: 'The path does not take this method' },
  'stale-plan': { status: 409, title: 'The ledger has moved on since the plan was made' },
  'wrong-state': { status: 409, title: 'The flip is in a state that does not allow this' },
  'no-window': { status: 409, title: 'Nothing is copied back to legacy' },
  'not-paused': { status: 409, title: 'The copying is not paused' },
  'ledger-not-regressed': { status: 409, title: 'The ledger has not lost anything' },
  'restore-running': { status: 409, title: 'The ledger is being restored already' },
  'restore-conflicts': { status: 409, title: 'Sources name different owners of a partition' },
  'member-alive': { status: 409, title: 'The member may be alive' },
  'cohort-from-file': { status: 409, title: 'The cohort is defined in the configuration file' },
  'no-directory': { status: 409, title: 'No partition rule asks the directory' },
  'partition-in-request': { status: 409, title: 'The requests of such users say where they belong' },
  'partition-busy': { status: 409, title: 'Somebody else is changing one of the partitions' },
  'other-owner': { status: 409, title: 'The two partitions live in different stores' },
  'write-in-doubt': { status: 409, title: 'A write of one of the partitions may still take effect' },
  'rules-differ': { status: 409, title: 'The proxies run other rules than this process' },
  'body-too-large': { status: 413, title: 'The body is larger than 1 MiB' },
  'unsupported-media-type': { status: 415, title: 'The body has a type that this call does not take' },
  'nothing-can-move': { status: 422, title: 'Nothing of the cohort can move' },
  'no-clean-way-back': { status: 422, title: 'Nothing can prove that going back would lose no write' },
  'not-confirmed': { status: 422, title: 'The order was not confirmed with the word it asks for' },
  'nothing-to-restore-from': { status: 422, title: 'Nobody has said what the ledger held' },
  'directory-lost': { status: 422, title: 'Nothing can bring back where the users belong' },
  'partition-not-from-user': { status: 422, title: 'The user alone does not name a partition' },
  'too-many-verifications': { status: 429, title: 'Too many verifications are running' },
  'too-many-watchers': { status: 503, title: 'Too many clients follow the events' },
  'drain-timeout': { status: 503, title: 'Not every proxy has ended its writes in time' },
  'not-settled': { status: 503, title: 'Redis or a store did not answer in the middle of the change' },
  'internal-error': { status: 500, title: 'The call failed inside onewriter' },
  'audit-failed': { status: 500, title: 'The change was made but could not be written to the audit log' },
  'not-available-yet': { status: 501, title: 'This call is not available yet' },
  'guard-silent': { status: 502, title: 'The guard of the app does not answer' },
  'store-failed': { status: 502, title: 'A store did not answer as it should' },
  'ledger-regressed': { status: 503, title: 'The ledger has lost data and must be restored' },
  'ledger-unreachable': { status: 503, title: 'The ledger cannot be reached' },
} as const satisfies Record<string, { status: number; title: string }>;

export type AdminProblemCode = keyof typeof adminProblems;

export interface AdminProblem {
  readonly code: AdminProblemCode;
  /** One sentence: what happened, what it means, what to do next. */
  readonly detail: string;
  /** Further members of the document, for example all blockers. */
  readonly members?: Readonly<Record<string, unknown>>;
}

export interface AdminProblemDocument {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: AdminProblemCode;
}

export function adminProblemDocument(problem: AdminProblem): AdminProblemDocument {
  const { status, title } = adminProblems[problem.code];
  return {
    ...problem.members,
    type: `urn:onewriter:problem:${problem.code}`,
    title,
    status,
    detail: problem.detail,
    code: problem.code,
  };
}

/** The desk's refusal of an order, with everything that stands in its way. */
export function problemOfRefusal(refusal: OrderRefusal): AdminProblem {
  return {
    code: refusal.refused,
    detail: refusal.detail,
    members: {
      ...(refusal.blockers === undefined ? {} : { blockers: refusal.blockers }),
      ...(refusal.blocked === undefined ? {} : { blocked: refusal.blocked }),
    },
  };
}
