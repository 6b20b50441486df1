/** What may be shaped: headers that carry the protocol's own meaning may not, and settings must fit each other. */
import type { Reporter } from './problems.ts';
import type { ReadableConfig } from './sections.ts';
import type { HeaderChanges } from './shaping.ts';

/** They belong to one connection, or frame the message: the proxy writes them itself. */
const untouchable: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
  'content-length',
  'expect',
]);

/** What a request is was decided before: no header may make something else of it at the store. */
const decided: ReadonlyMap<string, string> = new Map([
  ...['x-http-method-override', 'x-method-override', 'x-http-method'].map(
    (name) => [name, 'must not be set: a request would change records that was judged to read them'] as const,
  ),
  ...['x-original-url', 'x-rewrite-url', 'x-original-host'].map(
    (name) => [name, 'must not be set: a request would go to another path than was judged'] as const,
  ),
  ['destination', 'must not be set: a MOVE or COPY would go to another place than was judged'],
  ['idempotency-key', 'must not be set: the store would take all writes for one'],
]);

export function shapingFindings({ stores }: ReadableConfig, report: Reporter): void {
  for (const name of ['legacy', 'app'] as const) {
    const { headers, answerHeaders, tls, url } = stores[name];
    const place = `stores.${name}`;
    if (headers !== undefined) {
      checkChanges(`${place}.headers`, headers, report);
      checkDecided(`${place}.headers.set`, headers, report);
    }
    if (answerHeaders !== undefined) checkChanges(`${place}.answerHeaders`, answerHeaders, report);
    if (tls === undefined) continue;
    if (url !== undefined && !/^https:/i.test(url)) {
      report.problem(`${place}.tls`, `needs an https address in ${place}.url`);
    }
    if ((tls.cert === undefined) !== (tls.key === undefined)) {
      report.problem(`${place}.tls`, 'needs both cert and key, or neither');
    }
  }
}

type Changes = Readonly<{ set: Readonly<HeaderChanges['set']>; remove: readonly string[] }>;

function checkChanges(place: string, { set, remove }: Changes, report: Reporter): void {
  const seen = new Set<string>();
  const named = [
    ...Object.keys(set).map((name) => [`${place}.set.${name}`, name] as const),
    ...remove.map((name, at) => [`${place}.remove[${at}]`, name] as const),
  ];
  for (const [path, name] of named) {
    const canonical = canonicalName(name);
    const why = whyUntouchable(name);
    if (why !== undefined) report.problem(path, why);
    if (seen.has(canonical)) report.problem(path, 'names a header that is named above already');
    seen.add(canonical);
  }
  for (const [name, value] of Object.entries(set)) {
    if (/^[\t\u0020-\u007e\u0080-\u00ff]*$/.test(value)) continue;
    report.problem(
      `${place}.set.${name}`,
      'has a value with a line break or another character no header may have',
    );
  }
}

function checkDecided(place: string, { set }: Changes, report: Reporter): void {
  for (const name of Object.keys(set)) {
    const why = decided.get(canonicalName(name));
    if (why !== undefined) report.problem(`${place}.${name}`, why);
  }
}

/** Why nobody but the proxy writes this header to a store, if so. */
export function whyUntouchable(name: string): string | undefined {
  const canonical = canonicalName(name);
  if (canonical === 'host') return 'is not changed here; use host';
  if (canonical.startsWith('onewriter-')) return 'is a header that only onewriter itself writes';
  if (untouchable.has(canonical) || canonical.startsWith('sec-websocket-')) {
    return 'belongs to the connection or frames the message; the proxy writes it itself';
  }
  return undefined;
}

/** Gateways that map headers to variables read X_Name as X-Name. */
function canonicalName(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9]/g, '-');
}
