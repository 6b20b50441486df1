/** Says to operators that a write was sent and nobody knows what became of it. */
import { touchedBy } from '../core/ticket.ts';
import type { Passage } from './admit.ts';
import type { ProxyContext } from './serve.ts';

const pathMax = 200;

export function noteDoubt(
  context: ProxyContext,
  passage: Passage,
  write: { readonly method: string; readonly target: string; readonly why: string },
): void {
  const { ticket, store } = passage;
  context.counters.inDoubt += 1;
  if (ticket === undefined) return;
  // Without the query: it can carry credentials and other people's data.
  const path = (write.target.split('?', 1)[0] ?? '').slice(0, pathMax);
  const { method, why } = write;
  for (const { partition, epoch } of touchedBy(ticket)) {
    context.log('warn', 'write.in-doubt', { partition, store, method, path, why });
    context.doubts.note({ partition, store, epoch, method, path, why });
  }
}
