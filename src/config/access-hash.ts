/** A fingerprint of what decides who may do what, where and under which times: processes must agree on it. */
import { createHash } from 'node:crypto';
import type { Config } from './schema.ts';

/**
 * SHA-256 in hex over canonical JSON (keys sorted, no white space; after RFC 8785, whose rules for numbers
 * JSON.stringify follows). Two processes with the same hash treat every request alike. Secrets go in only
 * as hashes of their own.
 */
export function accessHash(config: Config): string {
  const deciding = {
    identity: config.identity.map(withoutSecrets),
    partition: config.partition,
    partitionNames: config.partitionNames,
    routes: config.routes,
    pathEndings: config.pathEndings,
    anonymousReads: config.anonymousReads,
    newPartitions: config.newPartitions,
    leaseMs: config.ledger.leaseMs,
    stores: Object.entries(config.stores).map(([name, store]) => {
      const { url, guard, settleMs, writeTimeoutMs } = store;
      return { name, url, guard, settleMs, writeTimeoutMs, ...addressing(store) };
    }),
    secret: sha256(config.secret),
  };
  return sha256(canonical(deciding));
}

/** Behind one address there can be several stores: which one is meant, and as whom, decides who may do what. */
function addressing({ host, tls, headers }: Config['stores']['app']): object {
  const set = Object.entries(headers?.set ?? {}).map(([name, value]) => [name.toLowerCase(), sha256(value)]);
  const remove = (headers?.remove ?? []).map((name) => name.toLowerCase()).toSorted();
  return {
    ...(host === 'store' ? {} : { host }),
    ...(tls?.servername === undefined ? {} : { servername: tls.servername }),
    ...(set.length + remove.length === 0 ? {} : { headers: { set: Object.fromEntries(set), remove } }),
  };
}

function withoutSecrets(rule: Config['identity'][number]): unknown {
  const jwt = 'jwt' in rule ? rule.jwt : undefined;
  const introspect = 'introspect' in rule ? rule.introspect : undefined;
  const headers = Object.entries(introspect?.headers ?? {}).map(([name, value]) => [name, sha256(value)]);
  return {
    ...rule,
    ...(jwt?.secret === undefined ? {} : { jwt: { ...jwt, secret: sha256(jwt.secret) } }),
    ...(headers.length === 0 ? {} : { introspect: { ...introspect, headers: Object.fromEntries(headers) } }),
  };
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`);
  return `{${members.join(',')}}`;
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
