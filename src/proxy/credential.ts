/** What a rule finds in its place of a request, and what a verifier says about it. */
import type { IncomingMessage } from 'node:http';
import type { Failure } from '../core/failure.ts';

export interface Credential {
  /** What stands in the place: a session, a token, or the user's name. */
  readonly text: string;
  /** Exactly as the client sent it in this place: to be shown to the service that issued it, to nobody else. */
  readonly asSent: string;
}

/** Undefined: the credential is not in the request, so the rule does not apply. */
export type Found = Credential | { readonly wrong: string } | undefined;

/** Gives the body of a request that is not admitted yet, once it is whole. */
export interface BodySource {
  read(bytesMax: number): Promise<Buffer | Failure>;
  /** As much as shows its first byte that is no blank, or more: for what its type says nothing of. */
  beginning(): Promise<Buffer | Failure>;
}

/** Where a rule looks. `body` is undefined where there is none to be read (an upgrade). */
export type Place = (
  request: IncomingMessage,
  body: BodySource | undefined,
) => Found | Promise<Found | { readonly failure: Failure }>;

export type Claims = Readonly<Record<string, unknown>>;

export type Verdict =
  | { readonly verdict: 'good'; readonly user: string; readonly claims: Claims }
  /** The sentence "… was not accepted: " goes on with it. */
  | { readonly verdict: 'wrong'; readonly because: string }
  /** Nobody knows at the moment. "… could not be checked: " goes on with it. */
  | { readonly verdict: 'unavailable'; readonly because: string };

export interface Verifier {
  /** Synchronous where the answer is remembered. */
  verify(credential: Credential): Verdict | Promise<Verdict>;
  /** Breaks off what is under way. */
  close(): void;
}

/** Session keys, tokens and signed tokens: visible ASCII, so that it can stand in any header. */
const opaque = /^[\x21-\x7e]+$/;
const opaqueBytesMax = 8_192;

export function isOpaque(text: string): boolean {
  return text.length <= opaqueBytesMax && opaque.test(text);
}

export const noClaims: Claims = {};
