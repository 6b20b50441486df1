/** The admin API as an operator's script uses it. Orders to the admin may be repeated; users' writes never. */
import { pause } from '../../src/pause.ts';
import type { Store } from './words.ts';

export interface FlipReport {
  readonly id: string;
  readonly state: string;
  readonly detail: string;
  readonly committed: number;
  readonly aborted: number;
  readonly pending: number;
}

export interface AdminAnswer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

const answerWithinMs = 5_000;

export class AdminClient {
  readonly url: string;
  readonly token: string;

  constructor(url: string, token: string) {
    this.url = url;
    this.token = token;
  }

  /** Rejects when nobody answers in time. */
  async call(method: string, path: string, body?: object): Promise<AdminAnswer> {
    const answer = await fetch(`${this.url}/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${this.token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(answerWithinMs),
    });
    return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
  }

  /** Tries until the admin takes it, through restarts. A move back is given up when the admin refuses it. */
  async startFlip(
    cohort: string,
    partitions: readonly string[],
    withinMs: number,
    to: Store = 'app',
  ): Promise<FlipReport | undefined> {
    const endMs = performance.now() + withinMs;
    const reason = 'chaos';
    for (;;) {
      try {
        const known = partitions.map((partition) => ({ partition }));
        await this.call('POST', '/partitions/import', { reason, partitions: known });
        await this.call('PUT', `/cohorts/${cohort}`, { selection: { partitions }, reason });
        const started = await this.call('POST', '/flips', { cohort, to, reason });
        if (started.status === 202) return started.body as unknown as FlipReport;
        // An answer that was lost may have started it.
        const running = (await this.flips()).find((flip) => flip.cohort === cohort);
        if (running !== undefined) return running;
        if (to === 'legacy' && started.status === 422) return undefined;
      } catch {
        // It is being killed, cut off or started again.
      }
      if (performance.now() > endMs) return undefined;
      await pause(200);
    }
  }

  async flips(): Promise<(FlipReport & { readonly cohort: string })[]> {
    const { body } = await this.call('GET', '/flips?limit=1000');
    return (body['flips'] ?? []) as (FlipReport & { readonly cohort: string })[];
  }

  /** Undefined when it has not ended in time. */
  async untilEnded(id: string, withinMs: number): Promise<FlipReport | undefined> {
    const endMs = performance.now() + withinMs;
    for (;;) {
      try {
        const { status, body } = await this.call('GET', `/flips/${id}`);
        const flip = body as unknown as FlipReport;
        if (status === 200 && ['completed', 'aborted', 'failed'].includes(flip.state)) return flip;
        // As an operator who has looked: the next wave goes on without those that failed.
        if (flip.state === 'paused' && flip.detail.startsWith('wave-failed')) {
          await this.call('POST', `/flips/${id}/resume`, { reason: 'chaos' });
        }
      } catch {
        // As above.
      }
      if (performance.now() > endMs) return undefined;
      await pause(100);
    }
  }
}
