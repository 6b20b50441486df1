/** The rest connector of one store, as its configuration says, without the rest of the program. */
import { configSchema } from '../../src/config/schema.ts';
import { StoreFailure, type ListScope, type Page } from '../../src/core/ports.ts';
import type { StoreRecord } from '../../src/core/records.ts';
import { unlimited } from '../../src/stores/budget.ts';
import { createRestStore, type RestStore } from '../../src/stores/rest/store.ts';

export const never = new AbortController().signal;

export function restStoreOf(url: string, connector: Readonly<Record<string, unknown>>): RestStore {
  const config = configSchema.parse({
    secret: 'a-secret-of-the-rest-tests',
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    stores: {
      legacy: { url, connector: { kind: 'rest', timeoutMs: 2_000, ...connector } },
      app: { url, connector: { kind: 'rest', records: {} } },
    },
  });
  return createRestStore('legacy', config, unlimited);
}

export async function pagesOf({ reader }: RestStore, scope: ListScope = {}, kind = 'item'): Promise<Page[]> {
  const pages: Page[] = [];
  for await (const page of reader.pages(kind, scope, never)) pages.push(page);
  return pages;
}

export async function idsOf(store: RestStore, scope: ListScope = {}): Promise<string[]> {
  return (await recordsOf(store, scope)).map(({ id }) => id);
}

export async function recordsOf(store: RestStore, scope: ListScope = {}): Promise<StoreRecord[]> {
  return (await pagesOf(store, scope)).flatMap(({ records }) => records);
}

/** Fails the test where the work succeeds, or fails in another way. */
export async function failureOf(work: Promise<unknown>): Promise<StoreFailure> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof StoreFailure) return error;
  throw new Error('expected a StoreFailure', { cause: error });
}
