/** Where one WebSocket frame ends and the next begins (RFC 6455, 5.2), for who must put a frame in between. */

/** Two bytes, the longest form of the length, and the mask. */
const headBytesMax = 14;

export class FrameCount {
  readonly #head = Buffer.alloc(headBytesMax);
  #headBytes = 0;
  #payloadLeft = 0;

  /** Bytes of one direction, in order. */
  add(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      if (this.#payloadLeft > 0) {
        const step = Math.min(this.#payloadLeft, chunk.length - at);
        this.#payloadLeft -= step;
        at += step;
        continue;
      }
      this.#head[this.#headBytes] = chunk[at] ?? 0;
      this.#headBytes += 1;
      at += 1;
      if (this.#headBytes < this.#headLength()) continue;
      this.#payloadLeft = this.#payloadLength();
      this.#headBytes = 0;
    }
  }

  /** The last frame is complete. */
  get between(): boolean {
    return this.#headBytes === 0 && this.#payloadLeft === 0;
  }

  #headLength(): number {
    if (this.#headBytes < 2) return 2;
    const second = this.#head[1] ?? 0;
    const mask = second > 127 ? 4 : 0;
    const form = second & 127;
    return 2 + mask + (form === 126 ? 2 : form === 127 ? 8 : 0);
  }

  #payloadLength(): number {
    const form = (this.#head[1] ?? 0) & 127;
    if (form < 126) return form;
    return form === 126 ? this.#head.readUInt16BE(2) : Number(this.#head.readBigUInt64BE(2));
  }
}
