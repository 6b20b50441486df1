/** Why a connection to a store could not be opened, in the words of who was to send over it. */
import { ConnectTimeout, TlsFailure } from '../stores/connect.ts';
import type { FailedStage } from './upstream.ts';

/** This machine has no file, port or memory left for one more: that says nothing about the store. */
const exhausted = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EADDRNOTAVAIL']);

export function stageOfFault(fault: Error | undefined): FailedStage {
  if (fault instanceof ConnectTimeout) return 'connect-timeout';
  if (fault instanceof TlsFailure) return 'tls';
  return fault !== undefined && isExhausted(fault) ? 'exhausted' : 'refused';
}

/** Of several addresses: of all of them, or one may have refused. */
function isExhausted(fault: Error & { readonly code?: unknown }): boolean {
  if (fault instanceof AggregateError) {
    const each: readonly unknown[] = fault.errors;
    return each.every((one) => one instanceof Error && isExhausted(one));
  }
  return typeof fault.code === 'string' && exhausted.has(fault.code);
}
