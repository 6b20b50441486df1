/**
 * The store behind every proxy of the comparison, as a process of its own. Plain sockets, so that it costs as little
 * as Node can make it: what it costs is taken from all proxies alike.
 *
 *   GET anything      about 150 bytes of JSON
 *   GET /large        1 MiB, always the same bytes
 *   GET /bytes/N      the same N times over
 *   POST /sink        takes a body of any length, answers {}
 *   POST anything     answers with the body
 *
 * Prints its port. Bodies must come with Content-Length; whatever else comes is answered 501, so that a proxy
 * that changes the framing shows in the proof and not in a figure.
 */
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { largeAnswer, smallAnswer } from './bodies.ts';

const headEnd = Buffer.from('\r\n\r\n');

function headOf(bytes: number): Buffer {
  const fields = `Content-Type: application/json\r\nContent-Length: ${bytes}\r\n`;
  return Buffer.from(`HTTP/1.1 200 OK\r\n${fields}\r\n`);
}

function answerOf(body: Buffer): Buffer {
  return Buffer.concat([headOf(body.byteLength), body]);
}

const small = answerOf(smallAnswer);
const piece = largeAnswer();
const large = answerOf(piece);
const taken = answerOf(Buffer.from('{}'));
const notThis = Buffer.from('HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n');

class Connection {
  readonly #socket: Socket;
  /** The beginning of a head that has not come whole. */
  #rest: Buffer | undefined;
  /** Of the body that is on its way, bytes. */
  #missing = 0;
  #echo: Buffer[] | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk) => this.#read(chunk));
  }

  #read(chunk: Buffer): void {
    let left = chunk;
    while (left.byteLength > 0) left = this.#missing > 0 ? this.#body(left) : this.#head(left);
  }

  /** Answers what follows the head. */
  #head(chunk: Buffer): Buffer {
    const bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    const end = bytes.indexOf(headEnd);
    if (end === -1) {
      this.#rest = bytes;
      return Buffer.alloc(0);
    }
    this.#rest = undefined;
    const head = bytes.toString('latin1', 0, end);
    if (!head.startsWith('GET ')) this.#beginBody(head);
    else if (head.startsWith('GET /large ')) this.#socket.write(large);
    else if (head.startsWith('GET /bytes/'))
      this.#send(Number.parseInt(head.slice('GET /bytes/'.length), 10));
    else this.#socket.write(small);
    return bytes.subarray(end + headEnd.byteLength);
  }

  /** As fast as it is taken. */
  #send(pieces: number): void {
    this.#socket.write(headOf(pieces * piece.byteLength));
    let left = pieces;
    const more = (): void => {
      while (left > 0) {
        left -= 1;
        if (this.#socket.write(piece)) continue;
        this.#socket.once('drain', more);
        return;
      }
    };
    more();
  }

  #beginBody(head: string): void {
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? Number.NaN);
    if (!(length > 0)) {
      this.#socket.end(notThis);
      return;
    }
    this.#missing = length;
    this.#echo = head.startsWith('POST /sink ') ? undefined : [];
  }

  #body(chunk: Buffer): Buffer {
    const part = chunk.byteLength > this.#missing ? chunk.subarray(0, this.#missing) : chunk;
    this.#missing -= part.byteLength;
    this.#echo?.push(part);
    if (this.#missing === 0) {
      this.#socket.write(this.#echo === undefined ? taken : answerOf(Buffer.concat(this.#echo)));
      this.#echo = undefined;
    }
    return chunk.subarray(part.byteLength);
  }
}

const server = createServer({ noDelay: true }, (socket) => void new Connection(socket));
server.listen(0, '127.0.0.1', 4_096);
await once(server, 'listening');
process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
