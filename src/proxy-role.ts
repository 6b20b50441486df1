/**
 * The proxy of a process: a member under the rules of the configuration, and the change to other rules without a
 * restart. Nothing is ever judged by two sets of rules: the process ends what it has under way, leaves the ledger's
 * list, and comes back as another member. While it is away its writes wait.
 */
import type { RuleSet } from './config/reload.ts';
import type { Config } from './config/schema.ts';
import { storeNames } from './core/ownership.ts';
import type { RedisRegistry } from './ledger/books.ts';
import { Claims } from './ledger/claims.ts';
import { connectRedis, type RedisAddress } from './ledger/connection.ts';
import { DirectoryMemory, type RedisDirectory } from './ledger/directory.ts';
import type { RedisDoubts } from './ledger/doubts.ts';
import type { Holding, PriorView } from './ledger/holding.ts';
import { RedisIdempotencyKeys } from './ledger/idempotency.ts';
import type { RedisLedger } from './ledger/ledger.ts';
import { LinkMemory, type RedisLinks } from './ledger/links.ts';
import type { Lookout } from './ledger/lookout.ts';
import { Membership, type MembershipParts } from './ledger/membership.ts';
import { type Log, sentenceOf } from './log.ts';
import { pause } from './pause.ts';
import { flatCounters } from './proxy/counters.ts';
import { loadHooks } from './proxy/hook.ts';
import { createProxy, type Proxy, type Terms } from './proxy/proxy.ts';
import type { Sync } from './sync/create.ts';
import { CopyWatch } from './sync/reads/copy-watch.ts';
import { copyTargets } from './sync/writers.ts';

export interface ProxyBase {
  readonly address: RedisAddress;
  readonly redis: MembershipParts['redis'];
  readonly ledger: RedisLedger;
  readonly registry: RedisRegistry;
  readonly directory: RedisDirectory;
  readonly links: RedisLinks;
  readonly doubts: RedisDoubts;
  readonly sync: Sync;
  readonly lookout: Lookout;
  readonly openFeed: MembershipParts['openFeed'];
}

/** How long a stopping proxy lets requests finish, beyond the longest write. */
const drainMarginMs = 1_000;
/** Answers that one partition keeps for its keys; beyond it only their status is kept. */
const keptAnswerBytes = 33_554_432;
/** How long the other proxies may take to run the same rules. */
const followWithinMs = 10_000;
const lookAgainMs = 20;
const enterAgainMs = 500;

/** This process as a member, as long as its rules are the same. */
interface Membered {
  readonly rules: RuleSet;
  readonly member: Membership;
  readonly claims: Claims;
  readonly terms: Terms;
}

export class ProxyRole {
  readonly #base: ProxyBase;
  readonly #log: Log;
  readonly #writeTimeoutMs: number;
  #now: Membered;
  #proxy: Proxy | undefined;
  #changing: Promise<boolean> | undefined;
  #stopped = false;
  #copies: OpenCopies | undefined;

  private constructor(base: ProxyBase, log: Log, now: Membered) {
    this.#base = base;
    this.#log = log;
    this.#now = now;
    const { stores } = now.rules.config;
    this.#writeTimeoutMs = Math.max(...storeNames.map((store) => stores[store].writeTimeoutMs));
  }

  /** What it opens is ended by `stops`, in reverse. */
  static async start(
    rules: RuleSet,
    base: ProxyBase,
    log: Log,
    stops: (() => Promise<void>)[],
  ): Promise<{ readonly role: ProxyRole; readonly host: string; readonly port: number }> {
    const hooks = await loadHooks(rules.config);
    const member = (): string => role.#now.member.id;
    const keys = await openKeys(rules.config, base.address, member, stops);
    const role = new ProxyRole(base, log, await enter(rules, base, log, base.lookout.kept));
    // From here on it is listed: whatever fails now, it leaves.
    stops.push(() => role.stop());
    role.#proxy = createProxy({
      ...(await role.#terms()),
      ...{ doorbell: base.sync.doorbell, userCalls: base.sync.userCalls, log, hooks },
      ...(keys === undefined ? {} : { keys }),
    });
    return { role, ...(await role.#proxy.listen()) };
  }

  counters(): Record<string, number> {
    return this.#proxy === undefined ? {} : flatCounters(this.#proxy.counters());
  }

  renewCertificate(): void {
    this.#proxy?.renewCertificate();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#changing;
    const { stores } = this.#now.rules.config;
    try {
      await this.#proxy?.drain(this.#writeTimeoutMs + drainMarginMs);
      await this.#proxy?.stop();
      // Who comes next may run rules by which those belong to partitions.
      await pause(this.#proxy?.pinnedSettledInMs() ?? 0);
      await this.#now.member.leave(Math.max(stores.legacy.settleMs, stores.app.settleMs));
    } finally {
      this.#now.claims.stop();
      await this.#copies?.stop();
    }
  }

  /** True when the new rules are the active ones; else everything is as before, and the log says why. */
  async change(next: RuleSet): Promise<boolean> {
    if (this.#changing !== undefined) {
      this.#notChanged('a change of the rules is under way already');
      return false;
    }
    this.#changing = this.#change(next)
      .catch((error: unknown) => {
        this.#log('error', 'rules.not-active', { error: sentenceOf(error) });
        return false;
      })
      .finally(() => {
        this.#changing = undefined;
      });
    return this.#changing;
  }

  async #change(next: RuleSet): Promise<boolean> {
    const before = this.#now.rules;
    // While this process was going back, the others may have come along: then it goes with them after all.
    for (const rules of [next, before, next]) {
      const refused = await this.#switchTo(rules);
      if (refused !== undefined && rules === this.#now.rules) continue;
      if (refused !== undefined && this.#now.rules === before) {
        this.#notChanged(refused);
        return false;
      }
      // It runs rules that are not active, so it must get away from them, and nothing stops it for long.
      if (refused !== undefined) await this.#switchSurely(rules, refused);
      if (!(await this.#becomeActive())) {
        this.#log('warn', 'rules.not-followed', { detail: notFollowed(rules === next) });
        continue;
      }
      if (rules === next) this.#log('info', 'rules.changed', { hash: next.configHash });
      else this.#notChanged('the other proxies did not follow in time; send all of them the signal at once');
      return rules === next;
    }
    this.#log('error', 'rules.not-active', {
      detail: 'This proxy admits no write: neither its rules nor those of before are active. Restart it.',
    });
    return false;
  }

  async #switchSurely(rules: RuleSet, first: string): Promise<void> {
    for (let refused: string | undefined = first; refused !== undefined && !this.#stopped;) {
      this.#log('warn', 'rules.not-active', { detail: `This proxy admits no write yet: ${refused}.` });
      await pause(enterAgainMs);
      refused = await this.#switchTo(rules);
    }
  }

  #notChanged(because: string): void {
    const detail = `The rules were not changed: ${because}. Writes go on under those of before.`;
    this.#log('warn', 'rules.not-changed', { detail });
  }

  /** Why the rules cannot be changed to these at the moment, in a sentence. */
  obstacle({ config }: RuleSet): string | undefined {
    if (this.#proxy === undefined || this.#stopped) return 'this process is stopping';
    if (this.#proxy.openWriters() > 0) {
      return 'WebSockets are open, and closing one leaves a write in doubt; restart this process instead';
    }
    const pinned = this.#proxy.unpinnedBy(config)();
    if (pinned.webSockets > 0) return unpinnedWebSockets;
    return this.#now.member.underWay().inDoubt + pinned.inDoubt > 0 ? inDoubt : undefined;
  }

  /** A sentence says why not; then nothing has changed. */
  async #switchTo(rules: RuleSet): Promise<string | undefined> {
    const { member } = this.#now;
    const obstacle = this.obstacle(rules);
    const proxy = this.#proxy;
    if (obstacle !== undefined || proxy === undefined) return obstacle;
    proxy.pauseWrites(rules.config);
    const unpinned = proxy.unpinnedBy(rules.config);
    const untilMs = performance.now() + this.#writeTimeoutMs;
    for (;;) {
      const [ticketed, pinned] = [member.underWay(), unpinned()];
      const doubted = ticketed.inDoubt + pinned.inDoubt;
      if (ticketed.inFlight + pinned.inFlight + pinned.webSockets + doubted === 0) break;
      if (doubted > 0 || performance.now() > untilMs) {
        proxy.resumeWrites();
        return doubted > 0 ? inDoubt : 'a write did not end in time';
      }
      await pause(lookAgainMs);
    }
    // Who leaves takes what it knows along: a ledger that loses its data in between must not pass for whole.
    const lost = await lostSince(this.#base, member).catch((error: unknown) => sentenceOf(error));
    if (lost !== undefined) {
      proxy.resumeWrites();
      return `the ledger is not sound (${lost})`;
    }
    const before = newerOf(this.#base.lookout.kept, member.holding());
    await member.leave(0);
    this.#now.claims.stop();
    this.#now = await this.#enterSurely(rules, before);
    proxy.serveUnder(await this.#terms());
    return undefined;
  }

  /** What the proxy judges by now. Whose route reads copies, hears and tells of writes from then on. */
  async #terms(): Promise<Terms> {
    const { terms } = this.#now;
    if (terms.config.routes.some(({ reads }) => reads === 'copy' || reads === 'app')) {
      this.#copies ??= await openCopies(terms.config, this.#base, () => this.#now.member.id, this.#log);
    }
    return { ...terms, copies: this.#copies?.watch };
  }

  /** It has left the list, so it must come back, whatever it takes; until then writes wait or are refused. */
  async #enterSurely(rules: RuleSet, before: PriorView | undefined): Promise<Membered> {
    for (;;) {
      try {
        return await enter(rules, this.#base, this.#log, before);
      } catch (error) {
        this.#log('warn', 'member.entering', { error: sentenceOf(error) });
        if (this.#stopped) throw error;
        await pause(enterAgainMs);
      }
    }
  }

  async #becomeActive(): Promise<boolean> {
    const untilMs = performance.now() + followWithinMs;
    while (performance.now() < untilMs && !this.#stopped) {
      if (this.#now.member.trouble() === undefined) return true;
      await pause(lookAgainMs);
    }
    return this.#now.member.trouble() === undefined;
  }
}

const unpinnedWebSockets =
  'WebSockets are open on routes that would lose their "store" or get another, and closing one leaves a write in doubt; restart this process instead';
const inDoubt = 'a write is in doubt; try again when it has settled (see "onewriter status")';

function notFollowed(forward: boolean): string {
  const seconds = followWithinMs / 1_000;
  return forward
    ? `The other proxies did not run the new rules within ${seconds} s: this one goes back to the rules of before.`
    : `The rules of before are not the active ones any more: this proxy follows the others.`;
}

/** The newer of what this host kept before the process began, and what its member was confirmed since. */
function newerOf(
  kept: PriorView | undefined,
  { confirmed, position, partitions, rules }: Holding,
): PriorView | undefined {
  if (confirmed === undefined || (kept !== undefined && kept.confirmed.version > confirmed.version))
    return kept;
  return { confirmed, document: { position, partitions: [...partitions], rules } };
}

async function enter(
  rules: RuleSet,
  base: ProxyBase,
  log: Log,
  before: PriorView | undefined,
): Promise<Membered> {
  const { config, configHash } = rules;
  const { leaseMs } = config.ledger;
  const directory = rememberDirectory(base, config.ledger.minReplicas, () => lostSince(base, member));
  const links = new LinkMemory((pairs, route, freshMax) => base.links.note(pairs, route, freshMax));
  const member = await Membership.join({
    ...{ ledger: base.ledger, redis: base.redis, registry: base.registry, openFeed: base.openFeed, log },
    ...{ doubts: base.doubts, directory, links },
    settings: {
      ...{ leaseMs, marginMs: leaseMs / 10 },
      writeTimeoutMs: Math.max(...storeNames.map((store) => config.stores[store].writeTimeoutMs)),
      rules: { hash: configHash, newPartitions: config.newPartitions },
      unexpirable: config.ledger.onLedgerLoss === 'serve-last-known',
      rememberMs: Math.max(
        600_000,
        2 * base.sync.readers.legacy.feedDelayMs,
        2 * base.sync.readers.app.feedDelayMs,
      ),
      settleMs: { legacy: config.stores.legacy.settleMs, app: config.stores.app.settleMs },
      defaultOwner: 'legacy',
    },
    before,
  });
  base.lookout.keeper.follow(member, before);
  const claims = openClaims(rules, base, member, log);
  const terms = { config, gate: member, homes: claims, directory, links, doubts: member };
  return { rules, member, claims, terms };
}

/** Right now: what the ledger has lost of what was confirmed here; undefined while it is sound. */
function lostSince({ ledger, lookout }: ProxyBase, member: Membership): Promise<string | undefined> {
  const { confirmed } = member.holding();
  return confirmed === undefined ? lookout.witness.lost() : ledger.lost({ confirmed });
}

/** What a failover could still take back is not remembered. */
function rememberDirectory(
  { directory, ledger }: ProxyBase,
  minReplicas: number,
  whatIsLost: () => Promise<string | undefined>,
): DirectoryMemory {
  return new DirectoryMemory(async (user) => {
    const partition = await directory.partitionOf(user);
    // An entry that is not there may have been lost with the ledger: that must be known before the next heartbeat.
    const lost = await whatIsLost();
    if (lost !== undefined) throw new Error(`the ledger lost data: ${lost}`);
    if (minReplicas > 0 && !(await ledger.confirmDurable())) throw new Error('too few replicas confirmed it');
    return partition;
  });
}

/** Where new partitions begin; the app's guard must hear of one before its first write. */
function openClaims(
  { config, configHash }: RuleSet,
  { ledger, sync }: ProxyBase,
  member: Membership,
  log: Log,
): Claims {
  return new Claims({
    ...{ ledger, member, log },
    rules: { hash: configHash, newPartitions: config.newPartitions },
    seal: config.stores.app.guard
      ? (stamp) => sync.guardCalls.seal('app', stamp, new AbortController().signal)
      : undefined,
    withinMs: config.flip.holdMs,
  });
}

interface OpenCopies {
  readonly watch: CopyWatch;
  stop(): Promise<void>;
}

/** Undefined, with a word in the log, where Redis does not answer: then the owners answer all reads. */
async function openCopies(
  { stores, sync }: Config,
  { address }: ProxyBase,
  member: () => string,
  log: Log,
): Promise<OpenCopies | undefined> {
  try {
    const redis = await connectRedis(address);
    redis.on('error', () => undefined); // it reconnects; meanwhile copies are not read
    const settleMs = { legacy: stores.legacy.settleMs, app: stores.app.settleMs };
    const targets = copyTargets(sync.rollbackWindow);
    const watch = new CopyWatch({ redis, targets, member, settleMs, log });
    const stop = async (): Promise<void> => {
      await watch.stop();
      redis.disconnect();
    };
    return { watch, stop };
  } catch (error) {
    log('warn', 'reads.failing', { error: sentenceOf(error) });
    return undefined;
  }
}

/** On a connection of their own: answers on their way must not delay a heartbeat. */
export async function openKeys(
  config: Config,
  address: RedisAddress,
  member: () => string,
  stops: (() => Promise<void>)[],
): Promise<RedisIdempotencyKeys | undefined> {
  const { enabled, keepMs, keysPerPartition } = config.proxy.idempotency;
  if (!enabled) return undefined;
  const redis = await connectRedis(address);
  stops.push(async () => redis.disconnect());
  const { minReplicas } = config.ledger;
  return new RedisIdempotencyKeys(redis, {
    ...{ keepMs, keysPerPartition, minReplicas, member },
    answerBytesPerPartition: keptAnswerBytes,
  });
}
