/** One address for whichever server is in charge, as a proxy before a failover pair gives it. */
import { createConnection, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

export class SwitchRelay {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #target: number | undefined;

  private constructor(server: Server, target: number) {
    this.#server = server;
    this.#target = target;
    this.url = `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('connection', (inside) => this.#join(inside));
  }

  static async open(target: number): Promise<SwitchRelay> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    return new SwitchRelay(server, target);
  }

  /** New connections go there; those that stand are broken. */
  switchTo(port: number): void {
    this.#target = port;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Nothing gets through any more. */
  cut(): void {
    this.#target = undefined;
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #join(inside: Socket): void {
    if (this.#target === undefined) {
      inside.destroy();
      return;
    }
    const outside = createConnection({ port: this.#target, host: '127.0.0.1' });
    for (const [socket, other] of [
      [inside, outside],
      [outside, inside],
    ] as const) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('data', (chunk: Buffer) => other.write(chunk));
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
    }
  }
}
