/**
 * Is a delivery proven to come from the store? Every scheme is a secret compared in constant time, most of them an
 * HMAC (RFC 2104) over the bytes as they came. "Standard" is https://www.standardwebhooks.com.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { WebhookConfig, WebhookSignature } from '../../config/schema.ts';

export interface Delivery {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** `unsigned`: nothing to check was there at all. `too-old` is said only where the signature is right. */
export type Proof = 'proven' | 'unsigned' | 'wrong' | 'too-old';

/** Of several signatures in one delivery no more than these are compared. */
const candidatesMax = 10;

/** Could any of the schemes find its signature? Asked before the body is read. */
export function maySign(signatures: WebhookConfig['signatures'], headers: IncomingHttpHeaders): boolean {
  return signatures.some((signature) => typeof headers[signatureHeaderOf(signature)] === 'string');
}

/** The best that any of the schemes says of the delivery. `nowMs`: wall clock. */
export function proofOf(signatures: WebhookConfig['signatures'], delivery: Delivery, nowMs: number): Proof {
  const found = new Set(signatures.map((signature) => proofBy(signature, delivery, nowMs)));
  const best = (['proven', 'too-old', 'wrong'] as const).find((proof) => found.has(proof));
  return best ?? 'unsigned';
}

/** Where a scheme has a name for deliveries of its own; as in `eventId` of the configuration. */
export function eventIdOf({ scheme }: WebhookSignature): string | undefined {
  if (scheme === 'github') return 'header.x-github-delivery';
  if (scheme === 'standard') return 'header.webhook-id';
  return scheme === 'stripe' ? 'body.id' : undefined;
}

function signatureHeaderOf(signature: WebhookSignature): string {
  if (signature.scheme === 'standard') return 'webhook-signature';
  return signature.scheme === 'basic' ? 'authorization' : signature.header.toLowerCase();
}

function proofBy(signature: WebhookSignature, delivery: Delivery, nowMs: number): Proof {
  const given = headerOf(delivery, signatureHeaderOf(signature));
  if (given === undefined) return 'unsigned';
  switch (signature.scheme) {
    case 'secret':
      return isAnyOf(signature.secrets, given, signature.prefix);
    case 'basic':
      return isAnyOf(
        signature.secrets.map((secret) => Buffer.from(`${signature.user}:${secret}`).toString('base64')),
        given,
        'Basic ',
      );
    case 'github':
    case 'stripe':
    case 'standard':
    case 'hmac':
      return proofByHmac(macOf(signature, given, delivery), delivery, nowMs);
  }
}

function isAnyOf(secrets: readonly string[], given: string, prefix: string): Proof {
  if (!given.toLowerCase().startsWith(prefix.toLowerCase())) return 'wrong';
  const presented = sha256(given.slice(prefix.length));
  // Each is compared, so that the time says nothing about which one was nearly right.
  const equal = secrets.filter((secret) => timingSafeEqual(sha256(secret), presented));
  return equal.length > 0 ? 'proven' : 'wrong';
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}

/** What all HMAC schemes come down to. */
interface Mac {
  readonly algorithm: string;
  readonly encoding: 'hex' | 'base64';
  readonly keys: readonly (string | Buffer)[];
  readonly candidates: readonly string[];
  readonly content: string;
  readonly id?: string | undefined;
  readonly timestamp?: string | undefined;
  readonly unitMs: number;
  readonly toleranceMs: number;
}

type HmacSignature = Extract<
  WebhookSignature,
  { readonly scheme: 'github' | 'stripe' | 'standard' | 'hmac' }
>;

function macOf(signature: HmacSignature, given: string, delivery: Delivery): Mac {
  const usual = { algorithm: 'sha256', encoding: 'hex', keys: signature.secrets, unitMs: 1_000 } as const;
  switch (signature.scheme) {
    case 'github':
      return {
        ...{ ...usual, content: '{body}', toleranceMs: 0 },
        candidates: behind('sha256=', [given]),
      };
    case 'stripe': {
      const pairs = given.split(',').map((pair) => pair.trim());
      return {
        ...{ ...usual, content: '{timestamp}.{body}', toleranceMs: signature.toleranceMs },
        candidates: behind('v1=', pairs),
        timestamp: behind('t=', pairs)[0],
      };
    }
    case 'standard':
      return {
        ...{ ...usual, encoding: 'base64', content: '{id}.{timestamp}.{body}' },
        keys: signature.secrets.map((secret) => Buffer.from(secret.replace(/^whsec_/, ''), 'base64')),
        candidates: behind('v1,', given.split(' ')),
        id: headerOf(delivery, 'webhook-id'),
        timestamp: headerOf(delivery, 'webhook-timestamp'),
        toleranceMs: signature.toleranceMs,
      };
    case 'hmac': {
      const { algorithm, encoding, content, idHeader, timestampHeader, timestampUnit } = signature;
      return {
        ...{ ...usual, algorithm, encoding, content, toleranceMs: signature.toleranceMs },
        candidates: behind(signature.prefix, [given]),
        id: idHeader && headerOf(delivery, idHeader.toLowerCase()),
        timestamp: timestampHeader && headerOf(delivery, timestampHeader.toLowerCase()),
        unitMs: timestampUnit === 'ms' ? 1 : 1_000,
      };
    }
  }
}

function proofByHmac(mac: Mac, { body }: Delivery, nowMs: number): Proof {
  const { content, id, timestamp } = mac;
  const isTimed = content.includes('{timestamp}');
  if (mac.candidates.length === 0) return 'wrong';
  if (isTimed && (timestamp === undefined || !/^\d{1,15}$/.test(timestamp))) return 'wrong';
  if (content.includes('{id}') && id === undefined) return 'wrong';
  const [before = '', after = ''] = content
    .split('{body}')
    .map((text) => text.replaceAll('{timestamp}', () => timestamp ?? '').replaceAll('{id}', () => id ?? ''));
  const candidates = mac.candidates.slice(0, candidatesMax).map((text) => Buffer.from(text, mac.encoding));
  const matching = mac.keys.filter((key) => {
    const expected = createHmac(mac.algorithm, key).update(before).update(body).update(after).digest();
    return candidates.filter((one) => isEqual(one, expected)).length > 0;
  });
  if (matching.length === 0) return 'wrong';
  if (!isTimed) return 'proven';
  return Math.abs(nowMs - Number(timestamp) * mac.unitMs) <= mac.toleranceMs ? 'proven' : 'too-old';
}

function isEqual(given: Buffer, expected: Buffer): boolean {
  return given.byteLength === expected.byteLength && timingSafeEqual(given, expected);
}

/** The rest of those that begin with the prefix. */
function behind(prefix: string, texts: readonly string[]): string[] {
  return texts.filter((text) => text.startsWith(prefix)).map((text) => text.slice(prefix.length));
}

function headerOf({ headers }: Delivery, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' ? value : undefined;
}
