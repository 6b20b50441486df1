/**
 * The signed headers by which the proxy tells the app whose request this is, for which partition, under
 * which epoch and with which access. The wire format, with test vectors, stands in docs/guard.md.
 *
 * Signed are the values as they stand in the headers. Names are percent-encoded there, so that no header
 * value holds a space, a comma-space (how servers fold repeated headers) or a byte outside visible ASCII.
 */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import type { GuardAccess } from '../core/guard.ts';

export const guardHeaderNames = {
  user: 'Onewriter-User',
  partition: 'Onewriter-Partition',
  epoch: 'Onewriter-Epoch',
  access: 'Onewriter-Access',
  /** Only where the request touches several partitions: the others, each with its epoch. */
  also: 'Onewriter-Also',
  signature: 'Onewriter-Signature',
} as const;

/** A signature is good this long before and after the receiver's clock, seconds. */
export const signatureValidSeconds = 60;

/** Longest user or partition name, in bytes of its header value. */
export const nameBytesMax = 1024;

/** Longest value of Onewriter-Also, bytes: servers take header lines of 8 KiB. */
export const alsoBytesMax = 7_168;

/** A partition that the request touches, and the epoch under which it does. */
export interface SignedPartition {
  readonly partition: string;
  readonly epoch: number;
}

/** What a verified request says. `user` is empty where nobody but onewriter itself acts (copies). */
export interface GuardClaims extends SignedPartition {
  readonly user: string;
  readonly access: GuardAccess;
  /** Other partitions that the request touches in the same write; absent where there are none. */
  readonly also?: readonly SignedPartition[];
}

export interface GuardStatement extends GuardClaims {
  readonly secret: string | KeyObject;
  /** Unix time, whole seconds. */
  readonly timestampSeconds: number;
  readonly method: string;
  /** The request target exactly as it is sent: path and query. */
  readonly target: string;
}

type HeaderName = (typeof guardHeaderNames)[keyof typeof guardHeaderNames];
export type GuardHeaders = Record<Exclude<HeaderName, 'Onewriter-Also'>, string> & {
  readonly 'Onewriter-Also'?: string;
};

/**
 * `unsigned`: no signature header. `bad-signature`: forged, altered, incomplete or malformed. `several-partitions`:
 * rightly signed, but the receiver has not said that it checks every partition of a request.
 */
export type SignatureRefusal = 'unsigned' | 'bad-signature' | 'expired' | 'several-partitions';

export type SignatureVerdict =
  | { readonly ok: true; readonly claims: GuardClaims }
  | { readonly ok: false; readonly code: SignatureRefusal };

/** Header fields by lower-case name, as node:http gives them. */
export type ReceivedHeaders = Readonly<Record<string, string | readonly string[] | undefined>>;

const plainName = /^[!-$&-~]*$/;
const encodedName = /^(?:[!-$&-~]|%[0-9A-F]{2})*$/;
const controlCharacter = /[\u0000-\u001f\u007f]/;
const methodToken = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Visible ASCII and raw bytes above it: what an HTTP/1.1 request line can carry without a space. */
const wireTarget = /^[!-~\u0080-\u00ff]+$/;
const decimal = /^(?:0|[1-9]\d{0,15})$/;
const signatureValue = /^(v[12]),t=(0|[1-9]\d{0,11}),([0-9a-f]{64})$/;

/** Prepares the secret once, for callers that sign often. The key is the UTF-8 bytes of the secret. */
export function guardKey(secret: string): KeyObject {
  return createSecretKey(secret, 'utf8');
}

/**
 * May this user or partition name be signed? Not with control characters (a newline would blur the signed
 * lines), with a lone surrogate, or longer than `nameBytesMax`. Ask before signing what a client sent.
 */
export function isSignableName(name: string): boolean {
  return encodeName(name) !== undefined;
}

/** May these stand together in one request, beside another one? Whatever their epochs are. */
export function isSignableSet(partitions: readonly string[]): boolean {
  const longest = partitions.map((partition) => ({ partition, epoch: Number.MAX_SAFE_INTEGER }));
  return encodeAlso(longest) !== undefined;
}

/**
 * The five headers for one request, and a sixth where it touches several partitions. Throws a RangeError for a value that cannot be signed: names must
 * have passed `isSignableName`, and the target must be one that HTTP can carry.
 */
export function signGuard(statement: GuardStatement): GuardHeaders {
  const { method, target, epoch, access, timestampSeconds } = statement;
  const user = encodeName(statement.user);
  const partition = encodeName(statement.partition);
  if (user === undefined) throw new RangeError('this user name cannot be signed for the guard');
  if (partition === undefined) throw new RangeError('this partition name cannot be signed for the guard');
  if (!methodToken.test(method)) throw new RangeError('this method cannot be signed for the guard');
  if (!wireTarget.test(target)) throw new RangeError('this request target cannot be signed for the guard');
  if (!isCount(epoch)) throw new RangeError('an epoch is a whole number from 0');
  if (!isCount(timestampSeconds)) throw new RangeError('a timestamp is in whole seconds');
  const also = statement.also === undefined ? undefined : encodeAlso(statement.also);
  if (also === undefined && statement.also !== undefined) {
    throw new RangeError('these partitions cannot be signed together for the guard');
  }
  // A guard that does not know of several partitions knows no v2 either, and refuses the request.
  const version = also === undefined ? 'v1' : 'v2';
  const values = { user, partition, epoch: String(epoch), access, also };
  const lines = signedLines(version, String(timestampSeconds), method, target, values);
  const mac = createHmac('sha256', statement.secret).update(lines, 'latin1').digest('hex');
  return {
    'Onewriter-User': user,
    'Onewriter-Partition': partition,
    'Onewriter-Epoch': values.epoch,
    'Onewriter-Access': access,
    ...(also === undefined ? {} : { 'Onewriter-Also': also }),
    'Onewriter-Signature': `${version},t=${timestampSeconds},${mac}`,
  };
}

interface SignedValues {
  readonly user: string;
  readonly partition: string;
  readonly epoch: string;
  readonly access: string;
  readonly also: string | undefined;
}

function signedLines(
  version: string,
  timestamp: string,
  method: string,
  target: string,
  { user, partition, epoch, access, also }: SignedValues,
): string {
  const lines = `${version}\n${timestamp}\n${method}\n${target}\n${user}\n${partition}\n${epoch}\n${access}`;
  return also === undefined ? lines : `${lines}\n${also}`;
}

/** Checks the headers of a received request. The time is looked at last: only true statements expire. */
export function verifyGuard(request: {
  readonly secret: string | KeyObject;
  /** The receiver's Unix time, seconds. */
  readonly nowSeconds: number;
  readonly method: string;
  readonly target: string;
  readonly headers: ReceivedHeaders;
  /**
   * The caller checks and respects every partition in `also`. Left out, such requests are refused: who looks at
   * `partition` alone would let the others through unchecked.
   */
  readonly severalPartitions?: boolean;
}): SignatureVerdict {
  const { headers } = request;
  const refuse = (code: SignatureRefusal): SignatureVerdict => ({ ok: false, code });
  if (headers['onewriter-signature'] === undefined) return refuse('unsigned');
  const signature = signatureValue.exec(single(headers['onewriter-signature']) ?? '');
  const user = single(headers['onewriter-user']);
  const partition = single(headers['onewriter-partition']);
  const epoch = single(headers['onewriter-epoch']);
  const access = single(headers['onewriter-access']);
  const also = single(headers['onewriter-also']);
  if (signature === null || user === undefined || partition === undefined) return refuse('bad-signature');
  if (epoch === undefined || access === undefined) return refuse('bad-signature');
  const [, version = '', timestamp = '', mac = ''] = signature;
  const { method, target, secret } = request;
  if (also === undefined ? version !== 'v1' || headers['onewriter-also'] !== undefined : version !== 'v2') {
    return refuse('bad-signature');
  }
  const values = { user, partition, epoch, access, also };
  const lines = signedLines(version, timestamp, method, target, values);
  const expected = createHmac('sha256', secret).update(lines, 'latin1').digest();
  if (!timingSafeEqual(expected, Buffer.from(mac, 'hex'))) return refuse('bad-signature');

  const claims = claimsOf(values);
  if (claims === undefined || !methodToken.test(method) || !wireTarget.test(target)) {
    return refuse('bad-signature');
  }
  if (Math.abs(request.nowSeconds - Number(timestamp)) > signatureValidSeconds) return refuse('expired');
  if (claims.also !== undefined && request.severalPartitions !== true) return refuse('several-partitions');
  return { ok: true, claims };
}

function claimsOf(values: SignedValues): GuardClaims | undefined {
  const user = decodeName(values.user);
  const partition = decodeName(values.partition);
  const epoch = decodeEpoch(values.epoch);
  if (user === undefined || partition === undefined || epoch === undefined) return undefined;
  const { access } = values;
  if (access !== 'read' && access !== 'write' && access !== 'copy') return undefined;
  if (values.also === undefined) return { user, partition, epoch, access };
  const also = decodeAlso(values.also, partition);
  return also && { user, partition, epoch, access, also };
}

/** Name and epoch of each, all parted by one space: no encoded name holds one. Undefined where that is refused. */
function encodeAlso(partitions: readonly SignedPartition[]): string | undefined {
  const parts: string[] = [];
  for (const { partition, epoch } of partitions) {
    const name = encodeName(partition);
    if (name === undefined || name === '' || !isCount(epoch)) return undefined;
    parts.push(name, String(epoch));
  }
  const value = parts.join(' ');
  return value === '' || value.length > alsoBytesMax ? undefined : value;
}

function decodeAlso(value: string, first: string): SignedPartition[] | undefined {
  if (value.length > alsoBytesMax) return undefined;
  const parts = value.split(' ');
  const names = new Set([first]);
  const partitions: SignedPartition[] = [];
  for (let at = 0; at < parts.length; at += 2) {
    const partition = decodeName(parts[at] ?? '');
    const epoch = decodeEpoch(parts[at + 1] ?? '');
    if (partition === undefined || partition === '' || epoch === undefined) return undefined;
    // One that is there twice could have two epochs.
    if (names.has(partition)) return undefined;
    names.add(partition);
    partitions.push({ partition, epoch });
  }
  return partitions;
}

function decodeEpoch(value: string): number | undefined {
  const epoch = Number(value);
  return decimal.test(value) && isCount(epoch) ? epoch : undefined;
}

/** Percent-encodes (RFC 3986, UTF-8) all but visible ASCII, and '%'; undefined where that is refused. */
function encodeName(name: string): string | undefined {
  if (name.length > nameBytesMax) return undefined;
  if (plainName.test(name)) return name;
  if (controlCharacter.test(name) || !name.isWellFormed()) return undefined;
  const encoded = name.replace(/[^!-$&-~]+/gu, (part) => encodeURIComponent(part));
  return encoded.length > nameBytesMax ? undefined : encoded;
}

/** Only the one spelling that `encodeName` makes is taken, so that a name has one header value. */
function decodeName(value: string): string | undefined {
  if (value.length > nameBytesMax || !encodedName.test(value)) return undefined;
  try {
    const name = decodeURIComponent(value);
    return encodeName(name) === value ? name : undefined;
  } catch {
    return undefined; // not UTF-8
  }
}

function single(value: string | readonly string[] | undefined): string | undefined {
  if (value === undefined || typeof value === 'string') return value;
  return value.length === 1 ? value[0] : undefined;
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
