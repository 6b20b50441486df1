/**
 * What a client sends behind its upgrade before that is answered: read and kept, within bounds, because only who
 * reads learns that the client has gone away.
 */
import type { Duplex } from 'node:stream';
import type { ByteBudget } from './byte-budget.ts';

const keptBytesMax = 65_536;

export interface EarlyRoom {
  /** Of all that is kept of requests. */
  readonly budget: ByteBudget;
  /** Once, where it is spent: the connection was ended. A client must not send before it has its answer (RFC 6455, 4.1). */
  readonly full: () => void;
}

export class EarlyBytes {
  readonly client: Duplex;
  readonly #room: EarlyRoom;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(client: Duplex, head: Buffer, room: EarlyRoom) {
    this.client = client;
    this.#room = room;
    client.on('data', this.#keep);
    client.on('end', this.#gone);
    client.once('close', this.#drop);
    this.#keep(head);
  }

  /** From now on somebody else reads. */
  take(): Buffer {
    this.client.off('data', this.#keep);
    this.client.off('end', this.#gone);
    this.client.off('close', this.#drop);
    this.client.pause();
    const bytes = Buffer.concat(this.#chunks);
    this.#drop();
    return bytes;
  }

  readonly #keep = (chunk: Buffer): void => {
    const { budget, full } = this.#room;
    if (this.client.destroyed) return;
    if (!budget.take(chunk.byteLength)) {
      this.client.destroy();
      full();
      return;
    }
    this.#chunks.push(chunk);
    this.#bytes += chunk.byteLength;
    if (this.#bytes > keptBytesMax) this.client.pause();
  };

  readonly #drop = (): void => {
    this.#chunks.length = 0;
    this.#room.budget.give(this.#bytes);
    this.#bytes = 0;
  };

  /** Nobody half-closes a connection that is to become a WebSocket. */
  readonly #gone = (): void => {
    this.client.destroy();
  };
}
