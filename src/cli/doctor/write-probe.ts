/**
 * Can the credential with which a store is read write there, too? Only the store knows. It is asked, where the operator
 * says so, with one call that can change nothing: a DELETE of an id that nobody has, under a condition that no record
 * meets (RFC 9110, 13.1.1).
 */
import { randomUUID } from 'node:crypto';
import type { Config } from '../../config/schema.ts';
import { StoreFailure } from '../../core/ports.ts';
import type { OpenStore } from '../../stores/open.ts';
import type { RestClient } from '../../stores/rest/client.ts';
import { restConnectorOf } from '../../stores/rest/store.ts';
import { type Finding, lookMs, ok, sentenceOf, warn } from './finding.ts';

type Told =
  | { readonly writes: 'refused' | 'let-in'; readonly detail: string }
  | { readonly writes: 'unknown'; readonly detail: string };

/** `ask`: the operator agrees to the call. */
export async function checkWriteCredential(
  { stores, sync }: Config,
  { store, client }: Pick<OpenStore, 'store' | 'client'>,
  ask: boolean,
): Promise<Finding[]> {
  const setting = `stores.${store}.connector`;
  const check = `${setting}.headers`;
  const connector = restConnectorOf(stores[store].connector);
  if (connector === undefined || client === undefined) return [];
  const isSource = store === 'legacy';
  const written = !isSource || sync.rollbackWindow === 'on' || sync.rollbackWindow === true;
  if (written && connector.write === undefined) {
    if (!isSource) return [];
    const advice = `Give copies back a credential of their own (${setting}.write.headers); this one then need only read.`;
    return [warn(check, 'reads and copies back use one credential', advice)];
  }
  if (!ask) {
    const how = '"doctor --probe-writes" asks with one DELETE of an id that nobody has';
    return [ok(check, `nothing is written with them; whether they could write is not known (${how})`)];
  }
  const told = await askToWrite(connector.records, client);
  const advice = `Use a credential that can only read (${check}).`;
  switch (told.writes) {
    case 'refused':
      return [ok(check, `cannot write, as it should be: ${told.detail}`)];
    case 'let-in':
      return [
        warn(check, `can write, as it seems, though nothing is written with them: ${told.detail}`, advice),
      ];
    case 'unknown':
      return [warn(check, `whether they could write cannot be known: ${told.detail}`, advice)];
  }
}

async function askToWrite(
  records: NonNullable<ReturnType<typeof restConnectorOf>>['records'],
  client: RestClient,
): Promise<Told> {
  // Only where the id is a part of the path: a query that a store does not understand could mean all records.
  const path = Object.values(records)
    .map((record) => (record.delete ?? record.get).path)
    .find((template) => template.split('?')[0]?.includes('{id}') === true);
  if (path === undefined) return { writes: 'unknown', detail: 'no path of a single record is configured' };
  const id = `onewriter-never-${randomUUID()}`;
  const target = path.replaceAll('{id}', id).replaceAll('{partition}', 'onewriter-never');
  const call = {
    method: 'DELETE',
    path: target,
    access: 'read',
    stamp: { partition: '', epoch: 0 },
  } as const;
  const what = `DELETE ${target}`;
  try {
    const headers = { 'if-match': '"onewriter-never"' };
    const { status } = await client.call({ ...call, headers }, AbortSignal.timeout(lookMs));
    return { writes: 'let-in', detail: `${client.store} answered ${what} with ${status}` };
  } catch (error) {
    const detail = sentenceOf(error);
    if (!(error instanceof StoreFailure)) return { writes: 'unknown', detail };
    if (error.kind === 'denied' || error.kind === 'refused-by-guard') return { writes: 'refused', detail };
    // It looked at the condition, so it had let the call in.
    return { writes: error.status === 412 ? 'let-in' : 'unknown', detail };
  }
}
