/**
 * The question whether a store upgrades a connection: a connection of its own, beside the pool, so that long-lived
 * ones never stand in the way of requests. node:http asks and reads the answer; nothing is ever asked twice.
 */
import { type IncomingMessage, request as ask } from 'node:http';
import type { Socket } from 'node:net';
import { resetStoreConnection, type StoreDial } from '../stores/connect.ts';
import { stageOfFault } from './connect-fault.ts';
import type { FailedStage } from './upstream.ts';

export interface HandshakeOrder {
  readonly dial: StoreDial;
  /** From sending to the head of the answer. */
  readonly answerTimeoutMs: number;
  readonly headerBytesMax: number;
  readonly target: string;
  /** Flat, with Host and those of the upgrade, in the order in which they are sent. */
  readonly headers: readonly string[];
}

/** What comes of it; after onSending exactly one of the last three is called, before it only onFailed. */
export interface HandshakeListener {
  /** From here on bytes may have left. False: nothing must be sent. */
  onSending(): boolean;
  onUpgraded(answer: IncomingMessage, store: Socket, early: Buffer): void;
  onAnswered(answer: IncomingMessage): void;
  onFailed(stage: FailedStage, cause: Error): void;
}

export class Handshake {
  readonly #order: HandshakeOrder;
  readonly #listener: HandshakeListener;
  #socket: Socket | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopDialling = (): void => {};
  #over = false;

  constructor(order: HandshakeOrder, listener: HandshakeListener) {
    this.#order = order;
    this.#listener = listener;
  }

  start(): void {
    this.#stopDialling = this.#order.dial((socket, fault) => {
      if (socket !== undefined) this.#ask(socket);
      else this.#fail(stageOfFault(fault), fault ?? new Error('not connected'));
    });
  }

  /** The answer is not wanted any more: what is under way is reset, and the listener hears nothing further. */
  cancel(): void {
    this.#finish();
    if (this.#socket === undefined) this.#stopDialling();
    else resetStoreConnection(this.#socket);
  }

  #ask(socket: Socket): void {
    this.#socket = socket;
    const { answerTimeoutMs, headerBytesMax, target, headers } = this.#order;
    if (!this.#listener.onSending()) {
      this.#finish();
      socket.destroy();
      return;
    }
    const asked = ask({
      createConnection: () => socket,
      method: 'GET',
      path: target,
      headers,
      maxHeaderSize: headerBytesMax,
    });
    asked.maxHeadersCount = 0;
    asked.on('error', (error) => this.#fail('broken', error));
    asked.on('upgrade', (answer, store, early) =>
      this.#settle(() => this.#listener.onUpgraded(answer, store, early)),
    );
    asked.on('response', (answer) => this.#settle(() => this.#listener.onAnswered(answer)));
    this.#timer = setTimeout(() => {
      this.#fail('timeout', new Error('the store did not answer the upgrade in time'));
      resetStoreConnection(socket);
    }, answerTimeoutMs);
    asked.end();
  }

  #fail(stage: FailedStage, cause: Error): void {
    this.#settle(() => this.#listener.onFailed(stage, cause));
  }

  #settle(tell: () => void): void {
    if (this.#over) return;
    this.#finish();
    tell();
  }

  #finish(): void {
    this.#over = true;
    clearTimeout(this.#timer);
  }
}
