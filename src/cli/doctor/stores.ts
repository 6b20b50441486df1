/** Checks of a store: does it answer, do its lists hold what the configuration says, does its guard answer. */
import { connect as connectTls } from 'node:tls';
import { routeInWords } from '../../config/route-words.ts';
import type { Config } from '../../config/schema.ts';
import type { StoreName } from '../../core/ownership.ts';
import type { GuardCalls, KindCapabilities, StoreReader } from '../../core/ports.ts';
import { loadHook } from '../../proxy/hook.ts';
import { unlimited } from '../../stores/budget.ts';
import { copyTargets } from '../../sync/writers.ts';
import { storeTlsOf } from '../../stores/connect.ts';
import { whyUnreachable } from '../../stores/reach.ts';
import { type OpenStore, openStore } from '../../stores/open.ts';
import { fail, type Finding, lookMs, ok, sentenceOf, warn } from './finding.ts';
import { checkWriteCredential } from './write-probe.ts';

/** Whether a connection to the store can be made, and trusted. */
export async function checkReach(config: Config, name: StoreName): Promise<Finding[]> {
  const { url } = config.stores[name];
  const setting = `stores.${name}`;
  const unreachable = await whyUnreachable(url, lookMs);
  if (unreachable !== undefined) {
    return [
      fail(setting, `${url} cannot be reached (${unreachable})`, `Start it, or correct ${setting}.url.`),
    ];
  }
  const reached = ok(setting, `${url} accepts connections`);
  const untrusted = await whyUntrusted(name, config);
  if (untrusted === undefined) return [reached];
  return [reached, fail(`${setting}.tls`, untrusted, adviceOnTls(setting))];
}

/** Reads only: one page of each list, and a verdict that changes nothing; with `probeWrites` see write-probe.ts, too. */
export async function checkStore(
  config: Config,
  name: StoreName,
  { probeWrites = false } = {},
): Promise<Finding[]> {
  const { connector, guard } = config.stores[name];
  const setting = `stores.${name}`;
  const findings = await checkReach(config, name);
  if (findings.some(({ level }) => level === 'fail')) return findings;
  findings.push(...(await checkHook(setting, config, name)));
  const store = openStore(name, config, unlimited);
  try {
    if (connector === undefined) {
      findings.push(
        warn(
          setting,
          'has no connector: nothing can be copied or flipped',
          `Configure ${setting}.connector.`,
        ),
      );
    } else {
      findings.push(...(await checkConnector(setting, config, store)));
      findings.push(...(await checkWriteCredential(config, store, probeWrites)));
    }
    if (guard) findings.push(...(await checkGuard(setting, config, store)));
    else if (name === 'app') findings.push(withoutGuard(setting, config));
  } finally {
    await store.reader.close();
  }
  return findings;
}

/** Loads the module, as the proxy does at its start. */
async function checkHook(setting: string, config: Config, name: StoreName): Promise<Finding[]> {
  if (config.stores[name].hook === undefined) return [];
  try {
    await loadHook(name, config);
    return [ok(`${setting}.hook`, 'the module can be used')];
  } catch (error) {
    return [fail(`${setting}.hook`, sentenceOf(error), 'Correct the module, or leave the hook out.')];
  }
}

async function checkConnector(setting: string, config: Config, store: OpenStore): Promise<Finding[]> {
  const { reader } = store;
  try {
    await reader.probe(AbortSignal.timeout(lookMs));
  } catch (error) {
    const advice =
      store.client === undefined
        ? 'Check address, credentials and tables of the connector.'
        : 'Check address, credentials (connector.auth or connector.headers) and the list path.';
    return [fail(`${setting}.connector`, sentenceOf(error), advice)];
  }
  const findings = [ok(`${setting}.connector`, 'the list answers and the credentials are accepted')];
  for (const capability of reader.capabilities) {
    findings.push(await checkFirstPage(setting, config, reader, capability));
    const isTold = webhookOf(config, reader.store)?.events.some(({ kind }) => kind === capability.kind);
    findings.push(...limitsOf(setting, store, capability, isTold === true));
  }
  for (const { level, about, detail, advice } of (await store.examine?.(AbortSignal.timeout(lookMs))) ?? []) {
    const check = `${setting} ${about}`;
    findings.push(level === 'ok' ? ok(check, detail) : { level, check, detail, advice });
  }
  return [...findings, ...checkWebhooks(setting, config, reader.store)];
}

async function checkFirstPage(
  setting: string,
  config: Config,
  reader: StoreReader,
  { kind, needsPartition, versions }: KindCapabilities & { readonly needsPartition?: boolean },
): Promise<Finding> {
  const check = `${setting} ${kind}`;
  const scope = needsPartition === true ? { partition: anyPartition(config) } : {};
  try {
    for await (const { records, problems } of reader.pages(kind, scope, AbortSignal.timeout(lookMs))) {
      const [problem] = problems;
      if (problem !== undefined) {
        const advice = `Correct connector.records.${kind}: items, id and partition name fields of the answer.`;
        return fail(check, `${problems.length} records cannot be used: ${problem.detail}`, advice);
      }
      if (records.length === 0) {
        return warn(
          check,
          'the list is empty, so its fields could not be checked',
          'Run doctor with data in it.',
        );
      }
      if (versions === 'field' && records.some((record) => record.version === undefined)) {
        const advice = `Correct connector.records.${kind}.version, or leave it out: contents are compared then.`;
        return fail(check, 'records lack the configured version field', advice);
      }
      return ok(
        check,
        `${records.length} records on the first page, with id, partition and what is configured`,
      );
    }
    return warn(check, 'the list gave no page', `Check connector.records.${kind}.list.`);
  } catch (error) {
    return fail(check, sentenceOf(error), `Check connector.records.${kind}.list.`);
  }
}

function webhookOf({ stores }: Config, name: StoreName) {
  const { connector } = stores[name];
  return connector?.kind === 'rest' ? connector.webhook : undefined;
}

/** Whether the secrets are the store's, only its first delivery shows. */
function checkWebhooks(setting: string, config: Config, name: StoreName): Finding[] {
  const webhook = webhookOf(config, name);
  const { webhooks: at } = config;
  if (webhook === undefined || at === undefined) return [];
  const kinds = [...new Set(webhook.events.map(({ kind }) => kind))].join(', ');
  const schemes = [...new Set(webhook.signatures.map(({ scheme }) => scheme))].join(', ');
  const detail =
    `of ${kinds} are taken at /webhooks/${name}, port ${at.port}, with a signature (${schemes}); ` +
    '"onewriter sync status" says how many came, and how many were refused';
  return [ok(`${setting} webhooks`, detail)];
}

/** What the connector cannot do, in words, and what follows from it. */
function limitsOf(
  setting: string,
  { store, client }: OpenStore,
  capability: KindCapabilities,
  isTold: boolean,
): Finding[] {
  const { kind, byPartition, paged, since, tombstones, notWritable } = capability;
  const check = `${setting} ${kind}`;
  const findings: Finding[] = [];
  if (store === 'app' && notWritable !== undefined) {
    findings.push(fail(check, `copies cannot be written: ${notWritable}`, 'Nothing can be flipped to it.'));
  }
  if (!byPartition) {
    const advice =
      'Catching up reads the whole list inside the fence; use {partition} in list.query if it can.';
    findings.push(warn(check, 'the list cannot be narrowed to one partition', advice));
  }
  if (!paged) {
    const advice =
      'If the platform limits how many it answers, the rest is never copied: configure next or paging.';
    findings.push(warn(check, 'one answer is taken for the whole list', advice));
  }
  if (!since) {
    const how =
      client === undefined
        ? 'name version if there is such a column'
        : 'name version and use {since} in list.query if it can';
    const advice = `Every poll reads everything; ${how}.`;
    findings.push(warn(check, 'the list cannot be asked for changes only', advice));
  }
  if (!tombstones && isTold) {
    const detail =
      'deleted records are not marked: those that webhooks tell of show at once, the others in full passes';
    findings.push(ok(check, detail));
  } else if (!tombstones) {
    const advice =
      'Deletes show only in full passes, each confirmed by a read; name deleted if there is a field.';
    findings.push(warn(check, 'deleted records are not marked', advice));
  }
  return findings;
}

async function checkGuard(setting: string, config: Config, store: OpenStore): Promise<Finding[]> {
  const check = `${setting}.guard`;
  const calls = store.guard;
  try {
    const stamp = { partition: 'onewriter-doctor', epoch: 1 };
    const { written } = await calls.verdict(store.store, stamp, 'read', AbortSignal.timeout(lookMs));
    if (store.store === 'app' && written === undefined) {
      const unless = isCopiedBack(config) ? 'once its rollback window is closed, ' : '';
      const advice = `Until it does (docs/guard.md), ${unless}nothing that was flipped can go back to legacy.`;
      const finding = 'answers the signed verdict, but does not say whether users have written';
      return [warn(check, finding, advice), ...(await checkSeveral(check, config, store, calls))];
    }
    const how =
      store.client === undefined ? 'the guard in the database answers' : 'answers the signed verdict';
    return [ok(check, how), ...(await checkSeveral(check, config, store, calls))];
  } catch (error) {
    const advice =
      'Mount the guard in it and give both the same secret (docs/guard.md); without it no flips.';
    return [fail(check, sentenceOf(error), advice)];
  }
}

/** Where a route has requests that touch several partitions, the guard must take them. */
async function checkSeveral(
  check: string,
  { routes }: Config,
  { store, client }: OpenStore,
  calls: GuardCalls,
): Promise<Finding[]> {
  const paths = routes.filter((route) => route.partitions !== undefined).map(routeInWords);
  if (paths.length === 0) return [];
  if (client === undefined) {
    const detail = `whether the app checks every partition of such requests cannot be asked in its database; they are those of ${paths.join(', ')}`;
    return [warn(check, detail, 'Switch severalPartitions on in its middleware (docs/guard.md).')];
  }
  const also = [{ partition: 'onewriter-doctor-too', epoch: 1 }];
  const stamp = { partition: 'onewriter-doctor', epoch: 1, also };
  try {
    await calls.verdict(store, stamp, 'read', AbortSignal.timeout(lookMs));
    return [ok(check, 'takes requests that touch several partitions')];
  } catch (error) {
    const finding = `refuses requests that touch several partitions, as those of ${paths.join(', ')} do: ${sentenceOf(error)}`;
    const advice =
      'Check every partition in its handlers, and switch severalPartitions on (docs/guard.md); once the owner moves here, these requests are refused.';
    return [fail(check, finding, advice)];
  }
}

function withoutGuard(setting: string, config: Config): Finding {
  const back = isCopiedBack(config)
    ? 'what was flipped can go back to legacy only while its rollback window is open'
    : 'nothing that was flipped can go back to legacy';
  const detail = `no guard: writes that go round the proxy, or come late, are not refused, and ${back}`;
  return warn(`${setting}.guard`, detail, 'Mount the guard (docs/guard.md) and set guard to true.');
}

function isCopiedBack({ sync }: Config): boolean {
  return copyTargets(sync.rollbackWindow).includes('legacy');
}

function anyPartition({ cohorts }: Config): string {
  for (const cohort of Object.values(cohorts)) {
    const first = 'partitions' in cohort ? cohort.partitions[0] : undefined;
    if (first !== undefined) return first;
  }
  return 'onewriter-doctor';
}

function adviceOnTls(setting: string): string {
  return `Name the file of its authority in ${setting}.tls.ca, or correct ${setting}.url or the certificate.`;
}

/** Undefined where the store is not behind TLS, or is trusted. */
async function whyUntrusted(name: StoreName, config: Config): Promise<string | undefined> {
  try {
    const tls = storeTlsOf(name, config);
    if (tls === undefined) return undefined;
    const { hostname, port } = new URL(config.stores[name].url);
    return await new Promise((settle) => {
      const address = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 443) };
      const socket = connectTls({ ...tls, ...address, timeout: lookMs });
      const end = (why: string | undefined): void => {
        socket.destroy();
        settle(why);
      };
      socket.once('secureConnect', () => end(undefined));
      socket.once('timeout', () => end(`TLS was not agreed on within ${lookMs} ms`));
      socket.once('error', (error) => end(`TLS failed: ${error.message}`));
    });
  } catch (error) {
    return sentenceOf(error);
  }
}
