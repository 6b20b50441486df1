/** Certificates for a test, made by openssl: an authority, and what it signs. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Certified {
  /** Files in PEM. */
  readonly certFile: string;
  readonly keyFile: string;
  readonly cert: string;
  readonly key: string;
}

export const noOpenssl = whyWithout();

function whyWithout(): string | undefined {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'openssl is not installed, and Node cannot make certificates';
  }
}

export class Authority {
  readonly #directory: string;
  readonly #own: Certified;
  #made = 0;

  constructor(name = 'test authority') {
    this.#directory = mkdtempSync(join(tmpdir(), 'onewriter-certificates-'));
    this.#own = this.#make(`/CN=${name}`, ['-addext', 'keyUsage=critical,keyCertSign']);
  }

  /** Its certificate. */
  get ca(): string {
    return this.#own.cert;
  }

  get caFile(): string {
    return this.#own.certFile;
  }

  /** `names` like DNS:store.example or IP:127.0.0.1; the first stands in the subject. */
  certify(...names: readonly string[]): Certified {
    const { certFile, keyFile } = this.#own;
    return this.#make(`/CN=${(names[0] ?? '').replace(/^\w+:/, '')}`, [
      ...['-CA', certFile, '-CAkey', keyFile],
      ...['-addext', `subjectAltName=${names.join(',')}`, '-addext', 'basicConstraints=critical,CA:FALSE'],
    ]);
  }

  remove(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #make(subject: string, further: readonly string[]): Certified {
    this.#made += 1;
    const certFile = join(this.#directory, `${this.#made}.pem`);
    const keyFile = join(this.#directory, `${this.#made}.key`);
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
        ...['-days', '2', '-subj', subject, '-out', certFile, '-keyout', keyFile, ...further],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    return {
      ...{ certFile, keyFile },
      ...{ cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') },
    };
  }
}
