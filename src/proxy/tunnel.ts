/**
 * The two connections of an upgraded exchange. Bytes pass as they come, in both directions, and each side waits for
 * the other; where one side ends, or is gone, so is the other. Frames are counted, never looked into.
 */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { resetStoreConnection } from '../stores/connect.ts';
import { FrameCount } from './frames.ts';
import { resetConnection } from './reset.ts';

/** How long a side has to take the closing frame, ms; far below any settle time. */
const closeWithinMs = 200;
/** How long the other side may be silent where one has ended. */
const halfOpenMs = 10_000;
/** To find out about a peer that vanished without a word. */
const keepAliveAfterMs = 30_000;

/** Server to client: FIN, opcode 8, two bytes, 1012 "service restart". */
const closeFrame = Buffer.from([0x88, 0x02, 0x03, 0xf4]);
/** To the store a client's frame: the same, masked (RFC 6455, 5.3) with a key of zeros. */
const maskedCloseFrame = Buffer.from([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]);

export interface TunnelParts {
  readonly client: Duplex;
  readonly store: Socket;
  /** Asked before anything is passed to the store. */
  readonly mayContinue: () => boolean;
  /** How long the store may take nothing of what the client sends; and the other way round, ms. */
  readonly storeStallMs: number;
  readonly clientStallMs: number;
  /** Without a byte from either side, ms; 0: no bound. */
  readonly silenceMs: number;
  /** Once, when no byte is passed any more. */
  readonly ended: () => void;
}

export class Tunnel {
  readonly #parts: TunnelParts;
  readonly #fromClient = new FrameCount();
  readonly #fromStore = new FrameCount();
  #silence: NodeJS.Timeout | undefined;
  #halfOpen = false;
  #over = false;

  constructor(parts: TunnelParts) {
    this.#parts = parts;
  }

  /** What each side has sent already goes first. */
  open(early: { readonly fromClient: Buffer; readonly fromStore: Buffer }): void {
    const { client, store, storeStallMs, clientStallMs, silenceMs } = this.#parts;
    store.allowHalfOpen = true;
    for (const side of [client as Socket, store]) {
      side.setTimeout(0);
      side.setNoDelay(true);
      side.setKeepAlive(true, keepAliveAfterMs);
    }
    if (silenceMs > 0) this.#silence = setTimeout(this.#reset, silenceMs);
    store.on('error', () => store.destroy());
    if (early.fromStore.byteLength > 0) store.unshift(early.fromStore);
    if (early.fromClient.byteLength > 0) client.unshift(early.fromClient);
    const { mayContinue } = this.#parts;
    this.#pump({ from: client, to: store, frames: this.#fromClient, stallMs: storeStallMs, mayContinue });
    this.#pump({ from: store, to: client, frames: this.#fromStore, stallMs: clientStallMs });
  }

  /** Both sides are told to come again, each between two of its frames, or else just ended. */
  close(): void {
    if (this.#over) return;
    const { client, store } = this.#parts;
    this.#end();
    if (this.#fromStore.between) client.end(closeFrame);
    else client.end();
    if (this.#fromClient.between) store.end(maskedCloseFrame);
    else store.end();
    // Read on, so that nothing unread turns the end into a reset before the frame is taken.
    client.resume();
    store.resume();
    // What a side has not taken by then, it shall not get any more.
    setTimeout(this.#cutBoth, closeWithinMs).unref();
  }

  #pump(way: Way): void {
    const { from, to, frames, stallMs, mayContinue } = way;
    let stalled: NodeJS.Timeout | undefined;
    to.on('drain', () => {
      clearTimeout(stalled);
      from.resume();
    });
    from.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      if (mayContinue?.() === false) {
        this.#reset();
        return;
      }
      this.#silence?.refresh();
      frames.add(chunk);
      if (to.write(chunk)) return;
      from.pause();
      clearTimeout(stalled);
      stalled = setTimeout(this.#reset, stallMs);
    });
    from.once('end', () => {
      if (this.#over) return;
      to.end();
      if (!this.#halfOpen) this.#beHalfOpen();
    });
    from.once('close', () => {
      clearTimeout(stalled);
      if (this.#over) return;
      this.#end();
      // Its end was passed on; without one it broke off, and the other side must see that.
      if (from.readableEnded && to.writableEnded) (to as Socket).destroySoon();
      else to.destroy();
    });
    from.resume();
  }

  #beHalfOpen(): void {
    this.#halfOpen = true;
    clearTimeout(this.#silence);
    const { silenceMs } = this.#parts;
    const boundMs = silenceMs > 0 ? Math.min(silenceMs, halfOpenMs) : halfOpenMs;
    this.#silence = setTimeout(this.#reset, boundMs);
  }

  /** Nothing that is still on its way is to arrive. */
  readonly #reset = (): void => {
    if (this.#over) return;
    this.#end();
    this.#cutBoth();
  };

  readonly #cutBoth = (): void => {
    const { client, store } = this.#parts;
    if (!client.destroyed) resetConnection(client);
    if (!store.destroyed) resetStoreConnection(store);
  };

  #end(): void {
    this.#over = true;
    clearTimeout(this.#silence);
    this.#parts.ended();
  }
}

interface Way {
  readonly from: Duplex;
  readonly to: Duplex;
  readonly frames: FrameCount;
  readonly stallMs: number;
  readonly mayContinue?: () => boolean;
}
