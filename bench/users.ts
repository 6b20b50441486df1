/** What users do to a proxy all day: short and long, whole and broken off. Each act rejects where it did not go well. */
import { once } from 'node:events';
import { type Agent, type ClientRequest, type IncomingMessage, request } from 'node:http';
import { WebSocket } from 'ws';
import { largeAnswer, smallAnswer } from './bodies.ts';

export interface User {
  readonly port: number;
  readonly name: string;
  readonly agent: Agent;
}

type Act = (user: User) => Promise<void>;

const large = largeAnswer();
const note = Buffer.from(JSON.stringify({ text: 'x'.repeat(1_000) }));
const eventsRead = 3;
const messages = 5;

/** A request that is not ended yet; with a body of so many bytes it is a write. */
function begin({ port, name, agent }: User, path: string, bytes?: number): ClientRequest {
  const shared = { host: '127.0.0.1', port, agent, path };
  if (bytes === undefined) return request({ ...shared, headers: { 'x-user': name } });
  return request({ ...shared, method: 'POST', headers: { 'x-user': name, 'Content-Length': bytes } });
}

async function ask(user: User, path: string, body?: Buffer): Promise<IncomingMessage> {
  const asked = begin(user, path, body?.byteLength);
  const answered = once(asked, 'response') as Promise<[IncomingMessage]>;
  // Also after the answer: who breaks it off hears of it.
  asked.on('error', () => undefined);
  asked.end(body);
  const [answer] = await answered;
  if (answer.statusCode !== 200) throw new Error(`${path} was answered ${answer.statusCode}`);
  return answer;
}

async function whole(user: User, wanted: Buffer, path: string, body?: Buffer): Promise<void> {
  const answer = await ask(user, path, body);
  const received = Buffer.concat((await answer.toArray()) as Buffer[]);
  if (!received.equals(wanted)) throw new Error(`${path} was answered with other bytes than the store's`);
}

/** Half of a body that was announced whole. */
async function breakOffUpload(user: User): Promise<void> {
  const asked = begin(user, '/files', large.byteLength);
  asked.on('error', () => undefined);
  const half = large.subarray(0, large.byteLength / 2);
  await new Promise<void>((sent) => asked.write(half, () => sent()));
  asked.destroy();
}

async function breakOffDownload(user: User): Promise<void> {
  const answer = await ask(user, '/large');
  await once(answer, 'data');
  answer.destroy();
}

async function listen(user: User): Promise<void> {
  const answer = await ask(user, '/events');
  for (let read = 0; read < eventsRead; read += 1) await once(answer, 'data');
  answer.destroy();
}

async function talk({ port, name }: User): Promise<void> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/talk`, { headers: { 'x-user': name } });
  await once(socket, 'open');
  for (let sent = 0; sent < messages; sent += 1) {
    socket.send(note);
    await once(socket, 'message');
  }
  const closed = once(socket, 'close');
  if (Math.random() < 0.5) socket.close();
  else socket.terminate();
  await closed;
}

/** Each with its share; they need not sum up to anything. */
export const acts: Readonly<Record<string, { readonly share: number; readonly act: Act }>> = {
  read: { share: 50, act: (user) => whole(user, smallAnswer, '/notes/1') },
  write: { share: 30, act: (user) => whole(user, smallAnswer, '/notes', note) },
  upload: { share: 4, act: (user) => whole(user, smallAnswer, '/files', large) },
  download: { share: 4, act: (user) => whole(user, large, '/large') },
  'upload broken off': { share: 3, act: breakOffUpload },
  'download broken off': { share: 3, act: breakOffDownload },
  'event stream': { share: 3, act: listen },
  websocket: { share: 3, act: talk },
};
