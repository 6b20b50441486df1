/**
 * What a command prints: sentences and aligned tables for people, or NDJSON for programs, never both. A
 * reader that goes away (`| head`) ends the printing, not the command; nor does a log that cannot be written.
 */
import type { Writable } from 'node:stream';
import { version } from './version.ts';

export interface OutputSettings {
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable;
  readonly json: boolean;
  readonly colour: boolean;
}

type Colour = 'bold' | 'red' | 'green' | 'yellow';
const codes: Readonly<Record<Colour, number>> = { bold: 1, red: 31, green: 32, yellow: 33 };

export class Output {
  readonly json: boolean;
  readonly #settings: OutputSettings;
  readonly #broken = new AbortController();

  constructor(settings: OutputSettings) {
    this.#settings = settings;
    this.json = settings.json;
    settings.stdout.on('error', (error: Error & { code?: string }) => {
      // A result that is not whole is a failure, unless nobody wants the rest of it.
      if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED') throw error;
      this.#broken.abort();
    });
    // Nobody is left to be told, and a full disk is no reason to end what takes users' traffic.
    settings.stderr.on('error', () => undefined);
  }

  /** Aborted once nobody reads any more. */
  get broken(): AbortSignal {
    return this.#broken.signal;
  }

  /** Where questions are asked: beside the result, so that a redirected result holds none. */
  get prompts(): Writable {
    return this.#settings.stderr;
  }

  /** First line of every NDJSON output. */
  begin(command: string): void {
    this.event('version', { onewriter: version, format: 1, command });
  }

  /** One line of NDJSON; nothing for people. */
  event(type: string, fields: object): void {
    if (this.json) this.#write(this.#settings.stdout, JSON.stringify({ type, ...fields }));
  }

  /** For people only. */
  line(text = ''): void {
    if (!this.json) this.#write(this.#settings.stdout, text);
  }

  /** For people, beside the result: prompts, warnings and refusals. */
  aside(text: string): void {
    this.#write(this.#settings.stderr, text);
  }

  /** Columns as wide as their longest cell. */
  table(rows: readonly (readonly string[])[], indent = ''): void {
    const widths: number[] = [];
    for (const row of rows) {
      for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length);
    }
    for (const row of rows) {
      const cells = row.map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0)));
      this.line(`${indent}${cells.join('  ')}`.trimEnd());
    }
  }

  paint(colour: Colour, text: string): string {
    return this.#settings.colour ? `\u001b[${codes[colour]}m${text}\u001b[0m` : text;
  }

  #write(stream: Writable, text: string): void {
    if (!this.#broken.signal.aborted) stream.write(`${text}\n`);
  }
}

/** Terminal escapes and line breaks in names from elsewhere must not reach the terminal. */
export function plain(text: string): string {
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, (character) =>
    character === '\n' || character === '\t' ? ' ' : '\ufffd',
  );
}
