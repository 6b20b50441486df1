/** Addresses at which nothing answers: where connections are refused, and where nobody takes them. */
import { spawn } from 'node:child_process';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A port on loopback on which nothing listens. */
export async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

export interface SilentPort {
  readonly port: number;
  stop(): Promise<void>;
}

/** How long a connection to loopback takes at most where somebody takes it, ms. */
const acceptedWithinMs = 300;

/** A port that listens and takes no connection: its process is stopped, and the queue before it is full. */
export async function silentPort(): Promise<SilentPort> {
  const listening =
    "require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, function () { console.log(this.address().port) })";
  const child = spawn(process.execPath, ['-e', listening], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const port = await new Promise<number>((resolve) => {
    child.stdout.once('data', (line: Buffer) => resolve(Number(line.toString())));
  });
  child.kill('SIGSTOP');
  const waiting: Socket[] = [];
  for (let taken = true; taken;) {
    const socket = connect(port, '127.0.0.1');
    waiting.push(socket);
    socket.on('error', () => undefined);
    taken = await new Promise<boolean>((resolve) => {
      const late = setTimeout(() => resolve(false), acceptedWithinMs);
      socket.once('connect', () => {
        clearTimeout(late);
        resolve(true);
      });
    });
  }
  return {
    port,
    stop: async () => {
      for (const socket of waiting) socket.destroy();
      child.kill('SIGKILL');
      await ended;
    },
  };
}
