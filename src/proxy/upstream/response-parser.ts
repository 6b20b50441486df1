/**
 * The answers on one connection, taken apart by llhttp without any of its leniency. Bytes go in, what was found
 * comes out: nobody is called from here, so nobody can disturb it.
 *
 * Stricter than llhttp, because what is passed on must mean to the client what it meant here: no protocol but
 * HTTP/1.0 and HTTP/1.1, no transfer coding but `chunked` (and none from HTTP/1.0), no switch of protocols, no
 * status below 100; and everything that must be kept in memory is bounded.
 */
import { Llhttp, llhttp, type LlhttpEvents, pieceBytesMax } from './llhttp.ts';

export interface ResponseLimits {
  /** Of a head or of trailers, bytes; also what may come between two pieces of a body (chunk extensions). */
  readonly headBytesMax: number;
  /** Of a head or of trailers. */
  readonly fieldsMax: number;
  /** Interim answers before the final one. */
  readonly interimMax: number;
}

export interface ResponseHead {
  readonly status: number;
  readonly reason: string;
  /** Flat, Latin-1, as they came but for white space around values. */
  readonly rawHeaders: string[];
}

export interface FinalHead extends ResponseHead {
  readonly eventStream: boolean;
}

export interface ResponseEnd {
  readonly rawTrailers: string[];
  /** For how long the connection may be kept for another request, ms; 0: not at all, Infinity: the store did not say. */
  readonly keepMs: number;
}

/** What the bytes of one `take` brought, in this order. */
export interface Taken {
  readonly interim: readonly ResponseHead[];
  readonly head: FinalHead | undefined;
  /** Pieces of the bytes that were given. */
  readonly body: readonly Buffer[];
  readonly end: ResponseEnd | undefined;
  /** Why what follows is not HTTP as it must be: the connection is of no more use. */
  readonly refusal: string | undefined;
}

const none: readonly never[] = [];
const carriageReturn = 0x0d;
const lineFeed = 0x0a;
const letterH = 0x48;

export class ResponseParser implements LlhttpEvents {
  readonly #limits: ResponseLimits;
  readonly #llhttp = new Llhttp();
  #bodyless = false;
  /** Where in the message's first line the bytes are. */
  #line: 'before' | 'inside' | 'ending' | 'over' = 'before';
  #inBody = false;
  #reason = '';
  #fields: string[] = [];
  #interimSeen = 0;
  #keepHintMs = 0;
  /** A body may have been sent that must not be. */
  #suspicious = false;
  /** Bytes since the message, or the last piece of its body, began. */
  #idleBytes = 0;

  // What is being taken: the piece, its text as far as it is needed, and what was found.
  #piece: Buffer = Buffer.alloc(0);
  #text: string | undefined;
  #textFrom = 0;
  #progressAt = 0;
  #lastFieldAt = 0;
  #interim: ResponseHead[] | undefined;
  #head: FinalHead | undefined;
  #body: Buffer[] | undefined;
  #end: ResponseEnd | undefined;
  #refusal: string | undefined;

  constructor(limits: ResponseLimits) {
    this.#limits = limits;
  }

  /** From here on comes the answer to a request with this method. */
  expect(method: string): void {
    this.#llhttp.reset();
    this.#bodyless = method === 'HEAD';
    this.#line = 'before';
    this.#inBody = false;
    this.#reason = '';
    this.#fields = [];
    this.#interimSeen = 0;
    this.#idleBytes = 0;
  }

  /** Not after an end or a refusal. */
  take(bytes: Buffer): Taken {
    for (let from = 0; from < bytes.byteLength && this.#open; from += pieceBytesMax) {
      this.#takePiece(bytes.byteLength <= pieceBytesMax ? bytes : bytes.subarray(from, from + pieceBytesMax));
      // Whatever comes behind the end belongs to no request.
      if (this.#end !== undefined && from + pieceBytesMax < bytes.byteLength) this.#endForGood();
    }
    return this.#taken();
  }

  /** The store has closed its side in order. An answer without length ends so; any other is broken. */
  finish(): Taken {
    const result = this.#llhttp.finish(this);
    if (result !== llhttp.go && result !== llhttp.pause) this.#refuse(this.#llhttp.reason);
    return this.#taken();
  }

  free(): void {
    this.#llhttp.free();
  }

  get #open(): boolean {
    return this.#end === undefined && this.#refusal === undefined;
  }

  #taken(): Taken {
    const taken: Taken = {
      interim: this.#interim ?? none,
      head: this.#head,
      body: this.#body ?? none,
      end: this.#end,
      refusal: this.#refusal,
    };
    this.#interim = undefined;
    this.#head = undefined;
    this.#body = undefined;
    this.#end = undefined;
    return taken;
  }

  #takePiece(piece: Buffer): void {
    let rest = piece;
    for (;;) {
      if (this.#line !== 'over') this.#lookAtStatusLine(rest);
      if (!this.#open || this.#line === 'before') break;
      this.#piece = rest;
      this.#text = undefined;
      this.#progressAt = 0;
      const result = this.#llhttp.execute(rest, this);
      if (result === llhttp.go) break;
      if (result !== llhttp.pause) {
        this.#refuse(this.#llhttp.reason);
        return;
      }
      rest = rest.subarray(this.#llhttp.stoppedAt);
      if (this.#end !== undefined) {
        if (rest.byteLength > 0) this.#endForGood();
        return;
      }
      // An interim answer was complete: the next message begins.
      this.#llhttp.resume();
      this.#line = 'before';
    }
    this.#idleBytes += rest.byteLength - (rest === this.#piece ? this.#progressAt : 0);
    if (this.#idleBytes > this.#limits.headBytesMax)
      this.#refuse('Too many bytes of head, trailers or framing');
  }

  /** llhttp takes RTSP and ICE, too, and some versions of it take CR CR for the end of the status line. */
  #lookAtStatusLine(piece: Buffer): void {
    for (const byte of piece) {
      if (this.#line === 'before') {
        if (byte === carriageReturn || byte === lineFeed) continue;
        if (byte !== letterH) this.#refuse('Expected HTTP/');
        this.#line = 'inside';
      } else if (this.#line === 'inside') {
        if (byte === carriageReturn) this.#line = 'ending';
      } else {
        if (byte !== lineFeed) this.#refuse('Expected LF after CR');
        this.#line = 'over';
        return;
      }
    }
  }

  // --- llhttp's side ---------------------------------------------------------------------------------

  onStatus(from: number, to: number): void {
    this.#reason += this.#slice(from, to);
  }

  onHeaderField(from: number, to: number): void {
    const { length } = this.#fields;
    const text = this.#slice(from, to);
    // A name or value that goes on from the piece before: every name is followed by a value, be it empty.
    if (length % 2 === 0) this.#fields.push(text);
    else this.#fields[length - 1] += text;
  }

  onHeaderValue(from: number, to: number): void {
    const { length } = this.#fields;
    const text = this.#slice(from, to);
    if (length % 2 === 1) this.#fields.push(text);
    else this.#fields[length - 1] += text;
  }

  onHeadersComplete(status: number): number {
    const rawHeaders = this.#takeFields();
    const head = { status, reason: this.#reason, rawHeaders };
    this.#reason = '';
    const { version } = this.#llhttp;
    const facts = factsOf(rawHeaders);
    const { codings } = facts;
    if (version !== '1.1' && version !== '1.0') this.#refuse(`HTTP/${version} is not spoken here`);
    if (status < 100) this.#refuse('The status is below 100');
    if (status === 101) this.#refuse('Nobody asked to switch protocols');
    if (codings !== undefined && (version === '1.0' || codings.toLowerCase() !== 'chunked')) {
      this.#refuse(`Transfer-Encoding "${codings}" is not taken from HTTP/${version}`);
    }
    if (this.#refusal !== undefined) return llhttp.refuse;
    if (status < 200) return this.#takeInterim(head);
    this.#head = { ...head, eventStream: facts.eventStream };
    this.#keepHintMs = facts.keepHintMs;
    this.#suspicious = (status === 204 || status === 304) && facts.announcesBody;
    this.#inBody = true;
    this.#progress(this.#lastFieldAt);
    return this.#bodyless ? llhttp.skipBody : llhttp.go;
  }

  onBody(from: number, to: number): void {
    this.#progress(to);
    this.#body ??= [];
    this.#body.push(this.#piece.subarray(from, to));
  }

  onMessageComplete(): number {
    if (!this.#inBody) {
      this.#idleBytes = 0;
      return llhttp.pause;
    }
    const rawTrailers = this.#fields.length === 0 ? this.#fields : this.#takeFields();
    if (this.#refusal !== undefined) return llhttp.refuse;
    const keepMs = this.#llhttp.keepAlive && !this.#suspicious ? this.#keepHintMs : 0;
    this.#end = { rawTrailers, keepMs };
    return llhttp.pause;
  }

  // --- what it means ---------------------------------------------------------------------------------

  #takeInterim(head: ResponseHead): number {
    this.#interimSeen += 1;
    if (this.#interimSeen > this.#limits.interimMax) return this.#refuse('Too many interim answers');
    this.#interim ??= [];
    this.#interim.push(head);
    return llhttp.skipBody;
  }

  /** The fields of a head or of trailers, which end here. */
  #takeFields(): string[] {
    const fields = this.#fields;
    this.#fields = [];
    const { headBytesMax, fieldsMax } = this.#limits;
    if (fields.length > 2 * fieldsMax) this.#refuse('Too many fields');
    if (this.#idleBytes + this.#lastFieldAt - this.#progressAt > headBytesMax)
      this.#refuse('Too long a head, or trailers');
    for (let at = 1; at < fields.length; at += 2) fields[at] = withoutSpaceBehind(fields[at] ?? '');
    return fields;
  }

  #progress(at: number): void {
    this.#idleBytes = 0;
    this.#progressAt = at;
  }

  #endForGood(): void {
    if (this.#end !== undefined) this.#end = { ...this.#end, keepMs: 0 };
  }

  #refuse(why: string): number {
    this.#refusal ??= why;
    return llhttp.refuse;
  }

  /** Text of the piece. A head is decoded at once, not field by field. */
  #slice(from: number, to: number): string {
    this.#lastFieldAt = to;
    let text = this.#text;
    if (text === undefined || from < this.#textFrom || to > this.#textFrom + text.length) {
      const piece = this.#piece;
      const headEnd = piece.byteLength <= shortPieceBytes ? -1 : piece.indexOf('\r\n\r\n', from, 'latin1');
      text = piece.toString('latin1', from, headEnd === -1 ? piece.byteLength : Math.max(headEnd, to));
      this.#text = text;
      this.#textFrom = from;
    }
    return text.slice(from - this.#textFrom, to - this.#textFrom);
  }
}

/** Up to here it is not worth while to look for the end of the head before decoding. */
const shortPieceBytes = 2_048;

function withoutSpaceBehind(value: string): string {
  let end = value.length;
  while (end > 0 && (value.charCodeAt(end - 1) === 0x20 || value.charCodeAt(end - 1) === 0x09)) end -= 1;
  return end === value.length ? value : value.slice(0, end);
}

/** `Keep-Alive: timeout=5` (RFC 2068, 19.7.1.1): the store closes a connection that was idle for so long. */
function keepHintMsOf(value: string): number {
  const seconds = /(?:^|[,\s])timeout\s*=\s*"?(\d{1,9})/i.exec(value)?.[1];
  return seconds === undefined ? Number.POSITIVE_INFINITY : Number(seconds) * 1_000;
}

/** llhttp overlooks it before a tab. */
const closes = /(?:^|,)\s*close\s*(?:,|$)/i;

interface Facts {
  readonly eventStream: boolean;
  readonly keepHintMs: number;
  readonly announcesBody: boolean;
  /** All values of Transfer-Encoding. */
  readonly codings: string | undefined;
}

function factsOf(rawHeaders: readonly string[]): Facts {
  let eventStream = false;
  let keepHintMs = Number.POSITIVE_INFINITY;
  let announcesBody = false;
  let codings: string | undefined;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? '';
    const value = rawHeaders[at + 1] ?? '';
    // Most names are none of these by their length alone.
    switch (name.length) {
      case 10:
        if (name.toLowerCase() === 'keep-alive') keepHintMs = Math.min(keepHintMs, keepHintMsOf(value));
        else if (name.toLowerCase() === 'connection' && closes.test(value)) keepHintMs = 0;
        break;
      case 16:
        if (name.toLowerCase() === 'proxy-connection' && closes.test(value)) keepHintMs = 0;
        break;
      case 12:
        if (name.toLowerCase() === 'content-type') eventStream = /^text\/event-stream\s*(?:;|$)/i.test(value);
        break;
      case 14:
        if (name.toLowerCase() === 'content-length') announcesBody = value !== '0';
        break;
      case 17:
        if (name.toLowerCase() !== 'transfer-encoding') break;
        announcesBody = true;
        codings = codings === undefined ? value : `${codings}, ${value}`;
    }
  }
  return { eventStream, keepHintMs, announcesBody, codings };
}
