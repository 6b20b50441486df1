/** The memory of another process as the system sees it, from /proc; NaN where there is none. */
import { readFileSync, writeFileSync } from 'node:fs';

export function residentMiB(pid: number): number {
  return statusOf(pid, 'VmRSS');
}

/** The most since the last `forgetPeak`, or since it began. */
export function peakMiB(pid: number): number {
  return statusOf(pid, 'VmHWM');
}

export function forgetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
}

export function canSeeMemory(): boolean {
  return !Number.isNaN(residentMiB(process.pid));
}

function statusOf(pid: number, field: string): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? Number.NaN) / 1_024;
  } catch {
    return Number.NaN;
  }
}
