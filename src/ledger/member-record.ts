/** What a member writes about itself into the ledger's list with every heartbeat. */
import { hostname } from 'node:os';
import type { MemberSettings } from '../core/member.ts';
import type { MemberRecord } from '../core/ports.ts';
import type { Rules } from '../core/view.ts';

export function recordOf(
  id: string,
  sequence: number,
  settings: MemberSettings & { readonly rules: Rules; readonly writeTimeoutMs: number },
  state: Pick<MemberRecord, 'appliedVersion' | 'inFlight' | 'inDoubt'>,
): MemberRecord {
  return {
    ...{ id, sequence, host: hostname(), pid: process.pid, ...state },
    configHash: settings.rules.hash,
    ...(settings.unexpirable === true ? { unexpirable: true } : {}),
    leaseMs: settings.leaseMs,
    writeTimeoutMs: settings.writeTimeoutMs,
    settleMs: Math.max(settings.settleMs.legacy, settings.settleMs.app),
  };
}
