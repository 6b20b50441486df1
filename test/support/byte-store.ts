/** A store on a plain socket for bodies that are too large to be kept: it makes, counts and hashes bytes. */
import { createHash } from 'node:crypto';
import { type AddressInfo, createServer, type Socket } from 'node:net';

const blockBytes = 65_536;

/** The bytes that `GET /down/N` answers, block by block; no two blocks are alike. */
export function* blocksOf(bytes: number): Generator<Buffer> {
  for (let at = 0; at < bytes; at += blockBytes) {
    const block = Buffer.alloc(Math.min(blockBytes, bytes - at), at / blockBytes / 7);
    block.writeUInt32BE(at / blockBytes, 0);
    yield block;
  }
}

export function hashOf(bytes: number): string {
  const hash = createHash('sha256');
  for (const block of blocksOf(bytes)) hash.update(block);
  return hash.digest('hex');
}

/** Writes all blocks as fast as the other side takes them; tells how many bytes it has got rid of. */
export function pour(socket: Socket, blocks: Generator<Buffer>, onTaken: (bytes: number) => void): void {
  const more = (): void => {
    for (let next = blocks.next(); next.done !== true; next = blocks.next()) {
      const { value: block } = next;
      if (socket.write(block, () => onTaken(block.byteLength))) continue;
      socket.once('drain', more);
      return;
    }
  };
  more();
}

export interface ByteStore {
  readonly url: string;
  /** Bytes of bodies that the other side has taken, and that have arrived here. */
  readonly sent: () => number;
  readonly received: () => number;
  /** While it is deaf, nothing is read of a body. */
  beDeaf(deaf: boolean): void;
  stop(): Promise<void>;
}

/**
 * `GET /down/N` is answered with N bytes, `PUT` with the hash of its body (a length is needed), everything else with
 * "ok" once its head has come.
 */
export async function startByteStore(): Promise<ByteStore> {
  const sockets = new Set<Socket>();
  let sent = 0;
  let received = 0;
  let deaf = false;
  const store = {
    url: '',
    sent: () => sent,
    received: () => received,
    beDeaf: (now: boolean) => {
      deaf = now;
      for (const socket of sockets) socket.resume();
    },
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    let head = '';
    let upload: { left: number; readonly hash: ReturnType<typeof createHash> } | undefined;
    const take = (chunk: Buffer): void => {
      if (upload === undefined) return;
      received += chunk.byteLength;
      upload.left -= chunk.byteLength;
      upload.hash.update(chunk);
      if (upload.left > 0) return;
      answer(socket, upload.hash.digest('hex'));
      upload = undefined;
      head = '';
    };
    socket.on('data', (chunk: Buffer) => {
      if (upload !== undefined) {
        take(chunk);
        return;
      }
      head += chunk.toString('latin1');
      const end = head.indexOf('\r\n\r\n');
      if (end === -1) return;
      const [startLine = ''] = head.split('\r\n', 1);
      const rest = Buffer.from(head.slice(end + 4), 'latin1');
      const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
      const down = /^GET \/down\/(\d+)/.exec(startLine)?.[1];
      if (startLine.startsWith('PUT') && length > 0) {
        upload = { left: length, hash: createHash('sha256') };
        take(rest);
        if (deaf) socket.pause();
        return;
      }
      head = '';
      if (down === undefined) {
        answer(socket, 'ok');
        return;
      }
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${down}\r\n\r\n`);
      pour(socket, blocksOf(Number(down)), (bytes) => (sent += bytes));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  store.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return store;
}

function answer(socket: Socket, body: string): void {
  socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
}
