/** WebSocket frames as bytes (RFC 6455, 5.2), in the latin1 text that raw clients and stores exchange. */

export interface FrameOptions {
  readonly opcode?: number;
  readonly fin?: boolean;
  /** As a client must. */
  readonly masked?: boolean;
}

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** One frame with this payload, which is not looked into. */
export function frame(payload: string, options: FrameOptions = {}): string {
  const { opcode = opcodes.text, fin = true, masked = false } = options;
  const { length } = payload;
  const form = length < 126 ? length : length < 65_536 ? 126 : 127;
  const head = Buffer.alloc(form === 126 ? 4 : form === 127 ? 10 : 2);
  head[0] = (fin ? 128 : 0) | opcode;
  head[1] = (masked ? 128 : 0) | form;
  if (form === 126) head.writeUInt16BE(length, 2);
  if (form === 127) head.writeBigUInt64BE(BigInt(length), 2);
  // A mask of zeros leaves the payload readable.
  return head.toString('latin1') + (masked ? '\0\0\0\0' : '') + payload;
}

export const close1012 = '\x88\x02\x03\xf4';
export const maskedClose1012 = '\x88\x82\0\0\0\0\x03\xf4';
