/** What a figure was measured on: without it, no absolute figure means anything. */
import { cpus, loadavg, totalmem } from 'node:os';

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryMiB: number;
  readonly node: string;
  /** Of the minute before the measurement began. */
  readonly loadAverage: number;
}

/** As it was when this process began. */
export const machine: Machine = {
  processor: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  memoryMiB: Math.round(totalmem() / 1_048_576),
  node: process.version,
  loadAverage: loadavg()[0] ?? 0,
};

/** One line, and a second one where other work makes figures worthless. */
export function sayMachine({ processor, cores, memoryMiB, node, loadAverage }: Machine): string {
  const gibibytes = Math.round(memoryMiB / 1_024);
  const line = `${cores} x ${processor}, ${gibibytes} GiB, Node ${node}, load average ${loadAverage.toFixed(1)}\n`;
  if (loadAverage <= cores / 2) return line;
  return `${line}Other work is running: absolute figures and latencies of this run mean nothing.\n`;
}
