/**
 * Writes on pinned routes. They belong to no partition and hold no ticket, so no fence waits for them; where other rules
 * give their route to partitions, or to the other store, the change of the rules does.
 */
import type { IncomingMessage } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { WriteOutcome } from '../core/member.ts';
import type { StoreName } from '../core/ownership.ts';
import type { RouteRule } from '../core/route.ts';
import type { Passage } from './admit.ts';
import type { Classifier, MatchedRequest } from './classify.ts';
import type { ProxyContext } from './serve.ts';

/** What other rules would not leave at its store, of the writes that hold no ticket. */
export interface Unpinned {
  readonly webSockets: number;
  readonly inFlight: number;
  readonly inDoubt: number;
}

interface UnderWay {
  readonly request: IncomingMessage;
  readonly matched: MatchedRequest;
  readonly store: StoreName;
}

/** By which routes are found. */
type RouteRules = Pick<Config, 'routes' | 'pathEndings'>;

interface Doubt {
  /** Monotonic ms. */
  readonly untilMs: number;
  /** By which its rule was found. */
  readonly before: RouteRules;
}

export class PinnedWrites {
  readonly #underWay = new Set<UnderWay>();
  /** Of each rule the last: a request need not be remembered for it. */
  readonly #doubts = new Map<RouteRule, Doubt>();

  /** Counts the write until what is returned is called. */
  begin(
    request: IncomingMessage,
    matched: MatchedRequest,
    store: StoreName,
    before: RouteRules,
    settleMs: number,
  ): (outcome: WriteOutcome) => void {
    const write = { request, matched, store };
    this.#underWay.add(write);
    return (outcome) => {
      this.#underWay.delete(write);
      if (outcome !== 'in-doubt') return;
      // What a MOVE changes lies also where it moves to.
      for (const route of [matched.route, matched.destination?.route]) {
        if (route !== undefined) {
          this.#doubts.set(route.rule, { untilMs: performance.now() + settleMs, before });
        }
      }
    };
  }

  /** As it is now. `next`: what `classifier` goes by. */
  unpinnedBy(classifier: Pick<Classifier, 'match'>, next: RouteRules): Unpinned {
    const leaving = [...this.#underWay].filter(
      ({ request, matched, store }) => !staysPinned(classifier, request, matched, store),
    );
    const webSockets = leaving.filter(({ matched }) => isUpgrade(matched)).length;
    let inDoubt = 0;
    for (const [rule, { untilMs, before }] of this.#doubts) {
      if (performance.now() >= untilMs) this.#doubts.delete(rule);
      else if (!sameUpTo(rule, before, next)) inDoubt += 1;
    }
    return { webSockets, inFlight: leaving.length - webSockets, inDoubt };
  }

  /** Until nothing is in doubt any more that has ended, ms. */
  settledInMs(): number {
    const untilMs = Math.max(0, ...[...this.#doubts.values()].map((doubt) => doubt.untilMs));
    return Math.max(0, untilMs - performance.now());
  }
}

/** What is returned is called when the write ends; undefined where it is no pinned one. */
export function beginPinned(
  { pinned, config }: Pick<ProxyContext, 'pinned' | 'config'>,
  request: IncomingMessage,
  matched: MatchedRequest,
  { store, ticket }: Passage,
): ReturnType<PinnedWrites['begin']> | undefined {
  if (ticket !== undefined || matched.access !== 'write') return undefined;
  return pinned.begin(request, matched, store, config, config.stores[store].settleMs);
}

/** Would the request, by these rules, still be a pinned one of this store? Not where that cannot be told at once. */
export function staysPinned(
  classifier: Pick<Classifier, 'match'>,
  request: IncomingMessage,
  matched: MatchedRequest,
  store: StoreName,
): boolean {
  const match = classifier.match(request, isUpgrade(matched));
  if (match.match !== 'request') return false;
  const { route, destination } = match.request;
  return (
    route?.rule.store === store && (destination === undefined || destination.route?.rule.store === store)
  );
}

function isUpgrade({ accessBy }: MatchedRequest): boolean {
  return accessBy === 'upgrade';
}

/** The first rule that matches counts, so with the same rules up to this one all that it matched is matched by it. */
function sameUpTo(rule: RouteRule, before: RouteRules, after: RouteRules): boolean {
  const end = before.routes.findIndex((other) => other === rule) + 1;
  const upTo = ({ routes, pathEndings }: RouteRules): string =>
    JSON.stringify([pathEndings, routes.slice(0, end)]);
  return end > 0 && upTo(before) === upTo(after);
}
