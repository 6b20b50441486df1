/**
 * What one key cannot know about another. Every check runs, whatever the others found; a section that could
 * not be read is left out of them.
 */
import { connectorFindings } from './connector-checks.ts';
import { checkRange, identityFindings } from './identity-checks.ts';
import type { ConfigProblem, Reporter } from './problems.ts';
import { routeFindings } from './route-checks.ts';
import type { ReadableConfig } from './sections.ts';
import { shapingFindings } from './shaping-checks.ts';

export interface Findings {
  readonly problems: ConfigProblem[];
  /** Sentences about what works, but probably not as intended. */
  readonly warnings: string[];
}

export function findingsOf(config: ReadableConfig): Findings {
  const problems: ConfigProblem[] = [];
  const warnings: string[] = [];
  const report: Reporter = {
    problem: (path, message) => problems.push({ path, message }),
    warning: (message) => warnings.push(message),
  };
  checkListeners(config, report);
  checkTokens(config, report);
  checkRedis(config, report);
  checkTimes(config, report);
  checkLimits(config, report);
  checkKeys(config, report);
  checkStores(config, report);
  checkObserving(config, report);
  shapingFindings(config, report);
  identityFindings(config, report);
  routeFindings(config, report);
  connectorFindings(config, report);
  return { problems, warnings };
}

function checkListeners({ proxy, admin, stores }: ReadableConfig, report: Reporter): void {
  for (const [at, range] of (proxy.trustedProxies ?? []).entries()) {
    checkRange(`proxy.trustedProxies[${at}]`, range, report);
  }
  if (proxy.port !== 0 && proxy.port === admin.port && listenOnOneAddress(proxy.host, admin.host)) {
    report.problem('admin.port', 'is also the port of the proxy; give each its own');
  }
  for (const name of ['legacy', 'app'] as const) {
    const url = stores[name].url;
    if (url === undefined || !isProxyItself(new URL(url), proxy)) continue;
    report.problem(`stores.${name}.url`, 'is the address of the proxy itself; requests would go in a circle');
  }
}

const wildcards: ReadonlySet<string | undefined> = new Set(['0.0.0.0', '::']);

function listenOnOneAddress(left: string | undefined, right: string | undefined): boolean {
  return wildcards.has(left) || wildcards.has(right) || plainHost(left) === plainHost(right);
}

function isProxyItself(store: URL, { host, port }: ReadableConfig['proxy']): boolean {
  if (Number(store.port || (store.protocol === 'https:' ? 443 : 80)) !== port) return false;
  const storeHost = plainHost(store.hostname);
  return storeHost === (wildcards.has(host) ? 'loopback' : plainHost(host));
}

function plainHost(host: string | undefined): string | undefined {
  return ['localhost', '127.0.0.1', '::1', '[::1]'].includes(host ?? '') ? 'loopback' : host;
}

function checkTokens({ admin, proxy }: ReadableConfig, report: Reporter): void {
  if (admin.tokens === undefined) return;
  const seen = new Map<string, number>();
  for (const [at, { name }] of admin.tokens.entries()) {
    const first = seen.get(name);
    if (first !== undefined) {
      report.problem(
        `admin.tokens[${at}].name`,
        `is already the name of admin.tokens[${first}]; the audit log could not tell them apart`,
      );
    } else seen.set(name, at);
  }
  if (admin.tokens.length === 0 && proxy.mode !== 'observe') {
    report.warning(
      'admin.tokens is empty: the admin API and the commands that use it will refuse every call.',
    );
  }
}

function checkRedis({ redis, ledger }: ReadableConfig, report: Reporter): void {
  if (redis.url === undefined) return;
  if (redis.url !== 'embedded' && !isRedisUrl(redis.url)) {
    report.problem('redis.url', 'must be "embedded" or a redis:// or rediss:// URL');
  }
  if (redis.url === 'embedded' && (ledger.minReplicas ?? 0) > 0) {
    report.problem('ledger.minReplicas', 'must be 0 with redis.url "embedded", which has no replicas');
  }
}

function isRedisUrl(text: string): boolean {
  return /^rediss?:\/\/./.test(text) && URL.canParse(text);
}

function checkTimes({ flip, ledger }: ReadableConfig, report: Reporter): void {
  const { drainMs, fenceMs, holdMs } = flip;
  if (drainMs !== undefined && fenceMs !== undefined && drainMs >= fenceMs) {
    report.problem(
      'flip.drainMs',
      `must be less than flip.fenceMs (${fenceMs}): running writes end inside the fence`,
    );
  }
  if (fenceMs !== undefined && holdMs !== undefined && fenceMs >= holdMs) {
    report.problem(
      'flip.fenceMs',
      `must be less than flip.holdMs (${holdMs}): held writes must outlast the fence`,
    );
  }
  const { leaseMs } = ledger;
  if (leaseMs !== undefined && leaseMs < 1_000) {
    report.warning(
      `ledger.leaseMs is ${leaseMs}: one slow answer of Redis makes every process refuse writes; 10000 is usual.`,
    );
  }
}

function checkLimits({ proxy }: ReadableConfig, report: Reporter): void {
  const { limits } = proxy;
  if (limits === undefined) return;
  const { connections, headersTimeoutMs, heldPerPartition, heldTotal, requestTimeoutMs } = limits;
  if (headersTimeoutMs > requestTimeoutMs) {
    report.problem(
      'proxy.limits.headersTimeoutMs',
      `must not be more than requestTimeoutMs (${requestTimeoutMs}): the head is a part of the request`,
    );
  }
  if (heldPerPartition > heldTotal) {
    report.problem('proxy.limits.heldPerPartition', `must not be more than heldTotal (${heldTotal})`);
  }
  if (heldTotal >= connections) {
    report.problem(
      'proxy.limits.heldTotal',
      `must be less than connections (${connections}): each held write keeps one, and others must get in`,
    );
  }
}

function checkKeys({ proxy, stores }: ReadableConfig, report: Reporter): void {
  const { idempotency } = proxy;
  for (const name of ['legacy', 'app'] as const) {
    const { writeTimeoutMs, settleMs } = stores[name];
    if (idempotency === undefined || writeTimeoutMs === undefined || settleMs === undefined) continue;
    if (idempotency.keepMs > writeTimeoutMs + settleMs) continue;
    report.problem(
      'proxy.idempotency.keepMs',
      `must be more than stores.${name}.writeTimeoutMs and settleMs together (${writeTimeoutMs + settleMs}): a key must outlast its first write`,
    );
  }
}

/** What an observing proxy does not do is not configured for it, or its operator would rely on it. */
function checkObserving({ proxy, stores }: ReadableConfig, report: Reporter): void {
  if (proxy.mode !== 'observe') return;
  if (stores.legacy.hook !== undefined) {
    report.problem(
      'stores.legacy.hook',
      'cannot stand beside proxy.mode observe, which passes everything on as it came',
    );
  }
  if ((proxy.processes ?? 1) > 1) {
    report.problem('proxy.processes', 'must be 1 with proxy.mode observe; start more proxies beside it');
  }
}

function checkStores({ stores }: ReadableConfig, report: Reporter): void {
  for (const name of ['legacy', 'app'] as const) {
    const url = stores[name].url;
    if (url === undefined) continue;
    const { username, password, search, hash } = new URL(url);
    if (username !== '' || password !== '') {
      report.problem(
        `stores.${name}.url`,
        'must not contain a user or a password; put credentials into headers',
      );
    }
    if (search !== '' || hash !== '') {
      report.problem(`stores.${name}.url`, 'must not contain "?" or "#": it is a base URL');
    }
  }
  const { legacy, app } = stores;
  if (legacy.url !== undefined && app.url !== undefined && sameUrl(legacy.url, app.url)) {
    report.problem('stores.app.url', 'is the same as stores.legacy.url; one store cannot be both');
  }
  if (app.guard === false && app.settleMs === 0) {
    report.warning(
      'stores.app has no guard and settleMs 0, which says that a write that timed out never takes effect later; set settleMs unless you are sure.',
    );
  }
}

function sameUrl(left: string, right: string): boolean {
  return new URL(left).href === new URL(right).href;
}
