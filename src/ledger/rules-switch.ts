/**
 * Makes this process's rules the active ones. Granted once no listed member runs others any more, so the last
 * process of a rolling restart switches them all.
 */
import type { Rules } from '../core/view.ts';
import type { Log } from '../log.ts';
import type { RedisLedger } from './ledger.ts';

export class RulesSwitch {
  readonly #ledger: RedisLedger;
  readonly #own: Rules;
  readonly #log: Log;
  #refused = 'the ledger has not named them yet';

  constructor(ledger: RedisLedger, own: Rules, log: Log) {
    this.#ledger = ledger;
    this.#own = own;
    this.#log = log;
  }

  /** Why this process admits nothing under the rules that are active; undefined where they are its own. */
  trouble(active: Rules | undefined): string | undefined {
    return active?.hash === this.#own.hash ? undefined : `rules-not-active: ${this.#refused}`;
  }

  /** True when the ledger has just switched to this process's rules. */
  async ask(active: Rules | undefined, by: string): Promise<boolean> {
    if (active?.hash === this.#own.hash) return false;
    const answer = await this.#ledger.activateRules(active, this.#own, by, 'every listed member runs them');
    if (answer.result === 'done') return true;
    const sentence = `this process runs other rules for identity, partition or routes than the active ones (${answer.detail}). They switch when every listed proxy runs the same`;
    if (sentence !== this.#refused) this.#log('warn', 'rules.not-active', { detail: sentence });
    this.#refused = sentence;
    return false;
  }
}
