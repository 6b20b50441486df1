/**
 * What enforcing would make of a request, while the request is on its way already: the same steps as in
 * src/proxy/serve.ts, without a ledger, and with nobody who waits for the end of them.
 */
import type { IncomingMessage } from 'node:http';
import { accessHash } from '../../config/access-hash.ts';
import type { Config } from '../../config/schema.ts';
import type { IdentityKind, Observation, Would } from '../../core/observation.ts';
import type { Log } from '../../log.ts';
import { type Classifier, createClassifier, type Match, type MatchedRequest } from '../classify.ts';
import type { BodySource } from '../credential.ts';
import { keyOf } from '../idempotency-key.ts';
import { type Identification, Identifier, type Identity } from '../identify.ts';
import { peerTest } from '../peers.ts';
import type { Place } from '../place.ts';
import { textOf } from '../partition-source.ts';
import { seenBodyBytesMax } from '../seen-body.ts';

export interface Judgement {
  readonly matched: MatchedRequest | undefined;
  readonly route: Observation['route'];
  readonly identity: IdentityKind;
  readonly user: string | undefined;
  readonly partitions: readonly string[];
  readonly partitionBy: string | undefined;
  readonly would: Would;
}

const rulesLength = 12;

export class Judge {
  /** Fingerprint of the rules that this judges by. */
  readonly rules: string;
  readonly #config: Config;
  readonly #classifier: Classifier;
  /** One for each general rule that finds partitions, to tell which one it was. */
  readonly #byRule: readonly { readonly text: string; readonly classifier: Classifier }[];
  readonly #identifier: Identifier;
  readonly #indexes: ReadonlyMap<object, number>;

  constructor(config: Config, log: Log) {
    this.#config = config;
    this.rules = accessHash(config).slice(0, rulesLength);
    const isTrusted = peerTest(config.proxy.trustedProxies);
    this.#classifier = createClassifier(config, nobodyLooksUp, isTrusted);
    this.#byRule = config.partition.map((rule) => ({
      text: textOf(rule),
      classifier: createClassifier({ ...config, partition: [rule] }, nobodyLooksUp, isTrusted),
    }));
    this.#identifier = new Identifier(config.identity, { nowMs: Date.now, log });
    this.#indexes = new Map(config.routes.map((rule, at) => [rule, at]));
  }

  /** Longest body that this looks into; 0 where it looks into none. */
  bodyBytesMax(match: Match): number {
    const who = this.#config.identity.map((rule) => ('body' in rule ? rule.bodyBytesMax : 0));
    return Math.max(match.match === 'needs-body' ? seenBodyBytesMax : 0, ...who);
  }

  match(request: IncomingMessage, upgrade: boolean): Match {
    return this.#classifier.match(request, upgrade);
  }

  /** Settles at the latest some seconds after the body has passed; `body`: left out for an upgrade. */
  async judge(request: IncomingMessage, match: Match, body: BodySource | undefined): Promise<Judgement> {
    switch (match.match) {
      case 'health':
      case 'server-options':
        return { ...nothingKnown, would: { do: 'answer' } };
      case 'refused':
        return { ...nothingKnown, would: { do: 'refuse', code: match.failure.code } };
      case 'needs-body': {
        const read = await (match.look === 'beginning' ? body?.beginning() : body?.read(seenBodyBytesMax));
        if (read === undefined || Buffer.isBuffer(read)) return this.judge(request, match.with(read), body);
        if (read.code === 'body-too-large') return this.judge(request, match.with(undefined), body);
        return { ...nothingKnown, would: { do: 'refuse', code: read.code } };
      }
      case 'request':
        return this.#judgeMatched(request, match.request, body);
    }
  }

  close(): void {
    this.#identifier.close();
  }

  async #judgeMatched(
    request: IncomingMessage,
    matched: MatchedRequest,
    body: BodySource | undefined,
  ): Promise<Judgement> {
    const { route: { rule } = {} } = matched;
    const known = { ...nothingKnown, matched, route: this.#routeOf(matched) };
    if (rule?.anonymous === true && rule.store !== undefined) {
      return { ...known, would: { do: 'forward', store: rule.store, because: 'pinned' } };
    }
    const who = await this.#identifier.identify(request, body);
    if (who.kind === 'refused') {
      return { ...known, identity: kindOf(who), would: { do: 'refuse', code: who.failure.code } };
    }
    const identity = who.kind === 'user' ? who.identity : undefined;
    const place = this.#classifier.place(request, matched, identity);
    const partitions = place.place === 'partition' ? [place.partition, ...(place.also ?? [])] : [];
    return {
      ...known,
      identity: kindOf(who),
      user: identity?.user,
      partitions,
      partitionBy: partitions.length === 0 ? undefined : this.#ruleOf(request, matched, identity),
      would: this.#wouldAt(place, request, matched, identity),
    };
  }

  #wouldAt(
    place: Place,
    request: IncomingMessage,
    matched: MatchedRequest,
    identity: Identity | undefined,
  ): Would {
    switch (place.place) {
      case 'refused':
        return { do: 'refuse', code: place.failure.code };
      case 'look-up':
        return { do: 'look-up' };
      case 'store': {
        const pinned = matched.route?.rule.store !== undefined;
        return { do: 'forward', store: place.store, because: pinned ? 'pinned' : 'anonymous-read' };
      }
      case 'partition': {
        const keyed = this.#config.proxy.idempotency.enabled && matched.access === 'write';
        if (keyed && identity !== undefined && keyOf(request).found === 'invalid') {
          return { do: 'refuse', code: 'idempotency-key-invalid' };
        }
        return { do: 'forward', store: 'legacy', because: 'owner' };
      }
    }
  }

  /** The first general rule that says something decides; a route's own places stand instead of all of them. */
  #ruleOf(
    request: IncomingMessage,
    matched: MatchedRequest,
    identity: Identity | undefined,
  ): string | undefined {
    const { partition, partitions } = matched.route?.rule ?? {};
    const own = [partition ?? [], partitions ?? []].flat();
    if (own.length > 0) return own.join(', ');
    if (this.#byRule.length === 1) return this.#byRule[0]?.text;
    return this.#byRule.find(
      ({ classifier }) => classifier.place(request, matched, identity).place === 'partition',
    )?.text;
  }

  #routeOf({ route }: MatchedRequest): Judgement['route'] {
    const index = route && this.#indexes.get(route.rule);
    return route === undefined || index === undefined ? null : { index, path: route.rule.path };
  }
}

/** Judged before anybody could tell. */
export const nothingKnown: Judgement = {
  ...{ matched: undefined, route: null, identity: 'not-asked', user: undefined },
  ...{ partitions: [], partitionBy: undefined, would: { do: 'unknown' } },
};

/** The directory is in Redis, which nothing here may wait for. */
const nobodyLooksUp = { cached: () => undefined };

function kindOf(who: Identification): IdentityKind {
  switch (who.kind) {
    case 'user':
      return who.identity.credential;
    case 'anonymous':
      return 'none';
    case 'refused':
      return who.failure.code === 'bad-credential' || who.failure.code === 'untrusted-peer'
        ? 'wrong'
        : 'unavailable';
  }
}
