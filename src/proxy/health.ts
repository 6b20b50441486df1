/** What the proxy says of itself: whether it may admit writes, and else why not. */
import type { ServerResponse } from 'node:http';
import type { WriteGate } from '../core/ports.ts';

export function answerHealth(
  gate: Pick<WriteGate, 'leaseLeftMs' | 'trouble'>,
  response: ServerResponse,
): void {
  const leaseLeftMs = gate.leaseLeftMs();
  const healthy = leaseLeftMs > 0;
  const state = healthOf(healthy, gate.trouble());
  const body = Buffer.from(JSON.stringify(healthy ? { ...state, leaseLeftMs } : state));
  response.writeHead(healthy ? 200 : 503, {
    'Content-Type': 'application/json',
    'Content-Length': body.byteLength,
    'Cache-Control': 'no-store',
  });
  response.end(body);
}

function healthOf(healthy: boolean, trouble: string | undefined): { status: string; detail?: string } {
  if (healthy) return trouble === undefined ? { status: 'ok' } : { status: 'degraded', detail: trouble };
  if (trouble?.startsWith('ledger-regressed') === true) {
    const what = trouble.slice('ledger-regressed: '.length);
    const detail = `The ledger lost data (${what}): this proxy refuses writes until an operator restores it, and still serves reads.`;
    return { status: 'ledger-regressed', detail };
  }
  const detail = 'This proxy has lost touch with the ledger: it refuses writes and still serves reads.';
  return { status: 'lease-lapsed', detail };
}
