/**
 * Carries what a process knows of the ledger beyond its own life and beyond the ledger's: into a file, at most
 * every second and when something changed, and beside a ledger that lost data, as a rescue view.
 */
import { type Log, sentenceOf } from '../log.ts';
import type { Holder, Holding, PriorView } from './holding.ts';
import type { KeptView, KeptViews } from './kept-views.ts';
import type { Rescues } from './rescues.ts';

export interface KeeperParts {
  /** Whose view it is, until `follow` names another. */
  readonly holder: Holder;
  readonly views: KeptViews;
  readonly rescues: Rescues;
  /** Of a process before this one; it goes beside the ledger where this one was never confirmed anything. */
  readonly kept: KeptView | undefined;
  readonly log: Log;
}

const saveEveryMs = 1_000;
/** A large view takes its time to write: no more than a tenth of the time goes into it. */
const restPerSave = 10;
const lookEveryMs = 250;
/** Somebody may empty Redis again. */
const publishAgainMs = 60_000;

export class ViewKeeper {
  readonly #parts: KeeperParts;
  #holder: Holder;
  #before: PriorView | undefined;
  #saved = '';
  #saveFromMs = 0;
  #publishFromMs = 0;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;

  constructor(parts: KeeperParts) {
    this.#parts = parts;
    this.#holder = parts.holder;
    this.#before = parts.kept;
  }

  /** A member acts on what it knows, so its view is the one to carry on, after what was known before it; starts it. */
  follow(holder: Holder, before: PriorView | undefined): void {
    this.#holder = holder;
    this.#before = before;
    this.start();
  }

  start(): void {
    clearInterval(this.#timer);
    void this.#parts.views.clean().catch(() => undefined);
    this.#timer = setInterval(() => void this.#look(), lookEveryMs);
  }

  /** Saves once more what is known now. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
    await this.#save();
  }

  #look(): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  async #lookOnce(): Promise<void> {
    if (performance.now() >= this.#saveFromMs) await this.#save();
    if (this.#holder.regressed() === undefined) this.#publishFromMs = 0;
    else if (performance.now() >= this.#publishFromMs) await this.#publish();
  }

  async #save(): Promise<void> {
    const holding = this.#holder.holding();
    const { confirmed, position } = holding;
    const state = `${confirmed?.version} ${confirmed?.id} ${position.version}`;
    if (confirmed === undefined || state === this.#saved) return;
    // While nothing was ever moved, a ledger that was emptied says the same as before: nothing can be lost.
    if (isEmpty(this.#holder.holding().partitions)) return;
    const startedMs = performance.now();
    try {
      await this.#parts.views.save(holding);
      this.#saved = state;
    } catch (error) {
      this.#parts.log('error', 'ledger-view.not-saved', { error: sentenceOf(error) });
    }
    const endedMs = performance.now();
    this.#saveFromMs = endedMs + Math.max(saveEveryMs, restPerSave * (endedMs - startedMs));
  }

  async #publish(): Promise<void> {
    const { rescues, log } = this.#parts;
    const holder = this.#holder;
    const holding = this.#known();
    if (holding === undefined) return;
    try {
      await rescues.publish(holder.id, holding);
      this.#publishFromMs = performance.now() + publishAgainMs;
      log('warn', 'ledger.rescue-view', { by: holder.id, version: holding.position.version });
    } catch (error) {
      log('warn', 'ledger.rescue-view-failed', { by: holder.id, error: sentenceOf(error) });
    }
  }

  /** A process that only ever saw the ledger after its loss knows nothing worth restoring, but for the file. */
  #known(): Holding | undefined {
    const before = this.#before;
    const holding = this.#holder.holding();
    if (holding.confirmed !== undefined) return holding;
    if (before === undefined) return undefined;
    return { rules: undefined, ...before.document, confirmed: before.confirmed };
  }
}

function isEmpty(entries: Iterable<unknown>): boolean {
  return entries[Symbol.iterator]().next().done === true;
}
