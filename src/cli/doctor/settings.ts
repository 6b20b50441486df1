/** Checks of what the configuration says, beyond what makes it invalid. */
import { X509Certificate } from 'node:crypto';
import { pinnedRoutesIn } from '../../config/route-words.ts';
import type { Config } from '../../config/schema.ts';
import { readCertificate } from '../../proxy/certificate.ts';
import { fail, type Finding, ok, sentenceOf, warn } from './finding.ts';

export function checkTokens({ admin }: Config): Finding {
  const { tokens } = admin;
  if (tokens.length === 0) {
    return fail('admin tokens', 'there are none, so every call is refused', 'Add one to admin.tokens.');
  }
  const operators = tokens.filter((token) => token.role !== 'viewer');
  if (operators.length === 0) {
    return warn('admin tokens', 'all are viewers: nobody can flip', 'Add a token with the role operator.');
  }
  return ok('admin tokens', tokens.map(({ name, role }) => `${name} (${role})`).join(', '));
}

export function checkListening({ admin }: Config): Finding[] {
  if (isLoopback(admin.host)) return [];
  const advice = 'Listen on 127.0.0.1, or put a proxy with TLS in front.';
  return [
    warn('admin.host', `${admin.host} is reachable from outside, and tokens travel unencrypted`, advice),
  ];
}

/** Reads the files, as the proxy does at its start. */
export function checkListeningTls({ proxy: { tls } }: Config, nowMs = Date.now()): Finding[] {
  if (tls === undefined) return [];
  try {
    const { subject, subjectAltName, validToDate } = new X509Certificate(readCertificate(tls).cert);
    const detail = `${tls.cert}, of ${subjectAltName ?? subject}, until ${validToDate.toISOString()}`;
    if (validToDate.getTime() > nowMs) return [ok('proxy.tls', detail)];
    return [fail('proxy.tls', `${detail}: it has expired`, 'Renew it; clients refuse it.')];
  } catch (error) {
    return [fail('proxy.tls', sentenceOf(error), 'Correct the files; until then the proxy does not start.')];
  }
}

/** Rules that believe everybody, and rules that can never be reached. */
export function checkIdentity({ identity }: Config): Finding[] {
  const findings: Finding[] = [];
  for (const [at, rule] of identity.entries()) {
    if (!('from' in rule) || rule.from === undefined) continue;
    const what = 'header' in rule ? rule.header : 'the user name';
    const open = rule.from.filter((range) => /\/0$/.test(range));
    if (open.length > 0) {
      findings.push(
        warn(
          `identity[${at}]`,
          `${what} is believed from everybody (${open.join(', ')}): any client can act as any user`,
          'List only the peers that set the header, and make sure that they remove it from outside.',
        ),
      );
    }
  }
  if (findings.length === 0) findings.push(ok('identity', `${identity.length} rules`));
  return findings;
}

/** To the stores, several spellings can be one name. */
export function checkPartitionNames({ partitionNames }: Config): Finding[] {
  if (partitionNames?.pattern !== undefined) return [ok('partitionNames', `match ${partitionNames.pattern}`)];
  const detail =
    'no pattern: a name in another spelling (1abc for 1, Ann for ann) is another partition to the proxy, whatever the stores read there (docs/routes.md)';
  return [ok('partitionNames', detail)];
}

export function checkPinnedRoutes(config: Config): Finding[] {
  const pinned = pinnedRoutesIn(config);
  if (pinned.length === 0) return [];
  return [ok('routes', `outside the promise, always one store: ${pinned.join(', ')}`)];
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}
