/**
 * What in a store's answer names the store, turned into the client's view: references that name its address or
 * path, and domains and paths of cookies. Bytes that need no change keep their form, and what cannot be read
 * without doubt stays as it is.
 */

/** As the client addresses the proxy. */
export interface ClientView {
  readonly scheme: 'http' | 'https';
  /** Undefined where the client did not say it in a form that is safe to repeat. */
  readonly host: string | undefined;
}

export interface StorePlace {
  readonly scheme: 'http' | 'https';
  /** With the port, as the store was addressed: by its URL, and by the Host it saw. */
  readonly hosts: readonly string[];
  /** Path of its URL, without a slash at its end. */
  readonly prefix: string;
}

const absolute = /^(?:(https?):)?\/\/([^/?#\\@\s]+)([/?#].*)?$/i;
/** Everything else some reader would skip, fold or take for a slash. */
const plain = /^[\u0021-\u005b\u005d-\u007e\u0080-\u00ff]*$/;
const dotSegment = /(?:^|\/)(?:\.|%2e){1,2}(?:[/?#]|$)/i;

/** A `Location` or `Content-Location`. */
export function clientReference(value: string, store: StorePlace, client: ClientView): string {
  if (!plain.test(value)) return value;
  const [whole, scheme, authority = '', rest = ''] = absolute.exec(value) ?? [];
  if (whole === undefined)
    return value.startsWith('/') && !value.startsWith('//') ? pathOnly(value, store, client) : value;
  const origin = originOf(scheme ?? store.scheme, authority);
  if (origin === undefined || !originsOf(store, client).includes(origin)) return value;
  const path = withoutPrefix(rest, store.prefix);
  if (path === undefined) return value;
  if (client.host === undefined) return isPath(path) ? path : value;
  return `${scheme === undefined ? '' : `${client.scheme}:`}//${client.host}${path}`;
}

function pathOnly(value: string, { prefix }: StorePlace, client: ClientView): string {
  if (prefix === '') return value;
  const path = withoutPrefix(value, prefix);
  if (path === undefined) return value;
  if (isPath(path)) return path;
  // Alone, "//x" would name another host.
  return client.host === undefined ? value : `${client.scheme}://${client.host}${path}`;
}

function isPath(path: string): boolean {
  return path.startsWith('/') && !path.startsWith('//');
}

/** Undefined: not below the prefix, so the client cannot reach it here. */
function withoutPrefix(path: string, prefix: string): string | undefined {
  if (prefix === '') return path === '' ? '/' : path;
  if (!path.startsWith(prefix) || dotSegment.test(path)) return undefined;
  const rest = path.slice(prefix.length);
  if (rest.startsWith('/')) return rest;
  return rest === '' || rest.startsWith('?') || rest.startsWith('#') ? `/${rest}` : undefined;
}

/** A store that was told the client's address may use it, and put its own path behind it. */
function originsOf({ scheme, hosts, prefix }: StorePlace, client: ClientView): (string | undefined)[] {
  const own = hosts.map((host) => originOf(scheme, host));
  return prefix === '' || client.host === undefined ? own : [...own, originOf(client.scheme, client.host)];
}

function originOf(scheme: string, authority: string): string | undefined {
  const text = `${scheme}://${authority}`;
  return URL.canParse(text) ? new URL(text).origin : undefined;
}

/** A `Refresh`: seconds, and mostly a reference, which may stand in quotes. */
export function clientRefresh(value: string, store: StorePlace, client: ClientView): string {
  const match = /^(\s*[\d.]+\s*[;,]\s*url\s*=\s*["']?)([^"'\s]+)(["']?\s*)$/i.exec(value);
  if (match === null) return value;
  const [, before = '', reference = '', after = ''] = match;
  return before + clientReference(reference, store, client) + after;
}

export interface CookieRewrite {
  /** By domain in lower case without its leading dot; "*" is any other, "" as the value drops it. */
  readonly domains: ReadonlyMap<string, string>;
  /** Longest first, each without a slash at its end. */
  readonly paths: readonly (readonly [from: string, to: string])[];
}

export function cookieRewriteOf(
  domains: Readonly<Record<string, string>>,
  paths: Readonly<Record<string, string>>,
): CookieRewrite {
  const slashless = (path: string): string => path.replace(/\/$/, '');
  return {
    domains: new Map(Object.entries(domains).map(([from, to]) => [plainDomain(from), to])),
    paths: Object.entries(paths)
      .map(([from, to]) => [slashless(from), slashless(to)] as const)
      .toSorted(([left], [right]) => right.length - left.length),
  };
}

function plainDomain(domain: string): string {
  return domain.toLowerCase().replace(/^\./, '');
}

/** One `Set-Cookie`; split as user agents do (RFC 6265, 5.2), so quotes protect nothing. */
export function clientCookie(value: string, { domains, paths }: CookieRewrite): string {
  const [pair = '', ...attributes] = value.split(';');
  const changed = attributes.flatMap((attribute) => {
    const at = attribute.indexOf('=');
    if (at === -1) return [attribute];
    const old = attribute.slice(at + 1).trim();
    const name = attribute.slice(0, at).trim().toLowerCase();
    const now =
      name === 'domain' ? domainFor(old, domains) : name === 'path' ? pathFor(old, paths) : undefined;
    if (now === undefined) return [attribute];
    return now === '' ? [] : [attribute.slice(0, at + 1) + now];
  });
  return [pair, ...changed].join(';');
}

function domainFor(old: string, domains: CookieRewrite['domains']): string | undefined {
  return domains.get(plainDomain(old)) ?? domains.get('*');
}

function pathFor(old: string, paths: CookieRewrite['paths']): string | undefined {
  for (const [from, to] of paths) {
    const rest = old.startsWith(from) ? old.slice(from.length) : undefined;
    if (rest === '' || rest?.startsWith('/') === true) return to + rest === '' ? '/' : to + rest;
  }
  return undefined;
}
