/**
 * Keeps the answer to a write back, from its head on, until its client may hear of it. What comes meanwhile waits in
 * memory, little of it: the exchange is paused. Answers that say that nothing was changed pass at once.
 */
import type { Upstream, UpstreamExchange, UpstreamListener, UpstreamRequest } from './upstream.ts';

/** `mayAnswer`: undefined when it may be answered now; never rejects. */
export function holdingAnswers(
  upstream: Pick<Upstream, 'send'>,
  mayAnswer: () => Promise<void> | undefined,
): Pick<Upstream, 'send'> {
  return { send: (request, listener) => new HeldAnswer(listener, mayAnswer).send(upstream, request) };
}

class HeldAnswer implements UpstreamListener, UpstreamExchange {
  readonly #listener: UpstreamListener;
  readonly #mayAnswer: () => Promise<void> | undefined;
  #exchange: UpstreamExchange | undefined;
  /** What has come since the answer is held. */
  #held: (() => void)[] | undefined;

  constructor(listener: UpstreamListener, mayAnswer: () => Promise<void> | undefined) {
    this.#listener = listener;
    this.#mayAnswer = mayAnswer;
  }

  send(upstream: Pick<Upstream, 'send'>, request: UpstreamRequest): UpstreamExchange {
    this.#exchange = upstream.send(request, this);
    return this;
  }

  onSending(): boolean {
    return this.#listener.onSending();
  }

  onInformation(status: number, rawHeaders: string[]): void {
    this.#tell(() => this.#listener.onInformation(status, rawHeaders));
  }

  onHead(status: number, reason: string, rawHeaders: string[]): void {
    if (status < 400) this.#hold();
    this.#tell(() => this.#listener.onHead(status, reason, rawHeaders));
  }

  onData(chunk: Buffer): void {
    this.#tell(() => this.#listener.onData(chunk));
  }

  onCaughtUp(): void {
    this.#tell(() => this.#listener.onCaughtUp());
  }

  onEnd(rawTrailers: string[]): void {
    this.#tell(() => this.#listener.onEnd(rawTrailers));
  }

  onFailed(stage: Parameters<UpstreamListener['onFailed']>[0], cause: Error): void {
    this.#tell(() => this.#listener.onFailed(stage, cause));
  }

  /** Who breaks it off hears first what the store has said. */
  cancel(reason: Error): void {
    this.#letGo();
    this.#exchange?.cancel(reason);
  }

  pause(): void {
    this.#exchange?.pause();
  }

  resume(): void {
    if (this.#held === undefined) this.#exchange?.resume();
  }

  #hold(): void {
    const known = this.#mayAnswer();
    if (known === undefined) return;
    this.#held = [];
    this.#exchange?.pause();
    void known.then(() => this.#letGo());
  }

  #tell(step: () => void): void {
    if (this.#held === undefined) step();
    else this.#held.push(step);
  }

  #letGo(): void {
    const steps = this.#held;
    if (steps === undefined) return;
    this.#held = undefined;
    this.#exchange?.resume();
    try {
      for (const step of steps) step();
    } catch (cause) {
      // As with any listener: it ends its own exchange, and nothing else.
      this.#listener.onFailed('broken', cause instanceof Error ? cause : new Error(String(cause)));
    }
  }
}
