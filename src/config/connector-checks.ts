/** Connectors: placeholders that will be filled, paging that can work, kinds that both stores have. */
import { postgresFindings } from './postgres-checks.ts';
import type { Reporter } from './problems.ts';
import type { Config } from './schema.ts';
import { checkFreeze, checkRecordKind } from './rest-checks.ts';
import type { ReadableConfig } from './sections.ts';

type Connector = NonNullable<Config['stores']['legacy']['connector']>;
type RestConnector = Extract<Connector, { readonly kind: 'rest' }>;

export function connectorFindings(config: ReadableConfig, report: Reporter): void {
  const { legacy, app } = config.stores;
  checkWebhookListener(config, report);
  checkWindow(config, report);
  for (const [name, store] of [
    ['legacy', legacy],
    ['app', app],
  ] as const) {
    if (store.connector?.kind === 'postgres') postgresFindings(`stores.${name}`, store, report);
    if (store.connector?.kind !== 'rest') continue;
    for (const [kind, record] of Object.entries(store.connector.records)) {
      checkRecordKind(`stores.${name}.connector.records.${kind}`, record, report);
    }
    checkWebhook(`stores.${name}.connector`, store.connector, report);
    checkFreeze(`stores.${name}.connector`, store.connector, report);
  }
  const [old, young] = [kindsOf(legacy.connector), kindsOf(app.connector)];
  if (old === undefined || young === undefined) return;
  checkBothHave('stores.app.connector.records', old, young, report);
  checkBothHave('stores.legacy.connector.records', young, old, report);
}

/** Undefined where there is no connector, or none with kinds of records that are known here. */
function kindsOf(connector: Connector | undefined): readonly string[] | undefined {
  return connector?.kind === 'rest' || connector?.kind === 'postgres'
    ? Object.keys(connector.records)
    : undefined;
}

/** Before anything moves: a way back that turns out not to exist afterwards would be none. */
function checkWindow({ sync, stores }: ReadableConfig, report: Reporter): void {
  if (sync.rollbackWindow !== 'on' && sync.rollbackWindow !== true) return;
  const { connector } = stores.legacy;
  if (connector === undefined) {
    report.problem('sync.rollbackWindow', 'needs stores.legacy.connector: copies go back through it');
    return;
  }
  const records = connector.kind === 'rest' ? connector.records : {};
  for (const [kind, record] of Object.entries(records)) {
    for (const name of ['put', 'delete'] as const) {
      if (record[name] !== undefined) continue;
      const place = `stores.legacy.connector.records.${kind}.${name}`;
      report.problem(place, 'is missing; with sync.rollbackWindow on, copies are written there, too');
    }
  }
  report.warning(
    'sync.rollbackWindow is on: what users write in the app is written to legacy, where it can send mails, ring webhooks and use up quota (docs/sync.md).',
  );
}

function checkWebhook(place: string, { webhook, records }: RestConnector, report: Reporter): void {
  for (const [at, { kind }] of (webhook?.events ?? []).entries()) {
    if (Object.hasOwn(records, kind)) continue;
    report.problem(
      `${place}.webhook.events[${at}].kind`,
      `names ${kind}, which is not under ${place}.records`,
    );
  }
  for (const [at, signature] of (webhook?.signatures ?? []).entries()) {
    const here = `${place}.webhook.signatures[${at}]`;
    if (signature.scheme === 'standard' && !signature.secrets.every(isStandardSecret)) {
      report.problem(`${here}.secrets`, 'must be whsec_ and at least 16 bytes in base64, or only the base64');
    }
    if (signature.scheme !== 'hmac') continue;
    const { content, timestampHeader, idHeader } = signature;
    checkPlaceholders(`${here}.content`, content, ['body', 'timestamp', 'id'], report);
    if (content.includes('{timestamp}') !== (timestampHeader !== undefined)) {
      report.problem(
        `${here}.timestampHeader`,
        'must be given if and only if content contains {timestamp}: a time that is not signed proves nothing',
      );
    }
    if (content.includes('{id}') && idHeader === undefined) {
      report.problem(`${here}.idHeader`, 'must be given where content contains {id}');
    }
  }
}

function isStandardSecret(secret: string): boolean {
  const key = secret.replace(/^whsec_/, '');
  return /^[A-Za-z0-9+/]+={0,2}$/.test(key) && Buffer.from(key, 'base64').byteLength >= 16;
}

function checkWebhookListener({ stores, webhooks, proxy, admin }: ReadableConfig, report: Reporter): void {
  const senders = (['legacy', 'app'] as const).filter((name) => {
    const { connector } = stores[name];
    return connector?.kind === 'rest' && connector.webhook !== undefined;
  });
  if (webhooks === undefined) {
    for (const name of senders) {
      report.warning(
        `stores.${name}.connector.webhook is given, but no webhooks section: no delivery is taken anywhere.`,
      );
    }
    return;
  }
  if (senders.length === 0) {
    report.warning('webhooks is given, but no connector has a webhook: every delivery gets 404.');
  }
  const { port } = webhooks;
  if (port === undefined || port === 0) return;
  if (port === proxy.port || port === admin.port) {
    report.problem('webhooks.port', 'is also the port of the proxy or of the admin API; give each its own');
  }
}

function checkBothHave(
  place: string,
  wanted: readonly string[],
  found: readonly string[],
  report: Reporter,
): void {
  const missing = wanted.filter((kind) => !found.includes(kind));
  if (missing.length > 0) {
    report.problem(place, `has no ${missing.join(', ')}, which the other store has: it could not be copied`);
  }
}

function checkPlaceholders(
  place: string,
  template: string,
  known: readonly string[],
  report: Reporter,
): void {
  for (const [, name = ''] of template.matchAll(/\{([^{}]*)\}/g)) {
    if (known.includes(name)) continue;
    const all = known.map((one) => `{${one}}`).join(', ');
    report.problem(place, `contains {${name}}, which nothing fills in; known here: ${all}`);
  }
}
