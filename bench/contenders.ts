/** Who is compared: onewriter by each kind of identity, and its peers; each proven to pass requests on rightly. */
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { randomBytes } from 'node:crypto';
import { largeAnswer, mebibyte, smallAnswer } from './bodies.ts';
import { type Deployment, openDeployment, partitionName, secret } from './deployment.ts';
import { peerNames, startPeer } from './peers.ts';

/** How one contender is asked: by the headers of each user in turn. */
export interface Contender {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  readonly credentials: readonly string[];
  /** The same process again, with another identity. */
  readonly variant: boolean;
}

export interface Contenders {
  readonly all: readonly Contender[];
  /** Sentences on who is missing, and why. */
  readonly notes: readonly string[];
  stop(): Promise<void>;
}

/** Their tokens all fit into the cache of verified ones, and their partitions lie far apart. */
const users = 1_000;

export async function startContenders(upstream: number, partitions: number): Promise<Contenders> {
  const stops: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const end of stops.splice(0).toReversed()) await end();
  };
  const notes: string[] = [];
  const all: Contender[] = [];
  try {
    const names = userNames(partitions);
    const byName = names.map((name) => `x-user: ${name}`);
    all.push(...(await startOnewriter(upstream, partitions, names, stops)));
    for (const name of peerNames) {
      const peer = await startPeer(name, upstream);
      if (peer === undefined) {
        notes.push(`${name} is not on this machine, so it was left out (Debian: apt-get install ${name}).`);
        continue;
      }
      stops.push(() => peer.stop());
      all.push({ ...peer, credentials: byName, variant: false });
    }
    for (const contender of all) await proveEcho(contender);
    return { all, notes, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Of partitions that live in legacy, spread over all that the ledger lists. */
function userNames(partitions: number): string[] {
  const step = Math.max(2, 2 * Math.floor(partitions / users / 2));
  return Array.from({ length: users }, (_, at) => partitionName(at * step + 1));
}

async function startOnewriter(
  upstream: number,
  partitions: number,
  names: readonly string[],
  stops: (() => Promise<void>)[],
): Promise<Contender[]> {
  const keys = await startKeys();
  stops.push(keys.stop);
  const deployment: Deployment = await openDeployment(partitions);
  stops.push(() => deployment.stop());
  const url = `http://127.0.0.1:${upstream}`;
  const { pid, url: address } = await deployment.startProxy({
    identity: [
      { header: 'x-user', from: ['127.0.0.0/8'] },
      { jwt: { secret } },
      { cookie: 'session', jwt: { jwksUrl: keys.url } },
    ],
    // Guarded, so that every request carries signed headers; the path only makes them two stores.
    stores: { legacy: { url, guard: true }, app: { url: `${url}/app` } },
  });
  const port = Number(new URL(address).port);
  const shared = Buffer.from(secret);
  const byName = names.map((name) => `x-user: ${name}`);
  const [byShared, byPublic] = await Promise.all([
    Promise.all(names.map(async (name) => `Authorization: Bearer ${await tokenOf(name, 'HS256', shared)}`)),
    Promise.all(names.map(async (name) => `Cookie: session=${await tokenOf(name, 'RS256', keys.key)}`)),
  ]);
  return [
    { name: 'onewriter', port, pid, credentials: byName, variant: false },
    { name: 'onewriter, HS256', port, pid, credentials: byShared, variant: true },
    { name: 'onewriter, RS256', port, pid, credentials: byPublic, variant: true },
  ];
}

function tokenOf(user: string, alg: string, key: Buffer | CryptoKey): Promise<string> {
  const token = new SignJWT({ scope: 'bench' }).setSubject(user).setProtectedHeader({ alg, kid: 'bench' });
  return token.setIssuedAt().setExpirationTime('1 day').sign(key);
}

/** An issuer with one RSA key. */
async function startKeys(): Promise<{ key: CryptoKey; url: string; stop: () => Promise<void> }> {
  const { publicKey, privateKey } = await generateKeyPair('RS256');
  const jwk = { ...(await exportJWK(publicKey)), kid: 'bench', use: 'sig', alg: 'RS256' };
  const server = createServer((_request, response) => response.end(JSON.stringify({ keys: [jwk] })));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    key: privateKey,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`,
    stop: async () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** What is fast and wrong must not win. */
async function proveEcho({ name, port, credentials }: Contender): Promise<void> {
  const [field = '', ...rest] = (credentials[0] ?? '').split(': ');
  const headers = { [field]: rest.join(': ') };
  const ask = async (path: string, body?: Buffer<ArrayBuffer>): Promise<Buffer> => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
      headers,
      ...(body === undefined ? {} : { method: 'POST', body }),
    });
    if (answer.status !== 200) {
      throw new Error(`${name} answered ${answer.status} to ${path}: ${await answer.text()}`);
    }
    return Buffer.from(await answer.arrayBuffer());
  };
  const fail = (what: string): never => {
    throw new Error(`${name} does not pass ${what} on rightly, so nothing was measured`);
  };
  if (!(await ask('/r1')).equals(smallAnswer)) fail('a GET');
  if (!(await ask('/large')).equals(largeAnswer())) fail('an answer of 1 MiB');
  for (const size of [1_024, mebibyte]) {
    const body = randomBytes(size);
    if (!(await ask('/r1', body)).equals(body)) fail(`a POST of ${size} bytes`);
  }
  if (!(await ask('/sink', Buffer.from('{}'))).equals(Buffer.from('{}'))) fail('a POST');
}
