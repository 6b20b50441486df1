/**
 * The certificate of the listening side, read again when its files change. Whoever renews one replaces two
 * files, one after the other: they are taken once they rest, and only if they fit each other.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Server as HttpServer } from 'node:http';
import { Server as HttpsServer } from 'node:https';
import type { Server } from 'node:tls';
import type { Config } from '../config/schema.ts';
import { type Log, sentenceOf } from '../log.ts';
import { mustFit, readPem } from '../stores/connect.ts';

export type ListeningTls = NonNullable<Config['proxy']['tls']>;

export interface CertificateFiles {
  readonly cert: string;
  readonly key: string;
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3';
}

/** Throws a sentence that names the setting. */
export function readCertificate({ cert, key, minVersion }: ListeningTls): CertificateFiles {
  const read = {
    cert: readPem('proxy.tls.cert', cert),
    key: readPem('proxy.tls.key', key),
    ...(minVersion === undefined ? {} : { minVersion }),
  };
  mustFit('proxy.tls', read, { cert, key });
  return read;
}

/** Undefined where the server speaks no TLS. `started`: what it has begun with. */
export function watchCertificate(
  server: HttpServer,
  tls: ListeningTls,
  started: CertificateFiles,
  settings: WatchSettings,
): CertificateWatch | undefined {
  return server instanceof HttpsServer ? new CertificateWatch(server, tls, started, settings) : undefined;
}

interface WatchSettings {
  readonly lookMs: number;
  readonly log: Log;
}

export class CertificateWatch {
  readonly #server: Pick<Server, 'setSecureContext'>;
  readonly #tls: ListeningTls;
  readonly #log: Log;
  readonly #timer: NodeJS.Timeout;
  /** Contents that are used, that were taken or refused last, and as they looked last. */
  #used: string;
  #judged: string;
  #seen: string;
  #looking = false;

  /** `started`: what the server has begun with. */
  constructor(
    server: Pick<Server, 'setSecureContext'>,
    tls: ListeningTls,
    started: CertificateFiles,
    settings: WatchSettings,
  ) {
    this.#server = server;
    this.#tls = tls;
    this.#log = settings.log;
    this.#used = contentOf(started.cert, started.key);
    this.#judged = this.#used;
    this.#seen = this.#judged;
    this.#timer = setInterval(() => void this.look(), settings.lookMs).unref();
  }

  /** Whether the files have changed or not. */
  renew(): void {
    try {
      const files = readCertificate(this.#tls);
      this.#judged = contentOf(files.cert, files.key);
      if (this.#judged === this.#used) {
        const detail = 'The files hold what is used already.';
        this.#log('info', 'certificate.unchanged', { detail });
        return;
      }
      this.#server.setSecureContext(files);
      this.#used = this.#judged;
      this.#log('info', 'certificate.renewed');
    } catch (error) {
      const detail = `${sentenceOf(error)}. New connections go on with the certificate of before.`;
      this.#log('warn', 'certificate.not-renewed', { detail });
    }
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** One look; the timer does it again and again. */
  async look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    const [cert, key] = await Promise.all([this.#tls.cert, this.#tls.key].map(textOf));
    this.#looking = false;
    const now = contentOf(cert, key);
    const rests = now === this.#seen;
    this.#seen = now;
    if (!rests || now === this.#judged) return;
    this.#judged = now;
    this.renew();
  }
}

async function textOf(file: string): Promise<string | undefined> {
  // What is wrong with it is said where it is read to be used.
  return readFile(file, 'utf8').catch(() => undefined);
}

/** Of the contents, not of the times: some file systems count those coarsely, and a copy can keep them. */
function contentOf(cert: string | undefined, key: string | undefined): string {
  return createHash('sha256')
    .update(JSON.stringify([cert, key]))
    .digest('hex');
}
