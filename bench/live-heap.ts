/**
 * What a Node process really holds: its memory right after a full collection, which its inspector is asked for. Resident
 * memory moves with the load and the moods of the collector; what leaks stays in here.
 */
import { setTimeout as wait } from 'node:timers/promises';

const inspectorUrl = 'http://127.0.0.1:9229/json/list';
const bytesPerMebibyte = 1_048_576;

export class LiveHeap {
  readonly #socket: WebSocket;
  #asked = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
  }

  /** Undefined where the process does not open its inspector, for example because another holds its port. */
  static async of(pid: number): Promise<LiveHeap | undefined> {
    process.kill(pid, 'SIGUSR1');
    for (let tries = 0; tries < 20; tries += 1) {
      const targets = await fetch(inspectorUrl).then(
        (answer) => answer.json() as Promise<{ webSocketDebuggerUrl: string }[]>,
        () => [],
      );
      for (const { webSocketDebuggerUrl } of targets) {
        const socket = new WebSocket(webSocketDebuggerUrl);
        await new Promise((opened, failed) => {
          socket.addEventListener('open', opened, { once: true });
          socket.addEventListener('error', failed, { once: true });
        });
        const heap = new LiveHeap(socket);
        if ((await heap.#evaluate('process.pid')) === pid) return heap;
        heap.close();
      }
      await wait(100);
    }
    return undefined;
  }

  /** Heap and what it holds outside, MiB. The process stands still for some tens of milliseconds. */
  async mebibytes(): Promise<number> {
    await this.#ask('HeapProfiler.collectGarbage', {});
    const bytes = await this.#evaluate('process.memoryUsage().heapUsed + process.memoryUsage().external');
    return bytes / bytesPerMebibyte;
  }

  close(): void {
    this.#socket.close();
  }

  async #evaluate(expression: string): Promise<number> {
    const answer = (await this.#ask('Runtime.evaluate', { expression })) as { result: { value: number } };
    return answer.result.value;
  }

  #ask(method: string, params: object): Promise<unknown> {
    this.#asked += 1;
    const id = this.#asked;
    const answered = new Promise((resolve, reject) => {
      const given = new AbortController();
      const { signal } = given;
      const onMessage = ({ data }: MessageEvent): void => {
        const message = JSON.parse(String(data)) as { id?: number; result?: unknown; error?: unknown };
        if (message.id !== id) return;
        given.abort();
        if (message.error === undefined) resolve(message.result);
        else reject(new Error(JSON.stringify(message.error)));
      };
      const onClose = (): void => reject(new Error('the process has ended'));
      this.#socket.addEventListener('message', onMessage, { signal });
      this.#socket.addEventListener('close', onClose, { signal });
    });
    this.#socket.send(JSON.stringify({ id, method, params }));
    return answered;
  }
}
