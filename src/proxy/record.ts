/**
 * Which record did a write touch? Found in the path, or in a bounded copy of the answer, for the doorbell
 * that asks for a copy. An id that cannot be found is no failure: the next full pass copies the record.
 */
import { brotliDecompressSync, gunzipSync, inflateSync } from 'node:zlib';
import type { RecordKey } from '../core/ports.ts';
import { isUsableId } from '../core/records.ts';
import type { MatchedRoute } from '../core/route.ts';

/** Longest answer that is looked into, bytes, encoded and decoded. */
const answerBytesMax = 262_144;

/** Watches one answer; made only for writes on routes with a `record` rule. */
export class RecordFinder {
  readonly #kind: string;
  readonly #partition: string;
  readonly #pathId: string | undefined;
  readonly #field: readonly string[] | undefined;
  #status = 0;
  #encoding = '';
  #chunks: Buffer[] | undefined;
  #bytes = 0;

  private constructor(partition: string, kind: string, pathId?: string, field?: readonly string[]) {
    this.#partition = partition;
    this.#kind = kind;
    this.#pathId = pathId;
    this.#field = field;
  }

  static of(partition: string, route: MatchedRoute | undefined): RecordFinder | undefined {
    const record = route?.rule.record;
    if (route === undefined || record === undefined) return undefined;
    const [place, ...names] = record.id.split('.');
    if (place === 'path') {
      return new RecordFinder(partition, record.kind, route.parameters[names.join('.')] ?? '');
    }
    return new RecordFinder(partition, record.kind, undefined, names);
  }

  head(status: number, headers: readonly string[]): void {
    this.#status = status;
    if (this.#field === undefined) return;
    let json = false;
    for (let at = 0; at < headers.length; at += 2) {
      const name = (headers[at] ?? '').toLowerCase();
      const value = (headers[at + 1] ?? '').toLowerCase();
      if (name === 'content-type') json = /^application\/(?:[^;]*\+)?json\b/.test(value);
      if (name === 'content-encoding') this.#encoding = value.trim();
    }
    if (json) this.#chunks = [];
  }

  data(chunk: Buffer): void {
    if (this.#chunks === undefined) return;
    this.#bytes += chunk.byteLength;
    if (this.#bytes > answerBytesMax) this.#chunks = undefined;
    else this.#chunks.push(chunk);
  }

  /** At the end of a complete answer: the record, if the write succeeded and its id is known. */
  found(): RecordKey | undefined {
    if (this.#status < 200 || this.#status > 299) return undefined;
    const id = this.#field === undefined ? this.#pathId : this.#idInAnswer(this.#field);
    if (id === undefined || !isUsableId(id)) return undefined;
    return { partition: this.#partition, kind: this.#kind, id };
  }

  #idInAnswer(field: readonly string[]): string | undefined {
    if (this.#chunks === undefined) return undefined;
    try {
      let value: unknown = JSON.parse(decode(Buffer.concat(this.#chunks), this.#encoding).toString('utf8'));
      for (const name of field) {
        if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
        value = (value as Record<string, unknown>)[name];
      }
      return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined;
    } catch {
      // Not JSON after all, or larger than we decode: the next pass finds the record.
      return undefined;
    }
  }
}

function decode(body: Buffer, encoding: string): Buffer {
  const bound = { maxOutputLength: answerBytesMax };
  switch (encoding) {
    case '':
    case 'identity':
      return body;
    case 'gzip':
    case 'x-gzip':
      return gunzipSync(body, bound);
    case 'deflate':
      return inflateSync(body, bound);
    case 'br':
      return brotliDecompressSync(body, bound);
    default:
      throw new Error(`the encoding ${encoding} is not decoded here`);
  }
}
