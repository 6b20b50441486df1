/** Who calls the admin API, and what that allows: bearer tokens (RFC 6750) with one role each. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Config } from '../config/schema.ts';

/** Each role may do what the ones before it may. */
export const roles = ['viewer', 'operator', 'approver', 'admin'] as const;
export type Role = (typeof roles)[number];

export interface Actor {
  /** The token's name, as it stands in the audit log. */
  readonly name: string;
  readonly role: Role;
}

export type Authentication =
  | { readonly ok: true; readonly actor: Actor }
  | { readonly ok: false; readonly code: 'no-token' | 'bad-token'; readonly detail: string };

export function roleCovers(held: Role, needed: Role): boolean {
  return roles.indexOf(held) >= roles.indexOf(needed);
}

/**
 * Judges an Authorization header. Tokens are kept as SHA-256 only. Every configured token is compared, each
 * in constant time, so that the time taken tells nothing about which one was nearly right.
 */
export function createAuthenticator(
  tokens: Config['admin']['tokens'],
): (authorization: string | undefined) => Authentication {
  const known = tokens.map(({ name, role, token, sha256: hex }) => ({
    actor: { name, role },
    digest: token === undefined ? Buffer.from(hex ?? '', 'hex') : sha256(token),
  }));
  return (authorization) => {
    if (authorization === undefined) {
      return {
        ok: false,
        code: 'no-token',
        detail:
          'Nothing was done. Send "Authorization: Bearer TOKEN" with one of the tokens of admin.tokens.',
      };
    }
    const presented = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
    let actor: Actor | undefined;
    if (presented !== undefined) {
      const digest = sha256(presented);
      for (const entry of known) {
        if (timingSafeEqual(entry.digest, digest)) actor ??= entry.actor;
      }
    }
    if (actor !== undefined) return { ok: true, actor };
    return {
      ok: false,
      code: 'bad-token',
      detail: 'Nothing was done. The token is none of those in admin.tokens; check it for a typing error.',
    };
  };
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}
