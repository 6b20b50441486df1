/** What travels in the comparison; the upstream and who proves the proxies must mean the same bytes. */

export const mebibyte = 1_048_576;

/** JSON of about 150 bytes. */
export const smallAnswer: Buffer = Buffer.from(JSON.stringify({ id: 'r1', text: 'x'.repeat(127) }));

/** JSON of exactly 1 KiB. */
export function jsonBody(): Buffer {
  const empty = JSON.stringify({ id: 'r1', text: '' }).length;
  return Buffer.from(JSON.stringify({ id: 'r1', text: 'x'.repeat(1_024 - empty) }));
}

/** 1 MiB in which no piece is like another, so that a lost or doubled one shows. */
export function largeAnswer(): Buffer {
  const bytes = Buffer.alloc(mebibyte);
  for (let at = 0; at < bytes.byteLength; at += 4)
    bytes.writeUInt32LE(Math.imul(at, 2_654_435_761) >>> 0, at);
  return bytes;
}
