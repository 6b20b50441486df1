/** What was asked of the program, in one place, and what a measured figure is to it. */

interface Asked {
  readonly what: string;
  readonly unit: string;
  readonly limit: number;
  /** Left out: the less, the better. */
  readonly better?: 'more';
}

const asked = {
  'get-ratio': { what: 'GET of 150 B, of express + HPM', unit: 'x', limit: 2.5, better: 'more' },
  'post-ratio': { what: 'POST of 1 KiB, of express + HPM', unit: 'x', limit: 2.2, better: 'more' },
  'crowd-errors': { what: 'errors with 1,000 connections', unit: '', limit: 0 },
  'added-p99': { what: 'added p99, at half of what express + HPM takes', unit: 'ms', limit: 1 },
  'admission-time': {
    what: 'look-up, admission and end of a write, of 1,000 users among a million',
    unit: 'us',
    limit: 1,
  },
  'view-memory': { what: 'memory of the view per partition', unit: 'B', limit: 150 },
  'upload-memory': { what: 'growth while 1 GiB goes up', unit: 'MiB', limit: 64 },
  'download-memory': { what: 'growth while 1 GiB comes down', unit: 'MiB', limit: 64 },
  'connections-memory': { what: '10,000 idle connections, 1,000 held writes', unit: 'MiB', limit: 400 },
  'soak-live-growth': { what: 'growth of live memory under mixed traffic', unit: 'MiB/h', limit: 2 },
  'soak-growth': { what: 'growth under mixed traffic', unit: 'MiB/h', limit: 16 },
  'pause-p50': { what: 'write pause of a handoff, p50', unit: 'ms', limit: 10 },
  'pause-p99': { what: 'write pause of a handoff, p99', unit: 'ms', limit: 50 },
  'cohort-time': { what: 'flip of 10,000 partitions under load', unit: 's', limit: 20 },
  'cohort-failures': { what: 'failed or lost writes meanwhile', unit: '', limit: 0 },
  'coordinator-death': { what: 'answered after the fence deadline, at most', unit: 'ms', limit: 500 },
  'first-copy-rate': { what: 'records a second in a first copy', unit: '/s', limit: 3_000, better: 'more' },
  'first-copy-redis': { what: 'memory of Redis per record meanwhile', unit: 'B', limit: 200 },
  'copy-lag': { what: 'lag of a copy at 500 changes a second, p99', unit: 'ms', limit: 1_000 },
} as const satisfies Readonly<Record<string, Asked>>;

export type AskedName = keyof typeof asked;

export interface Judgement extends Asked {
  readonly name: AskedName;
  readonly value: number;
  readonly ok: boolean;
}

export function judge(name: AskedName, value: number): Judgement {
  const rule: Asked = asked[name];
  return { name, ...rule, value, ok: rule.better === 'more' ? value >= rule.limit : value <= rule.limit };
}

/** `asked <= 150 B: ok`, or `asked <= 150 B: short by 12`. */
export function sayJudgement({ unit, limit, better, value, ok }: Judgement): string {
  const sign = better === 'more' ? '>=' : '<=';
  const bound = `asked ${sign} ${figure(limit)}${unit === '' ? '' : ` ${unit}`}`;
  if (Number.isNaN(value)) return `${bound}: not measured`;
  return `${bound}: ${ok ? 'ok' : `short by ${figure(Math.abs(value - limit))}`}`;
}

/** Three digits that count, or whole. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}
