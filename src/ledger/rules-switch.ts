/**
 * Makes this process's rules the active ones. Granted once no listed member runs others any more, so the last
 * process of a rolling restart switches them all.
 */
import type { Rules } from '../core/view.ts';
import type { Log } from '../log.ts';
import type { RedisLedger } from './ledger.ts';

const momentMs = 5_000;

export class RulesSwitch {
  readonly #ledger: RedisLedger;
  readonly #own: Rules;
  readonly #log: Log;
  #refused = 'the ledger has not named them yet';
  #sinceMs: number | undefined;
  #warned = false;

  constructor(ledger: RedisLedger, own: Rules, log: Log) {
    this.#ledger = ledger;
    this.#own = own;
    this.#log = log;
  }

  /** Why this process admits nothing under the rules that are active; undefined where they are its own. */
  trouble(active: Rules | undefined): string | undefined {
    return active?.hash === this.#own.hash ? undefined : `rules-not-active: ${this.#refused}`;
  }

  /** Processes that change together do so one after the other: only what lasts is a warning. */
  #tell(sentence: string): void {
    const nowMs = performance.now();
    const first = this.#sinceMs === undefined;
    this.#sinceMs ??= nowMs;
    if (first) {
      const detail = `${sentence}. That is normal for a moment while the proxies change their rules`;
      this.#log('info', 'rules.not-active', { detail });
    } else if (!this.#warned && nowMs - this.#sinceMs > momentMs) {
      this.#warned = true;
      this.#log('warn', 'rules.not-active', { detail: sentence });
    }
  }

  /** True when the ledger has just switched to this process's rules. */
  async ask(active: Rules | undefined, by: string): Promise<boolean> {
    if (active?.hash === this.#own.hash) {
      this.#sinceMs = undefined;
      this.#warned = false;
      return false;
    }
    const answer = await this.#ledger.activateRules(active, this.#own, by, 'every listed member runs them');
    if (answer.result === 'done') return true;
    const sentence = `this process runs other rules for identity, partition or routes than the active ones (${answer.detail}). They switch when every listed proxy runs the same`;
    this.#tell(sentence);
    this.#refused = sentence;
    return false;
  }
}
