/**
 * One connection to a store, which carries one exchange at a time: writes its request, takes its answer apart, and
 * is given up whenever it is not certain what the next bytes on it would mean.
 */
import type { Socket } from 'node:net';
import { resetStoreConnection, type StoreDial } from '../../stores/connect.ts';
import { stageOfFault } from '../connect-fault.ts';
import type { FailedStage } from '../upstream.ts';
import { Deadline } from './deadline.ts';
import type { Carrier, Exchange } from './exchange.ts';
import { type BodySender, type BodyWatch, writeRequest } from './request-writer.ts';
import { type FinalHead, type ResponseEnd, ResponseParser, type Taken } from './response-parser.ts';

export interface ConnectionSettings {
  readonly dial: StoreDial;
  readonly bodyTimeoutMs: number;
  readonly headerBytesMax: number;
}

export interface ConnectionOwner {
  /** It can carry another exchange, from the next turn of the event loop on. */
  onFree(connection: Connection): void;
  onGone(connection: Connection): void;
  /** Its answer is an event stream. False: there are too many. */
  onStream(connection: Connection): boolean;
}

/** Without a hint of the store; most servers wait for 5 s or longer. */
const keepMsDefault = 4_000;
const keepMsMax = 600_000;
/** A store that closes after 5 s may do so while a request is on its way: it gets none in the last second. */
const keepMarginMs = 1_000;
const fieldsMax = 1_000;
const interimMax = 32;

export class Connection implements Carrier, BodyWatch {
  /** It carries an event stream, and counts as one. */
  streaming = false;
  readonly #settings: ConnectionSettings;
  readonly #owner: ConnectionOwner;
  readonly #parser: ResponseParser;
  readonly #deadline = new Deadline(() => this.#onDeadline());
  readonly #stopDialing: () => void;
  #socket: Socket | undefined;
  #exchange: Exchange | undefined;
  /** Sends the rest of the request. */
  #sender: BodySender | undefined;
  #headTaken = false;
  #paused = false;
  #closed = false;
  /** How long it may be idle, and until when, ms. */
  #idleMs = keepMsDefault;
  #idleUntilMs = Number.POSITIVE_INFINITY;

  /** Opens it; the exchange is carried, or fails with it. */
  constructor(settings: ConnectionSettings, owner: ConnectionOwner, exchange: Exchange) {
    this.#settings = settings;
    this.#owner = owner;
    this.#parser = new ResponseParser({ headBytesMax: settings.headerBytesMax, fieldsMax, interimMax });
    this.#exchange = exchange;
    exchange.carriedBy(this);
    this.#stopDialing = settings.dial(this.#onOpened, this.#onBytes);
  }

  readonly #onOpened = (socket: Socket | undefined, fault: Error | undefined): void => {
    if (socket === undefined) {
      const cause = fault ?? new Error('no connection could be opened');
      this.#end(stageOfFault(cause), cause);
      return;
    }
    this.#socket = socket;
    socket.on('drain', () => this.#sender?.drained());
    socket.on('end', this.#onStoreEnded);
    socket.on('error', (error) => this.#end('broken', error));
    socket.on('close', () => this.#end('broken', new Error('the connection was closed')));
    const exchange = this.#exchange;
    this.#exchange = undefined;
    if (exchange === undefined) this.#owner.onFree(this);
    else this.carry(exchange);
  };

  /** Nothing is under way on it, and as far as anybody knows the store will take another request. */
  mayCarry(): boolean {
    const socket = this.#socket;
    if (this.#closed || socket === undefined || this.#exchange !== undefined) return false;
    return socket.writable && !socket.readableEnded;
  }

  /** It is idle from now on. */
  rest(nowMs: number): void {
    this.#idleUntilMs = nowMs + this.#idleMs;
  }

  /** It has been idle for too long: the store may be about to close it. */
  isTired(nowMs: number): boolean {
    return nowMs >= this.#idleUntilMs;
  }

  /** Only where it may. */
  carry(exchange: Exchange): void {
    const socket = this.#socket;
    if (socket === undefined || this.#exchange !== undefined) throw new Error('this connection is in use');
    exchange.carriedBy(this);
    if (!exchange.sending()) {
      exchange.fail('cancelled', new Error('not to be sent any more'));
      this.#owner.onFree(this);
      return;
    }
    this.#exchange = exchange;
    this.#headTaken = false;
    this.#parser.expect(exchange.request.method);
    this.#waitForStore(exchange);
    this.#sender = writeRequest(socket, exchange.request, this);
    this.#sender?.start();
  }

  /** In order, where nothing is under way; else what is under way fails. */
  close(cause = new Error('the connection was closed')): void {
    this.#end(this.#socket === undefined ? 'closed' : 'broken', cause);
  }

  // --- the exchange's side -----------------------------------------------------------------------------

  abandon(exchange: Exchange): void {
    if (this.#exchange !== exchange) return;
    this.#exchange = undefined;
    // One that is still being opened can carry another.
    if (this.#socket !== undefined) this.#giveUp(true);
  }

  pause(): void {
    this.#paused = true;
    this.#deadline.lift();
    this.#socket?.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket?.resume();
    if (this.#exchange !== undefined) this.#waitForStore(this.#exchange);
  }

  // --- the request's body ------------------------------------------------------------------------------

  onProgress(): void {
    if (this.#exchange !== undefined) this.#waitForStore(this.#exchange);
  }

  onSent(): void {
    this.#sender = undefined;
    this.onProgress();
  }

  onBroken(cause: Error): void {
    this.#end('broken', cause);
  }

  // --- the store's side --------------------------------------------------------------------------------

  readonly #onBytes = (bytes: Buffer, lasting: boolean): void => {
    const exchange = this.#exchange;
    // What nobody asked for must not be taken for the next answer.
    if (exchange === undefined) this.close();
    else this.#take(exchange, this.#parser.take(bytes), lasting);
  };

  readonly #onStoreEnded = (): void => {
    const exchange = this.#exchange;
    const end = exchange && this.#parser.finish().end;
    if (exchange !== undefined && end !== undefined) this.#complete(exchange, end);
    this.#end('broken', new Error('the store closed the connection before its answer was complete'));
  };

  #take(exchange: Exchange, taken: Taken, lasting: boolean): void {
    for (const { status, rawHeaders } of taken.interim) {
      if (!exchange.over) exchange.interim(status, rawHeaders);
    }
    if (taken.head !== undefined && !exchange.over) this.#takeHead(exchange, taken.head);
    for (const piece of taken.body) {
      if (!exchange.over) exchange.data(lasting ? piece : Buffer.from(piece));
    }
    if (exchange.over) return;
    if (taken.refusal !== undefined)
      this.#end('broken', new Error(`the answer is not HTTP: ${taken.refusal}`));
    else if (taken.end !== undefined) this.#complete(exchange, taken.end);
    else {
      // A head that comes byte by byte has no more time than one that comes at once.
      if (this.#headTaken) this.#waitForStore(exchange);
      exchange.caughtUp();
    }
  }

  #takeHead(exchange: Exchange, { status, reason, rawHeaders, eventStream }: FinalHead): void {
    this.#headTaken = true;
    if (eventStream && exchange.request.stream !== 'no' && !this.#owner.onStream(this)) {
      this.#end('streams-full', new Error('all event streams are in use'));
      return;
    }
    exchange.head(status, reason, rawHeaders);
  }

  #complete(exchange: Exchange, { rawTrailers, keepMs }: ResponseEnd): void {
    this.#exchange = undefined;
    this.#deadline.lift();
    const socket = this.#socket;
    const idleMs = keepMs === Number.POSITIVE_INFINITY ? keepMsDefault : keepMs - keepMarginMs;
    if (this.#sender !== undefined || socket === undefined || socket.writableLength > 0) {
      // Answered before the request was sent: nothing of the rest may arrive.
      this.#giveUp(true);
    } else if (idleMs <= 0) {
      this.#giveUp(false);
    } else {
      if (this.#paused) this.resume();
      this.#idleMs = Math.min(idleMs, keepMsMax);
      this.#owner.onFree(this);
    }
    exchange.end(rawTrailers);
  }

  #waitForStore({ request }: Exchange): void {
    const waitMs = this.#headTaken ? this.#settings.bodyTimeoutMs : request.headTimeoutMs;
    if (waitMs === 0 || this.#paused) this.#deadline.lift();
    else this.#deadline.set(waitMs);
  }

  #onDeadline(): void {
    this.#end(
      'timeout',
      new Error(this.#headTaken ? 'the store fell silent in its answer' : 'the store did not answer in time'),
    );
  }

  /** The connection is over, and what it carries with it. */
  #end(stage: FailedStage, cause: Error): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    this.#giveUp(exchange !== undefined);
    exchange?.fail(stage, cause);
  }

  /** `reset`: so that the store gets nothing more of what was not delivered yet. */
  #giveUp(reset: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#sender?.stop();
    this.#sender = undefined;
    this.#deadline.close();
    this.#parser.free();
    if (this.#socket === undefined) this.#stopDialing();
    else if (reset) resetStoreConnection(this.#socket);
    else this.#socket.destroy();
    this.#owner.onGone(this);
  }
}
