/** Large bodies through a proxy, piece by piece, so that whoever sends or reads them needs no memory for them. */
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { largeAnswer, mebibyte } from './bodies.ts';

const piece = largeAnswer();

export interface Way {
  readonly port: number;
  readonly headers: Readonly<Record<string, string>>;
}

/** Sends so many MiB to /sink. Throws where they are not taken. */
export async function upload({ port, headers }: Way, mebibytes: number): Promise<void> {
  const length = String(mebibytes * mebibyte);
  const sent = request({
    ...{ host: '127.0.0.1', port, path: '/sink', method: 'POST' },
    headers: { ...headers, 'Content-Length': length },
  });
  const answered = once(sent, 'response') as Promise<[IncomingMessage]>;
  for (let at = 0; at < mebibytes; at += 1) {
    if (!sent.write(piece)) await once(sent, 'drain');
  }
  sent.end();
  const [answer] = await answered;
  const text = Buffer.concat(await answer.toArray()).toString();
  if (answer.statusCode !== 200) throw new Error(`an upload was answered ${answer.statusCode}: ${text}`);
}

/** Reads so many MiB from /bytes. Throws where one byte is not as it was sent. */
export async function download({ port, headers }: Way, mebibytes: number): Promise<void> {
  const asked = request({ host: '127.0.0.1', port, path: `/bytes/${mebibytes}`, headers });
  asked.end();
  const [answer] = (await once(asked, 'response')) as [IncomingMessage];
  if (answer.statusCode !== 200) throw new Error(`a download was answered ${answer.statusCode}`);
  let at = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    for (let from = 0; from < chunk.byteLength;) {
      const place = at % mebibyte;
      const size = Math.min(chunk.byteLength - from, mebibyte - place);
      if (chunk.compare(piece, place, place + size, from, from + size) !== 0) {
        throw new Error(`a download differs from what was sent, after ${at} bytes`);
      }
      at += size;
      from += size;
    }
  }
  if (at !== mebibytes * mebibyte) throw new Error(`a download ended after ${at} bytes`);
}
