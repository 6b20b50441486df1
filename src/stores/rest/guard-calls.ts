/** The signed calls to a store's guard (docs/guard.md): what would it say, advance, and seal. */
import { z } from 'zod';
import type { GuardAccess } from '../../core/guard.ts';
import type { StoreName } from '../../core/ownership.ts';
import { type CopyStamp, type GuardAnswer, type GuardCalls, StoreFailure } from '../../core/ports.ts';
import type { Json } from '../../core/records.ts';
import type { RestClient } from './client.ts';

/** Guards in other languages may say less, or use codes of their own: what counts is that they answered. */
const answerSchema = z.object({
  epoch: z.int().min(0).optional().catch(undefined),
  owner: z.enum(['legacy', 'app']).optional().catch(undefined),
  closed: z.boolean().optional().catch(undefined),
  written: z.boolean().optional().catch(undefined),
  accept: z.boolean().optional().catch(undefined),
  code: z.enum(['stale-epoch', 'legacy-owns', 'app-owns', 'closed-epoch']).optional().catch(undefined),
});

export class RestGuardCalls implements GuardCalls {
  readonly #clients: ReadonlyMap<StoreName, RestClient>;

  /** `clients` holds the stores that have a guard; a call for another one is refused. */
  constructor(clients: ReadonlyMap<StoreName, RestClient>) {
    this.#clients = clients;
  }

  async verdict(
    store: StoreName,
    stamp: CopyStamp,
    access: GuardAccess,
    signal: AbortSignal,
  ): Promise<GuardAnswer> {
    const answer = answerOf(await this.#call(store, 'verdict', stamp, access, signal));
    if (answer !== undefined) return answer;
    throw new StoreFailure('bad-answer', `the guard of ${store} gave a verdict that is no JSON object`);
  }

  async advance(store: StoreName, stamp: CopyStamp, signal: AbortSignal): Promise<GuardAnswer | undefined> {
    return answerOf(await this.#call(store, 'advance', stamp, 'copy', signal));
  }

  async seal(store: StoreName, stamp: CopyStamp, signal: AbortSignal): Promise<void> {
    await this.#call(store, 'seal', stamp, 'copy', signal);
  }

  async #call(
    store: StoreName,
    name: 'verdict' | 'advance' | 'seal',
    stamp: CopyStamp,
    access: GuardAccess,
    signal: AbortSignal,
  ): Promise<Json | undefined> {
    const client = this.#clients.get(store);
    if (client === undefined) throw new StoreFailure('rejected', `${store} is configured without a guard`);
    const path = `/.well-known/onewriter/guard/${name}`;
    const body = { partition: stamp.partition, epoch: stamp.epoch };
    const answer = await client.call({ method: 'POST', path, body, access, stamp, ofGuard: true }, signal);
    if (answer.status === 404 || answer.status === 410) {
      throw new StoreFailure(
        'rejected',
        `${store} does not answer the guard call ${path}; it cannot be flipped to or from without its guard`,
      );
    }
    return answer.body;
  }
}

function answerOf(body: Json | undefined): GuardAnswer | undefined {
  const parsed = answerSchema.safeParse(body);
  if (!parsed.success) return undefined;
  const { epoch, owner, closed, written, accept, code } = parsed.data;
  return {
    ...(epoch === undefined ? {} : { epoch }),
    ...(owner === undefined ? {} : { owner }),
    ...(closed === undefined ? {} : { closed }),
    ...(written === undefined ? {} : { written }),
    ...(accept === undefined ? {} : { accept }),
    ...(code === undefined ? {} : { code }),
  };
}
