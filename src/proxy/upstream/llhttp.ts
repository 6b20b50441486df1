/**
 * llhttp, the HTTP parser of Node itself, in the WebAssembly build that undici ships. This file knows how to call
 * it; what its findings mean is said in response-parser.ts. undici's version is pinned, and what this file needs of
 * the build is checked when it is loaded.
 */
import { createRequire } from 'node:module';

/** What is found in the bytes of one `execute`; positions are offsets into them. */
export interface LlhttpEvents {
  onStatus(from: number, to: number): void;
  onHeaderField(from: number, to: number): void;
  onHeaderValue(from: number, to: number): void;
  /** Returns `go`, `skipBody` or `refuse`. */
  onHeadersComplete(status: number): number;
  onBody(from: number, to: number): void;
  /** Returns `go` or `pause`. */
  onMessageComplete(): number;
}

/** What callbacks answer; `go` and `pause` are also results of `execute` and `finish`, beside others (llhttp.h). */
export const llhttp = {
  go: 0,
  /** The message has no body, whatever its head says. */
  skipBody: 1,
  /** The bytes that follow are not looked at. */
  pause: 21,
  refuse: 24,
} as const;

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  malloc(bytes: number): number;
  llhttp_alloc(type: number): number;
  llhttp_free(parser: number): void;
  llhttp_reset(parser: number): void;
  llhttp_resume(parser: number): void;
  llhttp_execute(parser: number, input: number, bytes: number): number;
  llhttp_finish(parser: number): number;
  llhttp_should_keep_alive(parser: number): number;
  llhttp_get_http_major(parser: number): number;
  llhttp_get_http_minor(parser: number): number;
  llhttp_get_error_pos(parser: number): number;
  llhttp_get_error_reason(parser: number): number;
}

/** Of all that it exports. */
export const exportsNeeded = [
  'memory',
  'malloc',
  'llhttp_alloc',
  'llhttp_free',
  'llhttp_reset',
  'llhttp_resume',
  'llhttp_execute',
  'llhttp_finish',
  'llhttp_should_keep_alive',
  'llhttp_get_http_major',
  'llhttp_get_http_minor',
  'llhttp_get_error_pos',
  'llhttp_get_error_reason',
] as const satisfies readonly (keyof Exports)[];

/** TypeScript knows WebAssembly only together with browsers. */
declare const WebAssembly: {
  readonly Module: {
    new (bytes: Uint8Array<ArrayBuffer>): object;
    exports(module: object): readonly { readonly name: string }[];
    imports(module: object): readonly { readonly module: string; readonly name: string }[];
  };
  readonly Instance: new (module: object, imports: object) => { readonly exports: unknown };
};

/** Longest piece that `execute` takes. */
export const pieceBytesMax = 65_536;
const typeResponse = 2;

/** Whose bytes are looked at. Never two at a time: they would share the input. */
let running: LlhttpEvents | undefined;
let input = 0;

const callbacks = {
  wasm_on_message_begin: () => llhttp.go,
  wasm_on_url: () => llhttp.go,
  wasm_on_status: (_parser: number, at: number, bytes: number) => {
    running?.onStatus(at - input, at - input + bytes);
    return llhttp.go;
  },
  wasm_on_header_field: (_parser: number, at: number, bytes: number) => {
    running?.onHeaderField(at - input, at - input + bytes);
    return llhttp.go;
  },
  wasm_on_header_value: (_parser: number, at: number, bytes: number) => {
    running?.onHeaderValue(at - input, at - input + bytes);
    return llhttp.go;
  },
  wasm_on_headers_complete: (_parser: number, status: number) =>
    running?.onHeadersComplete(status) ?? llhttp.refuse,
  wasm_on_body: (_parser: number, at: number, bytes: number) => {
    running?.onBody(at - input, at - input + bytes);
    return llhttp.go;
  },
  wasm_on_message_complete: () => running?.onMessageComplete() ?? llhttp.refuse,
};

const wasm = load();
input = wasm.malloc(pieceBytesMax);
let inputView = new Uint8Array(wasm.memory.buffer, input, pieceBytesMax);

function load(): Exports {
  const require = createRequire(import.meta.url);
  for (const build of ['llhttp_simd-wasm', 'llhttp-wasm']) {
    const bytes = require(`undici/lib/llhttp/${build}.js`) as Uint8Array<ArrayBuffer>;
    let module: object;
    try {
      module = new WebAssembly.Module(bytes);
    } catch {
      continue; // Some processors have no vector instructions: the second build does without.
    }
    mustFit(
      WebAssembly.Module.exports(module).map(({ name }) => name),
      WebAssembly.Module.imports(module).map(({ module: from, name }) => `${from}.${name}`),
    );
    return new WebAssembly.Instance(module, { env: callbacks }).exports as Exports;
  }
  throw new Error(`${wrongBuild} cannot be compiled here. ${whatNext}`);
}

const wrongBuild = 'The llhttp that the installed undici ships';
const whatNext =
  'Install the version of undici that package.json pins, or adapt src/proxy/upstream/llhttp.ts.';

/** Throws where a build of llhttp does not offer what is called here, or calls what is not offered here. */
export function mustFit(offered: readonly string[], called: readonly string[]): void {
  const missing = exportsNeeded.filter((name) => !offered.includes(name));
  if (missing.length > 0) throw new Error(`${wrongBuild} does not export ${missing.join(', ')}. ${whatNext}`);
  const unknown = called.filter((name) => !Object.keys(callbacks).some((known) => `env.${known}` === name));
  if (unknown.length > 0) throw new Error(`${wrongBuild} calls ${unknown.join(', ')}. ${whatNext}`);
  const silent = Object.keys(callbacks).filter((known) => !called.includes(`env.${known}`));
  if (silent.length > 0) throw new Error(`${wrongBuild} does not call ${silent.join(', ')}. ${whatNext}`);
}

/** The state of one connection in llhttp. It lives in memory that nobody collects, until `free`. */
export class Llhttp {
  static #alive = 0;
  #parser = wasm.llhttp_alloc(typeResponse);

  constructor() {
    Llhttp.#alive += 1;
  }

  /** How many have not been freed. */
  static get alive(): number {
    return Llhttp.#alive;
  }

  /** The next message is the first. */
  reset(): void {
    wasm.llhttp_reset(this.#parser);
  }

  /** Goes on after `pause`. */
  resume(): void {
    wasm.llhttp_resume(this.#parser);
  }

  /** At most `pieceBytesMax` bytes. Callbacks must not throw and must not call `execute`. */
  execute(bytes: Uint8Array, events: LlhttpEvents): number {
    if (running !== undefined) throw new Error('llhttp was called from inside one of its callbacks');
    if (this.#parser === 0) throw new Error('a parser was used after it was freed');
    // The memory moves when it grows.
    if (inputView.byteLength === 0) inputView = new Uint8Array(wasm.memory.buffer, input, pieceBytesMax);
    inputView.set(bytes);
    running = events;
    try {
      return wasm.llhttp_execute(this.#parser, input, bytes.byteLength);
    } finally {
      running = undefined;
    }
  }

  /** The stream of bytes has ended. */
  finish(events: LlhttpEvents): number {
    running = events;
    try {
      return wasm.llhttp_finish(this.#parser);
    } finally {
      running = undefined;
    }
  }

  /** Offset of the first byte that `execute` did not take, after a result that is not `go`. */
  get stoppedAt(): number {
    return wasm.llhttp_get_error_pos(this.#parser) - input;
  }

  /** Why it stopped, in llhttp's words. */
  get reason(): string {
    const at = wasm.llhttp_get_error_reason(this.#parser);
    if (at === 0) return '';
    const memory = Buffer.from(wasm.memory.buffer);
    return memory.toString('latin1', at, memory.indexOf(0, at));
  }

  /** Of the message so far: may the connection be used for another one? */
  get keepAlive(): boolean {
    return wasm.llhttp_should_keep_alive(this.#parser) === 1;
  }

  get version(): string {
    return `${wasm.llhttp_get_http_major(this.#parser)}.${wasm.llhttp_get_http_minor(this.#parser)}`;
  }

  free(): void {
    if (this.#parser === 0) throw new Error('a parser was freed twice');
    wasm.llhttp_free(this.#parser);
    this.#parser = 0;
    Llhttp.#alive -= 1;
  }
}
