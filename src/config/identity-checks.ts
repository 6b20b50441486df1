/** What one key of an identity rule cannot know about another: a rule that verifies nothing is no rule. */
import { isIP } from 'node:net';
import type { Reporter } from './problems.ts';
import type { Config } from './schema.ts';
import type { ReadableConfig } from './sections.ts';

type Rule = Config['identity'][number];
type Introspect = Extract<Rule, { bearer: unknown }>['introspect'];

export function identityFindings({ identity }: ReadableConfig, report: Reporter): void {
  const seen = new Map<string, number>();
  for (const [at, rule] of identity.entries()) {
    if (rule === undefined) continue;
    const path = `identity[${at}]`;
    checkVerified(path, rule, report);
    if ('from' in rule && rule.from !== undefined) checkPeers(path, rule.from, report);
    if ('introspect' in rule && rule.introspect !== undefined) {
      checkIntrospect(`${path}.introspect`, rule, rule.introspect, report);
    }
    if ('jwt' in rule && rule.jwt?.secret !== undefined && Buffer.byteLength(rule.jwt.secret) < 32) {
      report.warning(`${path}.jwt.secret is shorter than 32 bytes, the least that RFC 7518 asks for HS256.`);
    }
    const place = placeOf(rule);
    const first = seen.get(place);
    if (first === undefined) seen.set(place, at);
    else {
      report.warning(
        `${path} never decides: identity[${first}] looks at ${place} first, and a credential that it finds wrong is refused.`,
      );
    }
  }
}

/** An identity that nobody verified is none. */
function checkVerified(path: string, rule: Rule, report: Reporter): void {
  if (!('cookie' in rule || 'basic' in rule || 'body' in rule)) return;
  const verifiers = [rule.introspect, rule.from, 'jwt' in rule ? rule.jwt : undefined];
  if (verifiers.filter((verifier) => verifier !== undefined).length === 1) return;
  const [key, choice] =
    'cookie' in rule
      ? ['cookie', 'introspect, jwt and from']
      : 'basic' in rule
        ? ['basic', 'introspect and from']
        : ['body', 'introspect, jwt and from'];
  report.problem(
    `${path}.${key}`,
    `needs exactly one of ${choice} beside it: what is not verified says nothing about who sent it`,
  );
}

function checkPeers(path: string, from: readonly string[], report: Reporter): void {
  for (const [index, range] of from.entries()) {
    checkRange(`${path}.from[${index}]`, range, report);
    if (/\/0+$/.test(range)) {
      report.warning(`${path}.from allows ${range}: everybody who reaches the proxy can say who they are.`);
    }
  }
}

function checkIntrospect(path: string, rule: Rule, asked: Introspect, report: Reporter): void {
  const { username, password, hash } = new URL(asked.url);
  if (username !== '' || password !== '' || hash !== '') {
    report.problem(`${path}.url`, 'must not contain a user, a password or "#"; put secrets into headers');
  }
  if (asked.form === true && asked.header !== undefined) {
    report.problem(`${path}.header`, 'cannot stand beside form: the credential goes to one place');
  }
  if (asked.form === true && asked.method === 'GET') {
    report.problem(`${path}.method`, 'must be POST with form');
  }
  if ('basic' in rule && (asked.form === true || asked.header !== undefined)) {
    const key = asked.form === true ? 'form' : 'header';
    report.problem(`${path}.${key}`, 'cannot carry a name and a password; they stand in Authorization');
  }
  if ('body' in rule && asked.method === 'GET' && asked.header === undefined) {
    report.problem(`${path}.method`, 'must be POST: without header, the credential stands in the body');
  }
  const carrier = carrierOf(rule, asked);
  const given = Object.keys(asked.headers ?? {}).find((name) => name.toLowerCase() === carrier);
  if (given !== undefined) {
    report.problem(`${path}.headers.${given}`, "cannot be set: the client's credential stands there");
  }
}

/** In lower case; undefined where the question's body carries the credential. */
function carrierOf(rule: Rule, asked: Introspect): string | undefined {
  if (asked.form === true) return 'content-type';
  if (asked.header !== undefined) return asked.header.toLowerCase();
  if ('body' in rule) return 'content-type';
  return 'cookie' in rule ? 'cookie' : 'authorization';
}

/** Two rules for one place: the second never has its turn. */
function placeOf(rule: Rule): string {
  if ('header' in rule) return `the header ${rule.header.toLowerCase()}`;
  if ('cookie' in rule) return `the cookie ${rule.cookie}`;
  if ('basic' in rule) return 'Authorization: Basic';
  if ('body' in rule) return `${rule.body} of the body`;
  return 'Authorization: Bearer';
}

/** An address or a CIDR range. */
export function checkRange(path: string, range: string, report: Reporter): void {
  const [address = '', prefix, ...more] = range.split('/');
  const version = isIP(address);
  const bits = version === 6 ? 128 : 32;
  const prefixFits = prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits);
  if (version === 0 || !prefixFits || more.length > 0) {
    report.problem(path, 'must be an IP address or a range like 10.0.0.0/8');
  }
}
