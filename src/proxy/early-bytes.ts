/**
 * What a client sends behind its upgrade before that is answered: read and kept, within a bound, because only who
 * reads learns that the client has gone away.
 */
import type { Duplex } from 'node:stream';

const keptBytesMax = 65_536;

export class EarlyBytes {
  readonly client: Duplex;
  readonly #chunks: Buffer[];
  #bytes: number;

  constructor(client: Duplex, head: Buffer) {
    this.client = client;
    this.#chunks = [head];
    this.#bytes = head.byteLength;
    client.on('data', this.#keep);
    client.on('end', this.#gone);
  }

  /** From now on somebody else reads. */
  take(): Buffer {
    this.client.off('data', this.#keep);
    this.client.off('end', this.#gone);
    this.client.pause();
    const bytes = Buffer.concat(this.#chunks);
    this.#chunks.length = 0;
    return bytes;
  }

  readonly #keep = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#bytes += chunk.byteLength;
    if (this.#bytes > keptBytesMax) this.client.pause();
  };

  /** Nobody half-closes a connection that is to become a WebSocket. */
  readonly #gone = (): void => {
    this.client.destroy();
  };
}
