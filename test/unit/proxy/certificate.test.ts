/** When the certificate of the listening side is read again: look by look. */
import { copyFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { CertificateWatch, readCertificate } from '../../../src/proxy/certificate.ts';
import { Authority, type Certified, noOpenssl } from '../../support/certificates.ts';

const suite = noOpenssl === undefined ? describe : describe.skip;

suite(`looks at the files of the certificate (${noOpenssl ?? 'with openssl'})`, () => {
  let authority: Authority;
  let used: Certified;
  let next: Certified;
  beforeAll(() => {
    authority = new Authority();
    [used, next] = [authority.certify('DNS:a.example'), authority.certify('DNS:b.example')];
  });
  afterAll(() => authority.remove());

  test('a change is taken once it rests, and what was taken or refused is left alone', async () => {
    const taken: unknown[] = [];
    const logged: string[] = [];
    const tls = { cert: used.certFile, key: used.keyFile };
    const server = { setSecureContext: ({ cert }: { cert?: unknown }) => void taken.push(cert) };
    const log = (_level: string, event: string): void => void logged.push(event);
    const watch = new CertificateWatch(server, tls, readCertificate(tls), { lookMs: 1e6, log });
    await watch.look();
    await watch.look();
    expect(logged).toEqual([]);
    copyFileSync(next.certFile, used.certFile);
    await watch.look();
    copyFileSync(next.keyFile, used.keyFile);
    await watch.look();
    expect(logged).toEqual([]);
    await watch.look();
    await watch.look();
    expect([taken, logged]).toEqual([[next.cert], ['certificate.renewed']]);
    copyFileSync(used.keyFile, used.certFile);
    for (let look = 0; look < 4; look += 1) await watch.look();
    expect([taken.length, logged]).toEqual([1, ['certificate.renewed', 'certificate.not-renewed']]);
    copyFileSync(next.certFile, used.certFile);
    watch.renew();
    expect([taken.length, logged.at(-1)]).toEqual([1, 'certificate.unchanged']);
    watch.stop();
  });

  test('what cannot be used is refused by the name of its file', () => {
    const { certFile, keyFile } = authority.certify('DNS:c.example');
    const refused = (cert: string, key: string): string => {
      try {
        readCertificate({ cert, key });
        return 'taken';
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect(refused(certFile, keyFile)).toBe('taken');
    expect(refused(keyFile, keyFile)).toContain(
      `The file of proxy.tls.cert, ${keyFile}, holds no PEM certificate`,
    );
    expect(refused(certFile, certFile)).toContain(
      `The file of proxy.tls.key, ${certFile}, holds no private key`,
    );
    expect(refused(certFile, next.keyFile)).toContain(
      `${next.keyFile}, does not belong to the certificate of proxy.tls.cert, ${certFile}`,
    );
  });
});
