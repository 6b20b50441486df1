/**
 * The store of the soak, as a process of its own: small and large answers, bodies of any length, event streams that never
 * end by themselves, and WebSockets that echo. Prints its port.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocketServer } from 'ws';
import { largeAnswer, smallAnswer } from './bodies.ts';

const large = largeAnswer();
const eventEveryMs = 50;

function answer(response: ServerResponse, body: Buffer): void {
  response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.byteLength });
  response.end(body);
}

function sendEvents(response: ServerResponse): void {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  const timer = setInterval(() => response.write('data: something happened\n\n'), eventEveryMs);
  response.once('close', () => clearInterval(timer));
}

function serve(request: IncomingMessage, response: ServerResponse): void {
  if (request.method !== 'GET') {
    request.once('end', () => answer(response, smallAnswer));
    request.once('error', () => response.destroy());
    request.resume();
  } else if (request.url === '/events') sendEvents(response);
  else answer(response, request.url === '/large' ? large : smallAnswer);
}

const server = createServer(serve);
new WebSocketServer({ server }).on('connection', (socket) => {
  socket.on('error', () => socket.terminate());
  socket.on('message', (message) => socket.send(message));
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
