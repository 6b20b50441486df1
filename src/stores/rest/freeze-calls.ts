/** The calls by which a store takes a partition's right to write away, and gives it back. */
import type { RestConnectorConfig } from '../../config/schema.ts';
import { type CopyStamp, StoreFailure } from '../../core/ports.ts';
import type { CallBudget } from '../budget.ts';
import type { RestClient } from './client.ts';
import { callRequest } from './requests.ts';

export type FreezeWay = 'freeze' | 'unfreeze';

/** Throws StoreFailure; after `unavailable` nobody knows which of the calls have taken effect, or still will. */
export type FreezeCalls = (way: FreezeWay, stamp: CopyStamp, signal: AbortSignal) => Promise<void>;

export interface FreezeParts {
  readonly client: RestClient;
  readonly budget: CallBudget;
  readonly connector: Pick<RestConnectorConfig, 'freeze' | 'unfreeze' | 'write'>;
}

/** Undefined where the connector does not say how. */
export function freezeCalls({ client, budget, connector }: FreezeParts): FreezeCalls | undefined {
  const { freeze, unfreeze, write } = connector;
  if (freeze === undefined || unfreeze === undefined) return undefined;
  const headers = write?.headers ?? {};
  return async (way, stamp, signal) => {
    for (const call of way === 'freeze' ? freeze : unfreeze) {
      const request = callRequest(call, 'POST', { partition: stamp.partition });
      // Users wait for it: it counts, and does not wait for the sync's share.
      await budget.take(signal, { haste: 'at-once', partition: stamp.partition });
      const sent = { ...request, access: 'copy', asWriter: true, stamp, headers } as const;
      const { status } = await client.call(sent, signal);
      if (status !== 404 && status !== 410) continue;
      const what = `${client.store} has nothing at ${request.path} to ${way} ${stamp.partition} with`;
      throw new StoreFailure('rejected', `${what} (${status}); look at connector.${way}`, { status });
    }
  };
}
