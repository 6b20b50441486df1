/**
 * Rules of the protocol, each taken away once: the exploration must find what goes wrong without it. A rule of
 * src/core is taken out of a copy of its source; a rule that lives elsewhere is switched off in the model.
 *
 *   node test/model/mutants.ts [NAME …]
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { coreDirectory } from './core.ts';
import { type Exploration, sentence } from './explore.ts';
import { exploreApart } from './program.ts';
import type { Rules } from './types.ts';

export interface Edit {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export interface Mutant {
  readonly name: string;
  readonly scenario: string;
  readonly edits?: readonly Edit[];
  readonly off?: keyof Rules;
  /** The test of the code that keeps a rule which lives outside src/core; absent where none breaks without it. */
  readonly enforcedIn?: { readonly file: string; readonly title: string };
}

export const mutants: readonly Mutant[] = [
  {
    name: 'the catch-up does not wait for the drain',
    scenario: 'fence',
    edits: [
      { file: 'handoff.ts', find: 'if (state.awaiting.length > 0) return stay(state);\n', replace: '' },
    ],
  },
  {
    name: 'the old position is read before the drain (Vitess #16563)',
    scenario: 'fence-alone',
    off: 'positionReadAfterDrain',
    enforcedIn: {
      file: 'test/integration/handoff.test.ts',
      title: 'reads the old position only after every write in flight has ended (Vitess #16563)',
    },
  },
  {
    name: 'the catch-up does not wait until lists show the last write',
    scenario: 'fence-alone',
    edits: [
      {
        file: 'handoff.ts',
        find: 'Math.max(nowMs, state.newestWriteMs + settings.feedDelayMs)',
        replace: 'nowMs',
      },
    ],
  },
  {
    name: 'a fence is committed after its deadline',
    scenario: 'fence-alone',
    edits: [
      { file: 'ownership.ts', find: 'if (nowMs >= current.deadlineMs) {', replace: 'if (nowMs < 0) {' },
    ],
  },
  {
    name: 'a write in doubt is no reason to refuse a fence',
    scenario: 'in-doubt',
    edits: [
      {
        file: 'member.ts',
        find: 'const doubtful = unsettled.length > 0;',
        replace: 'const doubtful = false;',
      },
    ],
  },
  {
    name: 'a commit finds the fence of another attempt',
    scenario: 'coordinators',
    edits: [
      {
        file: 'ownership.ts',
        find: '      if (current.attempt !== order.attempt) return otherAttempt(current.attempt, order.attempt);\n      if (nowMs >= current.deadlineMs) {',
        replace: '      if (nowMs >= current.deadlineMs) {',
      },
    ],
  },
  {
    name: 'an acknowledgement of an older attempt counts',
    scenario: 'again',
    off: 'acknowledgementNamesAttempt',
  },
  {
    name: 'the members are listed before the fence',
    scenario: 'joiner',
    off: 'membersListedAfterFence',
    enforcedIn: {
      file: 'test/integration/handoff.test.ts',
      title: 'waits for a member that registered after the fence was looked at, where it is listed',
    },
  },
  {
    name: 'a renewal counts before the view has applied the version that it names',
    scenario: 'gone-upload',
    edits: [
      {
        file: 'member.ts',
        find: 'if (renewal === undefined || this.#view.position.version < renewal.needsVersion) return [];',
        replace: 'if (renewal === undefined) return [];',
      },
    ],
  },
  {
    name: 'a member loads the snapshot before it registers, and renews without having applied it',
    scenario: 'joiner',
    edits: [
      {
        file: 'member.ts',
        find: "return [{ kind: 'register' }];",
        replace: "return [{ kind: 'load-snapshot' }, { kind: 'register' }];",
      },
      {
        file: 'member.ts',
        find: "registered(): MemberEffect[] {\n    return [{ kind: 'load-snapshot' }];",
        replace: 'registered(): MemberEffect[] {\n    return [];',
      },
      {
        file: 'member.ts',
        find: 'if (renewal === undefined || this.#view.position.version < renewal.needsVersion) return [];',
        replace: 'if (renewal === undefined) return [];',
      },
    ],
  },
  {
    name: 'a release admits writes before it is durable',
    scenario: 'failover',
    edits: [
      {
        file: 'member.ts',
        find: 'if (this.#unconfirmed.has(partition) || this.#confirmed.version < this.#snapshotVersion) {',
        replace: 'if (this.#confirmed.version < 0) {',
      },
    ],
  },
  {
    name: 'a heartbeat counts that no replica has',
    scenario: 'failover',
    off: 'heartbeatIsDurable',
    enforcedIn: {
      file: 'test/integration/ledger-replica.test.ts',
      title: 'a release is not admitted under before the replica has it',
    },
  },
  {
    name: 'positions are compared by version alone',
    scenario: 'lost-branch',
    off: 'positionsComparedById',
    enforcedIn: {
      file: 'test/integration/ledger.test.ts',
      title: 'to the same version with another change is told by the random id',
    },
  },
  {
    name: 'a change follows on any change with the version before',
    scenario: 'lost-branch',
    edits: [
      {
        file: 'view.ts',
        find: "if (!next || change.previousId !== this.#position.id) return 'gap';",
        replace: "if (!next) return 'gap';",
      },
    ],
  },
  {
    name: 'a view that goes back goes on following, and keeps its lease',
    scenario: 'failover-calm',
    edits: [
      { file: 'member.ts', find: 'if (this.#viewIsAhead) return [];\n', replace: '' },
      {
        file: 'member.ts',
        find: 'this.#viewIsAhead = true;\n    this.loseLease();',
        replace: 'this.#viewIsAhead = true;',
      },
      {
        file: 'view.ts',
        find: "if (!next || change.previousId !== this.#position.id) return 'gap';",
        replace: "if (!next) return 'gap';",
      },
    ],
  },
  {
    name: 'a guard is told of a fence that a failover can lose',
    scenario: 'failover-app',
    off: 'fenceIsConfirmedFirst',
  },
  {
    name: 'an attempt whose commit was lost does not abort',
    scenario: 'failover-app',
    edits: [
      {
        file: 'handoff.ts',
        find: "(state.step === 'releasing' && code === 'commit-refused')",
        replace: 'false',
      },
    ],
  },
  {
    name: 'a lease has no margin for slow clocks',
    scenario: 'gone-slow-clock',
    edits: [
      {
        file: 'lease.ts',
        find: 'const lengthMs = this.#settings.leaseMs - this.#settings.marginMs;',
        replace: 'const lengthMs = this.#settings.leaseMs;',
      },
    ],
  },
  {
    name: 'the write timeout is not total',
    scenario: 'gone-slow-clock',
    off: 'writeTimeoutIsTotal',
    enforcedIn: {
      file: 'test/integration/proxy-failures.test.ts',
      title: 'a write that timed out is reset, so that nothing of it is delivered later',
    },
  },
  {
    name: 'a member counts as gone before its writes have settled',
    scenario: 'gone-slow-clock',
    off: 'goneAfterWritesSettled',
    enforcedIn: {
      file: 'test/faults/chaos.test.ts',
      title: 'is waited for, taken for gone, and admits nothing under the old owner when it wakes',
    },
  },
  {
    name: 'a member that is gone takes what it knew of its last write with it',
    scenario: 'gone-in-the-fence',
    edits: [
      {
        file: 'handoff.ts',
        find: '{ ...without(state, event.member), newestWriteMs: nowMs }',
        replace: 'without(state, event.member)',
      },
    ],
  },
  {
    name: 'a lease ignores the wall clock',
    scenario: 'gone-suspended',
    edits: [
      {
        file: 'lease.ts',
        find: 'return now.monotonicMs >= until.monotonicMs || now.wallMs >= until.wallMs;',
        replace: 'return now.monotonicMs >= until.monotonicMs;',
      },
    ],
  },
  {
    name: 'an upload goes on under a later lease',
    scenario: 'gone-upload',
    edits: [
      {
        file: 'member.ts',
        find: 'return this.#lease.held(now) && ticket.leaseTerm === this.#lease.term;',
        replace: 'return this.#lease.held(now);',
      },
    ],
  },
  {
    name: 'an upload goes on without a lease',
    scenario: 'gone-upload',
    edits: [
      {
        file: 'member.ts',
        find: 'return this.#lease.held(now) && ticket.leaseTerm === this.#lease.term;',
        replace: 'return true;',
      },
    ],
  },
  {
    name: 'a restarted process takes the id of the one that died',
    scenario: 'crash',
    off: 'memberIdPerRegistration',
    enforcedIn: {
      file: 'test/faults/chaos.test.ts',
      title: 'is waited for, taken for gone, and admits nothing under the old owner when it wakes',
    },
  },
  {
    name: 'the guard of the old owner is not advanced',
    scenario: 'frozen-write',
    edits: [
      {
        file: 'handoff.ts',
        find: '...(settings.guarded[from] || unwritten ? [{ store: from, epoch }] : []),',
        replace: '',
      },
    ],
  },
  {
    name: 'the guard takes writes of older epochs',
    scenario: 'frozen-write',
    edits: [
      { file: 'guard.ts', find: "if (epoch < row.epoch) return refuse('stale-epoch');\n", replace: '' },
    ],
  },
  {
    name: 'the guard of the new owner does not hear of the fence',
    scenario: 'frozen-copy',
    edits: [
      {
        file: 'handoff.ts',
        find: '...(settings.guarded[to] && !unwritten ? [{ store: to, epoch: epoch - 1 }] : []),',
        replace: '',
      },
    ],
  },
  {
    name: 'the guard of the new owner is not sealed',
    scenario: 'frozen-copy',
    edits: [
      {
        file: 'handoff.ts',
        find: 'if (!settings.guarded[state.to]) return commit({ ...state, proof });\n',
        replace: 'if (settings.feedDelayMs >= 0) return commit({ ...state, proof });\n',
      },
    ],
  },
  {
    name: 'copies are not over when the lock is',
    scenario: 'worker-unguarded',
    off: 'copyLockOutlivesCopies',
    enforcedIn: {
      file: 'test/integration/sync-apply.test.ts',
      title: 'a lock that was lost in the meantime is noticed before the write',
    },
  },
  {
    name: 'a copy is applied by what was known when the record was read',
    scenario: 'worker-unguarded',
    off: 'copyAskedAtApply',
    enforcedIn: {
      file: 'test/integration/sync-apply.test.ts',
      title:
        'the epoch is checked at the moment of apply: a partition that moved while the owner was read is not written',
    },
  },
  {
    name: 'a write over several partitions is in flight for the first alone',
    scenario: 'joint',
    edits: [
      {
        file: 'member.ts',
        find: '    for (const name of also) this.#activity.begin(name);\n',
        replace: '',
      },
      {
        file: 'member.ts',
        find: 'const { partition, owner, also = [] } = ticket;',
        replace: 'const { partition, owner } = ticket;\n    const also: { partition: string }[] = [];',
      },
    ],
  },
  {
    name: 'the owners of the partitions that a write touches are not compared',
    scenario: 'joint',
    edits: [
      {
        file: 'member.ts',
        find: 'if (owners.some(({ owner }) => owner !== owners[0]?.owner))',
        replace: 'if (owners.length < 0)',
      },
    ],
  },
  {
    name: 'a write is held by the fence of its first partition alone',
    scenario: 'joint',
    edits: [
      {
        file: 'member.ts',
        find: '    for (const name of also) because ??= this.#whyHeld(name);\n',
        replace: '',
      },
    ],
  },
  {
    name: 'a write over several partitions is in doubt for the first alone',
    scenario: 'joint-in-doubt',
    edits: [
      {
        file: 'member.ts',
        find: 'this.#activity.end(other.partition, owner, outcome, now.monotonicMs);',
        replace: "this.#activity.end(other.partition, owner, 'ended', now.monotonicMs);",
      },
    ],
  },
  {
    name: 'the guard checks the first partition of a request alone',
    scenario: 'joint-frozen',
    off: 'guardChecksAll',
    enforcedIn: {
      file: 'test/integration/guard.test.ts',
      title: 'is refused, and leaves no mark anywhere, where the row of any one of them refuses it',
    },
  },
  {
    name: 'that a write joins partitions is noted when it has been answered',
    scenario: 'linked-crash',
    off: 'linkNotedFirst',
    enforcedIn: {
      file: 'test/integration/proxy-partitions.test.ts',
      title: 'are noted before the first such write is admitted, and not again',
    },
  },
  {
    name: 'links are looked at before the fence, and not again',
    scenario: 'linked',
    off: 'linksReadBehindDrain',
    enforcedIn: {
      file: 'test/integration/flip-links.test.ts',
      title: 'does not commit one that was joined after its preflight: the last look is behind the drain',
    },
  },
];

/** A copy of src/core with the mutant's edits. Throws where a text is not found exactly once. */
export function mutatedCore(mutant: Mutant): string {
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-mutant-'));
  cpSync(coreDirectory, directory, { recursive: true });
  for (const { file, find, replace } of mutant.edits ?? []) {
    const path = join(directory, file);
    const source = readFileSync(path, 'utf8');
    const times = source.split(find).length - 1;
    if (times !== 1) {
      throw new Error(
        `"${mutant.name}" must be renewed: its text is ${times} times in ${file}, not once:\n${find}`,
      );
    }
    writeFileSync(
      path,
      source.replace(find, () => replace),
    );
  }
  return directory;
}

export async function exploreMutant(mutant: Mutant, states: number): Promise<Exploration> {
  const core = mutatedCore(mutant);
  try {
    return await exploreApart({ scenario: mutant.scenario, states, core, off: mutant.off });
  } finally {
    rmSync(core, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const wanted = process.argv.slice(2);
  for (const mutant of mutants) {
    if (wanted.length > 0 && !wanted.some((part) => mutant.name.includes(part))) continue;
    process.stdout.write(`== ${mutant.name}\n${sentence(await exploreMutant(mutant, 400_000))}\n`);
  }
}
