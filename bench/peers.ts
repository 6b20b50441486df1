/** The proxies that are compared, each a process of its own before the same upstream. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { connect } from 'node:net';
import { pause } from '../src/pause.ts';
import { startChild, startScript, type Child } from './child.ts';

export interface Peer {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  stop(): Promise<void>;
}

const nativePeers = ['nginx', 'haproxy'] as const;
export const peerNames = ['undici', 'express-hpm', 'fastify-proxy', ...nativePeers] as const;
type PeerName = (typeof peerNames)[number];
type NativePeer = (typeof nativePeers)[number];

/** Undefined where the program is not on this machine. */
export async function startPeer(name: PeerName, upstream: number): Promise<Peer | undefined> {
  if (isNative(name)) return startNativePeer(name, upstream);
  const child = await startScript('forwarder.ts', [name, `http://127.0.0.1:${upstream}`], /(\d+)\n/);
  return { name, port: Number(child.said), pid: child.pid, stop: () => child.stop() };
}

function isNative(name: PeerName): name is NativePeer {
  return nativePeers.some((native) => native === name);
}

async function startNativePeer(name: NativePeer, upstream: number): Promise<Peer | undefined> {
  const binary = findBinary(name);
  if (binary === undefined) return undefined;
  const directory = mkdtempSync(join(tmpdir(), `onewriter-bench-${name}-`));
  mkdirSync(join(directory, 'logs'));
  const port = await freePort();
  const file = join(directory, `${name}.conf`);
  const text = name === 'nginx' ? nginxConfig(directory, port, upstream) : haproxyConfig(port, upstream);
  writeFileSync(file, text);
  const given = name === 'nginx' ? ['-p', directory, '-e', 'logs/error.log', '-c', file] : ['-f', file];
  // Neither says anything when it is ready, so a shell does before it becomes the program.
  const shell = ['/bin/sh', '-c', 'echo begun; exec "$@"', 'sh', binary, ...given];
  const child = await startChild(shell, /(begun)/);
  const stop = async (): Promise<void> => {
    await child.stop();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await untilListening(port, child);
  } catch (error) {
    await stop();
    throw error;
  }
  return { name, port, pid: child.pid, stop };
}

/** One process, which ends with its pid; bodies are streamed, and nothing is written to disk. */
function nginxConfig(directory: string, port: number, upstream: number): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${directory}/${kind};`,
  );
  return `
daemon off;
master_process off;
pid ${directory}/nginx.pid;
events { worker_connections 8192; }
http {
  ${temporary.join('\n  ')}
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_buffer_size 64k;
  upstream store { server 127.0.0.1:${upstream}; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://store;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_request_buffering off;
      proxy_buffer_size 64k;
      proxy_buffers 8 64k;
      proxy_busy_buffers_size 128k;
      proxy_max_temp_file_size 0;
    }
  }
}
`;
}

function haproxyConfig(port: number, upstream: number): string {
  return `
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 60s
  http-reuse always
  option forwardfor
frontend clients
  bind 127.0.0.1:${port} backlog 4096
  default_backend store
backend store
  server store 127.0.0.1:${upstream}
`;
}

/** System programs are often not on the path of a user. */
function findBinary(name: string): string | undefined {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  return directories.map((directory) => join(directory, name)).find((file) => existsSync(file));
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((closed) => server.close(() => closed()));
  return port;
}

async function untilListening(port: number, child: Child): Promise<void> {
  for (let tries = 0; tries < 200; tries += 1) {
    const open = await new Promise<boolean>((done) => {
      const socket = connect({ port, host: '127.0.0.1' });
      socket.once('connect', () => {
        socket.destroy();
        done(true);
      });
      socket.once('error', () => done(false));
    });
    if (open) return;
    await pause(25);
  }
  throw new Error(`process ${child.pid} does not listen on port ${port}: ${child.complaints()}`);
}
