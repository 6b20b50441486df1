/** The Prometheus text format (version 0.0.4) of what the admin process knows. Names no partition. */
import { storeNames } from '../core/ownership.ts';
import { takeCensus } from './census.ts';
import { type AdminParts, censusParts, countDeadLetters } from './parts.ts';

interface Metric {
  readonly name: string;
  readonly help: string;
  readonly samples: readonly { readonly labels?: Readonly<Record<string, string>>; readonly value: number }[];
}

const freshForMs = 2_000;

/** The text; worked out at most every two seconds, since anybody who reaches the port can ask for it. */
export function createMetrics(parts: AdminParts): () => Promise<string> {
  let last: { readonly text: Promise<string>; readonly atMs: number } | undefined;
  return () => {
    const nowMs = performance.now();
    if (last === undefined || nowMs - last.atMs > freshForMs) {
      last = { text: measure(parts), atMs: nowMs };
      last.text.catch(() => {
        last = undefined;
      });
    }
    return last.text;
  };
}

async function measure(parts: AdminParts): Promise<string> {
  const [
    census,
    members,
    flips,
    deadLetters,
    lagMs,
    regression,
    backfills = [],
    webhooks,
    brakes = [],
    brakeOnAll,
    strays,
    halts,
    erasures = [],
  ] = await Promise.all([
    takeCensus(censusParts(parts)),
    parts.ledger.members(),
    parts.flips.flips(),
    countDeadLetters(parts),
    parts.copies.lagMs(),
    parts.ledger.regression(),
    parts.backfills?.(),
    parts.webhooks?.(),
    parts.brakes?.list(),
    parts.brakes?.onAll(),
    parts.strays?.list('open'),
    parts.halts?.read(),
    parts.erasures?.unfinished(),
  ]);
  const partitions = new Map<string, { labels: Record<string, string>; value: number }>();
  for (const name of census.names()) {
    const { owner, phase } = census.of(name);
    const sample = partitions.get(`${owner} ${phase}`) ?? { labels: { owner, phase }, value: 0 };
    sample.value += 1;
    partitions.set(`${owner} ${phase}`, sample);
  }
  const states = new Map<string, number>();
  for (const { state } of flips) states.set(state, (states.get(state) ?? 0) + 1);
  const inDoubt = members.reduce((sum, member) => sum + member.inDoubt, 0);
  const metrics: Metric[] = [
    { name: 'partitions', help: 'Partitions by owner and phase.', samples: [...partitions.values()] },
    { name: 'members', help: 'Proxy processes listed in the ledger.', samples: [{ value: members.length }] },
    { name: 'writes_in_doubt', help: 'Writes whose outcome is unknown.', samples: [{ value: inDoubt }] },
    {
      name: 'ledger_regressed',
      help: '1 while the ledger is known to have lost data: nothing is admitted and nothing moves.',
      samples: [{ value: regression === undefined ? 0 : 1 }],
    },
    {
      name: 'flips',
      help: 'Flips by state.',
      samples: [...states].map(([state, value]) => ({ labels: { state }, value })),
    },
    { name: 'dead_letters', help: 'Records that could not be copied.', samples: [{ value: deadLetters }] },
    {
      name: 'delete_brakes',
      help: 'Partitions of which many copies would be deleted at once: an operator must look.',
      samples: [{ value: brakes.length }],
    },
    {
      name: 'erasures_open',
      help: 'Erasures that are not done, by state.',
      samples: (['running', 'failed'] as const).map((state) => ({
        labels: { state },
        value: erasures.filter((one) => one.state === state).length,
      })),
    },
    {
      name: 'deletes_held',
      help: '1 while no copy is deleted, because too much was to be deleted over all partitions.',
      samples: [{ value: brakeOnAll === undefined ? 0 : 1 }],
    },
    {
      name: 'strays_open',
      help: 'Changes in a store that does not own the partition, not resolved yet.',
      samples: (['stray', 'late-write'] as const).map((what) => ({
        labels: { what },
        value: (strays ?? []).filter(({ lateWrite }) => (lateWrite === undefined) === (what === 'stray'))
          .length,
      })),
    },
    {
      name: 'copy_lag_seconds',
      help: 'How late the copies are; absent before the first complete poll.',
      samples: lagMs === undefined ? [] : [{ value: lagMs / 1_000 }],
    },
    {
      name: 'sync_paused',
      help: '1 while an operator has paused copies to the store.',
      samples: storeNames.map((store) => ({
        labels: { store },
        value: halts?.pauses.some(({ to }) => to === null || to === store) === true ? 1 : 0,
      })),
    },
    {
      name: 'store_failing',
      help: '1 while nothing is copied because the store fails whatever is asked of it.',
      samples: storeNames.map((store) => ({
        labels: { store },
        value: halts?.failingNow.some((one) => one.store === store) === true ? 1 : 0,
      })),
    },
    {
      name: 'backfill_running',
      help: '1 while a first copy of the kind is under way, 0 when the last one has ended.',
      samples: backfills.map(({ owner, kind, endedMs }) => ({
        labels: { owner, kind },
        value: endedMs === undefined ? 1 : 0,
      })),
    },
    {
      name: 'backfill_records',
      help: 'Records that the first copy of the kind has settled.',
      samples: backfills.map(({ owner, kind, records }) => ({ labels: { owner, kind }, value: records })),
    },
    {
      name: 'webhook_records_waiting',
      help: 'Records that webhooks named and that nobody has rung for yet.',
      samples: webhooks === undefined ? [] : [{ value: webhooks.waiting }],
    },
    {
      name: 'webhook_deliveries',
      help: 'Deliveries of webhooks by store and outcome.',
      samples: (webhooks?.deliveries ?? []).map(({ store, outcome, deliveries }) => ({
        labels: { store, outcome },
        value: deliveries,
      })),
    },
  ];
  const counters = Object.entries(parts.counters?.() ?? {});
  return [
    ...metrics.flatMap(linesOf),
    ...counters.map(([name, value]) => `onewriter_${name} ${value}`),
    '',
  ].join('\n');
}

function linesOf({ name, help, samples }: Metric): string[] {
  const full = `onewriter_${name}`;
  const lines = samples.map(({ labels = {}, value }) => {
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`);
    return pairs.length === 0 ? `${full} ${value}` : `${full}{${pairs.join(',')}} ${value}`;
  });
  return [`# HELP ${full} ${help}`, `# TYPE ${full} gauge`, ...lines];
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
