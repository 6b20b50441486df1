/**
 * The stores that copies may go to. Without a rollback window copies flow one way, from legacy to the app: a writer for
 * legacy is never made, so there is nothing that could write there.
 */
import type { StoreName } from '../core/ownership.ts';
import type { CopyWriter } from '../core/ports.ts';
import { leftStore } from './rollback-window.ts';

export type Writers = ReadonlyMap<StoreName, CopyWriter>;

export type WindowSetting = 'off' | 'on' | boolean;

export function hasWindow(rollbackWindow: WindowSetting): boolean {
  return rollbackWindow === 'on' || rollbackWindow === true;
}

export function copyTargets(rollbackWindow: WindowSetting): readonly StoreName[] {
  return hasWindow(rollbackWindow) ? ['app', leftStore] : ['app'];
}

export function makeWriters(
  stores: Readonly<Record<StoreName, { makeWriter(): CopyWriter }>>,
  rollbackWindow: WindowSetting,
): Writers {
  return new Map(copyTargets(rollbackWindow).map((target) => [target, stores[target].makeWriter()]));
}
