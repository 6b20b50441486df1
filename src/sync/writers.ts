/**
 * The stores that copies may go to. Copies flow one way, from legacy to the app; a writer for legacy is
 * never made, so there is nothing that could write there.
 */
import type { StoreName } from '../core/ownership.ts';
import type { CopyWriter } from '../core/ports.ts';

export type Writers = ReadonlyMap<StoreName, CopyWriter>;

/** Throws when the configuration asks for a rollback window. */
export function copyTargets(rollbackWindow: 'off' | 'on' | boolean): readonly ['app'] {
  if (rollbackWindow !== 'off' && rollbackWindow !== false) {
    throw new Error('sync.rollbackWindow is not available yet; leave it off: copies go to the app only');
  }
  return ['app'];
}

export function makeWriters(
  stores: Readonly<Record<StoreName, { makeWriter(): CopyWriter }>>,
  rollbackWindow: 'off' | 'on' | boolean,
): Writers {
  return new Map(copyTargets(rollbackWindow).map((target) => [target, stores[target].makeWriter()]));
}
