/**
 * Which write is it? The key that its client chose (draft-ietf-httpapi-idempotency-key-header), whose key
 * it is, and the fingerprint that tells a repetition from another write under the same key.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { valuesOf } from './field.ts';
import type { Identity } from './identify.ts';

const keyBytesMax = 255;
/** Of a longer body, its beginning and its declared length stand for all of it. */
export const fingerprintBytesMax = 1_048_576;

export type KeyOfRequest =
  | { readonly found: 'none' }
  | { readonly found: 'key'; readonly key: string }
  | { readonly found: 'invalid'; readonly why: string };

/** The key is opaque: with quotes, as the draft writes it, and without them are two different keys. */
export function keyOf(request: IncomingMessage): KeyOfRequest {
  if (request.headers['idempotency-key'] === undefined) return { found: 'none' };
  const [key = '', ...more] = valuesOf(request.rawHeaders, 'idempotency-key');
  if (more.length > 0) return { found: 'invalid', why: 'it is there more than once' };
  if (key === '' || key === '""') return { found: 'invalid', why: 'it is empty' };
  // Node hands header bytes over as Latin-1: one character is one byte.
  if (key.length > keyBytesMax) return { found: 'invalid', why: `it has more than ${keyBytesMax} bytes` };
  return { found: 'key', key };
}

/** The verified identity, never the secret that proved it: that changes with every new token. */
export function credentialOf({ user, credential }: Identity): string {
  return digest([credential, user]);
}

export interface WriteToFingerprint {
  readonly method: string;
  /** As the client sent it, without the path of a store's URL: a repetition may go to the other store. */
  readonly target: string;
  readonly contentType: string | undefined;
  readonly declaredLength: string | undefined;
  readonly body: BodyBeginning;
}

/** The beginning of a body; `whole` where it is all of it. */
export interface BodyBeginning {
  readonly bytes: Buffer;
  readonly whole: boolean;
}

export function fingerprintOf(write: WriteToFingerprint): string {
  const { method, target, contentType = '', declaredLength = 'unknown', body } = write;
  const { bytes, whole } = body;
  const length = whole ? String(bytes.byteLength) : declaredLength;
  return digest([method, target, contentType, length, bytes.subarray(0, fingerprintBytesMax)]);
}

/** Each part with its length before it, so that no two lists run together into one text. */
function digest(parts: readonly (string | Buffer)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : part;
    hash.update(`${bytes.byteLength}:`).update(bytes);
  }
  return hash.digest('base64url');
}
