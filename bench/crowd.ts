/** Many connections at once, with one request on each: answered and kept open, or held by the proxy. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface Crowd {
  /** How many were answered 200, answered otherwise or broken, and wait. */
  counts(): { readonly good: number; readonly other: number; readonly waiting: number };
  close(): void;
}

/** Queues of connections that nobody has accepted yet are short. */
const atOnce = 100;

export async function openCrowd(
  port: number,
  size: number,
  requestOf: (number: number) => string,
): Promise<Crowd> {
  const sockets: Socket[] = [];
  let good = 0;
  let other = 0;
  const join = async (number: number): Promise<void> => {
    const socket = connect({ host: '127.0.0.1', port });
    sockets.push(socket);
    let answered = false;
    socket.on('data', (chunk) => {
      if (answered) return;
      answered = true;
      if (chunk.toString('latin1', 0, 13) === 'HTTP/1.1 200 ') good += 1;
      else other += 1;
    });
    await once(socket, 'connect');
    socket.once('close', () => {
      if (answered) good -= 1;
      other += 1;
    });
    socket.write(requestOf(number));
  };
  for (let from = 0; from < size; from += atOnce) {
    const numbers = Array.from({ length: Math.min(atOnce, size - from) }, (_, at) => from + at);
    await Promise.all(numbers.map(join));
  }
  return {
    counts: () => ({ good, other, waiting: size - good - other }),
    close: () => {
      for (const socket of sockets) socket.removeAllListeners('close').destroy();
    },
  };
}
