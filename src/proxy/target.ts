/**
 * The request target, byte for byte: what is classified here is what is forwarded. Targets that an
 * upstream could read as another path than we do are refused (RFC 9112, 3.2).
 */
import { unsafeTarget } from '../core/path-readings.ts';

export type ReadTarget =
  { readonly target: string; readonly path: string; readonly query: string } | { readonly refused: string };

/**
 * A name or an address, perhaps with a port (RFC 9112, 3.2: anything else is answered with 400). Empty is allowed: it says
 * that there is no host. Stores build links and choose their tenant by it, each with a parser of its own.
 */
export function isHost(value: string): boolean {
  return /^(?:\[[0-9a-f:.]+\]|[\w.~-]*)(?::\d*)?$/i.test(value);
}

/** `target` and `host` as the client sent them; an absolute-form target must name the same host. */
export function readTarget(target: string, host: string | undefined): ReadTarget {
  let origin = target;
  if (!target.startsWith('/')) {
    const absolute = /^https?:\/\/([^/?#]*)(.*)$/is.exec(target);
    if (absolute === null) return { refused: 'it is neither a path nor a URL' };
    const [, authority = '', rest = ''] = absolute;
    if (authority === '' || authority.toLowerCase() !== host?.toLowerCase()) {
      return { refused: 'it names another host than the Host header' };
    }
    origin = rest.startsWith('/') ? rest : `/${rest}`;
  }
  const mark = origin.indexOf('?');
  const path = mark === -1 ? origin : origin.slice(0, mark);
  const query = mark === -1 ? '' : origin.slice(mark + 1);
  const unsafe = unsafeTarget(path);
  if (unsafe !== undefined) return { refused: unsafe };
  if (/[\u0000-\u0020\u007f#]/.test(query)) return { refused: 'its query holds a control character' };
  return { target: origin, path, query };
}

/**
 * Is this path inside the area where onewriter and the guard talk? Also in spellings that some server would
 * resolve to it: percent-encoded (even twice), in other letter case, with empty or parametrised segments.
 * The area counts wherever it stands in the path, because an app can be mounted below a prefix.
 */
export function isControlPath(path: string): boolean {
  if (!/%|onewriter/i.test(path)) return false;
  let plain = path;
  for (let round = 0; round < 3 && plain.includes('%'); round += 1) plain = decodeOnce(plain);
  const segments = plain
    .toLowerCase()
    .split(/[/\\]/)
    .map((segment) => segment.split(';', 1)[0])
    .filter((segment) => segment !== '' && segment !== '.');
  return segments.some((segment, at) => segment === '.well-known' && segments[at + 1] === 'onewriter');
}

/** Sequences that are not valid stay as they are. */
function decodeOnce(text: string): string {
  return text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/** Does the query name a method override, as several web frameworks read it? */
export function overridesMethodInQuery(query: string): boolean {
  if (!/_?method/i.test(query) && !query.includes('%')) return false;
  return query.split(/[&;]/).some((pair) => {
    // Some servers read %u005f, or pass over bytes that are no UTF-8.
    const written = (pair.split('=', 1)[0] ?? '').replaceAll(/%u00/gi, '%');
    const name = decodeOnce(written)
      .replaceAll('+', ' ')
      .replaceAll(/[\x80-\xff]/g, '');
    // PHP reads ".method", " method", "[method", "_method[]" and what stands before NUL as _method, too; qs and Rack
    // overlook brackets around it.
    return /^[\s[\]]*[_. []method(?:[[\]\0]|$)/i.test(name);
  });
}
