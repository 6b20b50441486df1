/**
 * The network between one process and Redis: a TCP relay that can be cut, stalled or made half-open, and that
 * can stop at the moment at which something named goes over the wire.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';

/**
 * `cut`: connections break and new ones are refused. `stalled`: nothing moves, nothing breaks. `half-open`:
 * commands arrive, answers do not.
 */
export type Network = 'whole' | 'cut' | 'stalled' | 'half-open';

/** What to do when the text goes by on its way to Redis. */
export interface Trap {
  readonly text: string;
  /** `before`: it never arrives. `after`: it arrives, and its answer does not. */
  readonly stall: 'before' | 'after';
}

interface Pair {
  readonly inside: Socket;
  readonly outside: Socket;
}

export class Relay {
  readonly port: number;
  readonly #target: number;
  readonly #pairs = new Set<Pair>();
  readonly #server: Server;
  #network: Network = 'whole';
  #trap: (Trap & { readonly sprung: () => void }) | undefined;

  private constructor(port: number, target: number) {
    this.port = port;
    this.#target = target;
    this.#server = createServer({ pauseOnConnect: true }, (inside) => this.#join(inside));
  }

  static async open(port: number, target: number): Promise<Relay> {
    const relay = new Relay(port, target);
    await new Promise<void>((resolve, reject) => {
      relay.#server.once('error', reject);
      relay.#server.listen(port, '127.0.0.1', resolve);
    });
    return relay;
  }

  /** Back to `whole`, what was held up arrives late; with `reset` those connections break instead. */
  set(network: Network, reset = false): void {
    this.#network = network;
    if (network === 'cut' || reset) this.#breakAll();
    for (const pair of this.#pairs) this.#apply(pair);
  }

  /** Resolves when the trap has sprung and the network is stalled as it says. */
  trap(trap: Trap): Promise<void> {
    return new Promise((sprung) => {
      this.#trap = { ...trap, sprung };
    });
  }

  disarm(): void {
    this.#trap = undefined;
  }

  async close(): Promise<void> {
    this.#breakAll();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #join(inside: Socket): void {
    if (this.#network === 'cut') {
      inside.resetAndDestroy();
      return;
    }
    const outside = createConnection({ port: this.#target, host: '127.0.0.1' });
    const pair: Pair = { inside, outside };
    this.#pairs.add(pair);
    const end = (): void => {
      this.#pairs.delete(pair);
      inside.destroy();
      outside.destroy();
    };
    for (const socket of [inside, outside]) {
      socket.setNoDelay(true);
      socket.on('error', end);
      socket.on('close', end);
    }
    inside.on('data', (chunk: Buffer) => this.#pass(pair, chunk));
    outside.on('data', (chunk: Buffer) => inside.write(chunk));
    this.#apply(pair);
  }

  #pass(pair: Pair, chunk: Buffer): void {
    const trap = this.#trap;
    if (trap === undefined || !chunk.includes(trap.text)) {
      pair.outside.write(chunk);
      return;
    }
    this.#trap = undefined;
    if (trap.stall === 'after') pair.outside.write(chunk);
    this.set(trap.stall === 'after' ? 'half-open' : 'stalled');
    trap.sprung();
  }

  #apply({ inside, outside }: Pair): void {
    if (this.#network === 'stalled') inside.pause();
    else inside.resume();
    if (this.#network === 'whole') outside.resume();
    else outside.pause();
  }

  #breakAll(): void {
    for (const { inside, outside } of this.#pairs) {
      inside.resetAndDestroy();
      outside.destroy();
    }
    this.#pairs.clear();
  }
}
