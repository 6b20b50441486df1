/** The certificate of a running proxy, renewed by a signal, and what doctor says of TLS. */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Authority, noOpenssl } from '../support/certificates.ts';
import { runCli, startCli } from '../support/cli.ts';
import { exchange, RawUpstream, statusOf } from '../support/raw-http.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const suite = noOpenssl === undefined ? describe : describe.skip;
let authority: Authority;
let directory: string;
let redis: TestRedis;
let store: RawUpstream;

suite(`certificates of the running program (${noOpenssl ?? 'with openssl'})`, () => {
  beforeAll(async () => {
    authority = new Authority();
    directory = mkdtempSync(join(tmpdir(), 'onewriter-certificate-'));
    redis = await startRedis();
    store = await RawUpstream.start(undefined, authority.certify('IP:127.0.0.1'));
  }, 60_000);
  afterAll(async () => {
    await store.stop();
    await redis.stop();
    rmSync(directory, { recursive: true });
    authority.remove();
  }, 60_000);

  function configure(storeTls: Record<string, unknown>, processes = 1): string {
    const file = join(directory, 'onewriter.json');
    const certificate = authority.certify('DNS:shop.example');
    copyFileSync(certificate.certFile, join(directory, 'cert.pem'));
    copyFileSync(certificate.keyFile, join(directory, 'key.pem'));
    const whole = {
      proxy: {
        port: 0,
        processes,
        tls: { cert: join(directory, 'cert.pem'), key: join(directory, 'key.pem') },
      },
      admin: { port: 0 },
      redis: { url: redis.url },
      dataDir: join(directory, 'data'),
      secret: 'a-secret-of-the-certificate-tests',
      stores: {
        legacy: { url: store.url, tls: storeTls },
        app: { url: 'http://127.0.0.1:1', guard: false, settleMs: 1 },
      },
      identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    };
    writeFileSync(file, JSON.stringify(whole));
    return file;
  }

  /** The configuration of before, with the port that was taken. */
  function onPort(port: number): string {
    const file = join(directory, 'running.json');
    const whole = JSON.parse(readFileSync(join(directory, 'onewriter.json'), 'utf8')) as {
      proxy: Record<string, unknown>;
    };
    writeFileSync(file, JSON.stringify({ ...whole, proxy: { ...whole.proxy, port } }));
    return file;
  }

  test.each([1, 2])(
    '%i processes speak TLS, and read the certificate again at a SIGHUP',
    async (processes) => {
      const proxy = startCli(['proxy', '--config', configure({ ca: authority.caFile }, processes)]);
      let stderr = '';
      proxy.child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
      const port = await until(
        'it listens',
        () => /proxy +https:\S+:(\d+)/.exec(proxy.stdout())?.[1],
        20_000,
      );
      const read = 'GET /a HTTP/1.1\r\nHost: shop.example\r\nx-user: ann\r\n\r\n';
      const tls = { ca: authority.ca, servername: 'shop.example' };
      expect(statusOf(await exchange(Number(port), read, tls))).toBe(200);
      const logged = (event: string): number => stderr.split(`"${event}"`).length - 1;
      proxy.child.kill('SIGHUP');
      await until('each has read it', () => logged('certificate.unchanged') === processes, 20_000);
      expect(logged('certificate.renewed')).toBe(0);
      const next = authority.certify('DNS:shop.example');
      copyFileSync(next.certFile, join(directory, 'cert.pem'));
      copyFileSync(next.keyFile, join(directory, 'key.pem'));
      proxy.child.kill('SIGHUP');
      await until('each has taken it', () => logged('certificate.renewed') === processes, 20_000);
      const running = await runCli(['doctor', '--config', onPort(Number(port))]);
      expect(running.stdout).toMatch(/ok +proxy\.port +\S+ is in use by onewriter itself/);
      expect(running.stdout).toMatch(/ok +proxy\.tls +.*shop\.example/);
      proxy.child.kill('SIGTERM');
      await proxy.ended;
    },
    60_000,
  );

  test.each([
    ['cert.pem', 'no certificate', /fail +proxy\.tls .*proxy\.tls\.cert, \S+ holds no PEM certificate/],
    ['key.pem', undefined, /fail +proxy\.tls .*does not belong to the certificate/],
  ])(
    'doctor says that %s of the proxy cannot be used',
    async (file, content, why) => {
      const config = configure({ ca: authority.caFile });
      writeFileSync(join(directory, file), content ?? authority.certify('DNS:other.example').key);
      const { stdout, exit } = await runCli(['doctor', '--config', config]);
      expect(stdout).toMatch(why);
      expect(exit).not.toBe(0);
    },
    60_000,
  );

  test('a store is verified also where the environment of the process says otherwise', async () => {
    const env = { NODE_TLS_REJECT_UNAUTHORIZED: '0' };
    const { stdout } = await runCli(['doctor', '--config', configure({})], { env });
    expect(stdout).toMatch(/TLS failed: /);
  }, 60_000);

  test.each([
    [{}, /TLS failed: /],
    [{ ca: '/nowhere.pem' }, /stores\.legacy\.tls\.ca, \/nowhere\.pem, cannot be read/],
  ])(
    'doctor says why a store behind TLS is not trusted with %j',
    async (tls, why) => {
      const { stdout } = await runCli(['doctor', '--config', configure(tls)]);
      expect(stdout).toMatch(why);
    },
    60_000,
  );
});
