/** What the client is told when forwarding failed: by the stage that failed and what may have been sent. */
import type { Failure } from '../core/failure.ts';
import type { StoreName } from '../core/ownership.ts';
import type { Access } from '../core/route.ts';
import { TlsFailure } from '../stores/connect.ts';
import { HookRefused } from './hook-checks.ts';
import { BodyTooLarge } from './hooked-upstream.ts';
import { BodyOverLimit, LeaseLapsed } from './upload.ts';
import type { FailedStage } from './upstream.ts';

const untouched = 'Nothing was sent and nothing was changed; try again shortly.';
const unknown =
  'It may or may not have taken effect; look at the record before you send it again. It was not repeated.';

/** By why it failed, where that says more than the stage. */
export function failureBy(
  cause: Error,
  stage: FailedStage,
  at: { readonly store: StoreName; readonly access: Access; readonly sending: boolean },
): Failure {
  if (cause instanceof LeaseLapsed) return lapsedFailure(at.store, at.sending);
  if (cause instanceof BodyOverLimit) return bodyOverLimit(cause.bytesMax, at);
  if (cause instanceof HookRefused) return hookRefusal(cause, at);
  if (cause instanceof BodyTooLarge && !at.sending) return bodyTooLarge(cause.bytesMax);
  return failureOf(stage, { ...at, reason: cause instanceof TlsFailure ? cause.reason : undefined });
}

/** `sending`: bytes may have left. Until then the answer to "was it sent?" is no. */
export function failureOf(
  stage: FailedStage,
  at: {
    readonly store: StoreName;
    readonly access: Access;
    readonly sending: boolean;
    /** Of a failure of TLS, short. */
    readonly reason?: string | undefined;
  },
): Failure {
  const { store, access, sending, reason } = at;
  if (stage === 'hook') return hookFailure(at);
  const members = { store, stage };
  const write = access === 'write';
  const notSent = write ? ({ sent: 'no' } as const) : {};
  if (stage === 'streams-full') {
    return {
      code: 'pool-full',
      detail: `All event streams to ${store} that stores.${store}.streams allows are open. Nothing was changed; try again shortly.`,
      retryAfterSeconds: 1,
      members,
    };
  }
  if (!sending) {
    switch (stage) {
      case 'pool-full':
        return {
          code: 'pool-full',
          detail: `All connections to ${store} are in use. ${untouched}`,
          retryAfterSeconds: 1,
          members,
          ...notSent,
        };
      case 'connect-timeout':
      case 'timeout':
        return {
          code: 'upstream-connect-timeout',
          detail: `${store} did not accept a connection in time. ${untouched}`,
          members,
          ...notSent,
        };
      case 'closed':
        return {
          code: 'shutting-down',
          detail: `This proxy is shutting down. ${untouched}`,
          retryAfterSeconds: 1,
          members,
          ...notSent,
        };
      case 'tls':
        return {
          code: 'upstream-tls',
          detail: `${store} was reached, but TLS with it failed, so it was not trusted. Nothing was sent and nothing was changed; an operator must look at its certificate and at stores.${store}.tls.`,
          members: reason === undefined ? members : { ...members, reason },
          ...notSent,
        };
      case 'exhausted':
        return {
          code: 'out-of-connections',
          detail: `This proxy could open no further connection to ${store}: its machine has no open file, port or memory left for one (see ulimit -n). ${untouched}`,
          retryAfterSeconds: 1,
          members,
          ...notSent,
        };
      case 'refused':
      case 'broken':
      case 'cancelled':
        return {
          code: 'upstream-refused',
          detail: `No connection to ${store} could be made. ${untouched}`,
          members,
          ...notSent,
        };
    }
  }
  const late = stage === 'timeout' || stage === 'connect-timeout';
  if (write) {
    return {
      code: late ? 'outcome-unknown-timeout' : 'outcome-unknown',
      detail: late
        ? `The write was sent to ${store}, which did not answer in time. ${unknown}`
        : `The write was sent to ${store}, which broke off before it answered. ${unknown}`,
      sent: 'unknown',
      members,
    };
  }
  return {
    code: late ? 'upstream-timeout' : 'upstream-failed',
    detail: late
      ? `${store} did not begin its answer in time. Nothing was changed; try again shortly.`
      : `${store} broke off before it answered, or answered what is not HTTP. Nothing was changed; try again shortly.`,
    members,
  };
}

/** The store's hook failed: on the request, or on the answer to it. What it said is for the log. */
function hookFailure({
  store,
  access,
  sending,
}: {
  readonly store: StoreName;
  readonly access: Access;
  readonly sending: boolean;
}): Failure {
  const code = 'hook-failed';
  const members = { store, stage: 'hook' };
  const write = access === 'write';
  const operator = `an operator must look at stores.${store}.hook and the log.`;
  if (!sending) {
    const detail = `The request could not be given the form that ${store} expects. Nothing was sent and nothing was changed; ${operator}`;
    return { code, detail, members, ...(write ? { sent: 'no' } : {}) };
  }
  const what = `${store} answered, but its answer could not be given the form that clients expect;`;
  return write
    ? {
        code,
        detail: `${what} ${operator} Look at the record before you send the write again.`,
        sent: 'yes',
        members,
      }
    : { code, detail: `${what} ${operator} Nothing was changed.`, members };
}

/** In the hook's own words, for the client. */
function hookRefusal(
  { status, detail }: HookRefused,
  { store, access }: { readonly store: StoreName; readonly access: Access },
): Failure {
  const code = status === 400 ? 'hook-cannot-read' : 'hook-refused';
  return { code, detail, members: { store, stage: 'hook' }, ...(access === 'write' ? { sent: 'no' } : {}) };
}

/** The total time of the write passed while its body was still being received. */
export const bodyTooSlow: Failure = {
  code: 'request-timeout',
  detail: `The body of the write did not arrive in time. ${untouched}`,
  sent: 'no',
};

/** A body that a hook must read. */
function bodyTooLarge(bytesMax: number): Failure {
  return {
    code: 'body-too-large',
    detail: `The body must be read before it is sent, and at most ${bytesMax} bytes are. Nothing was sent and nothing was changed; send a smaller one.`,
    sent: 'no',
  };
}

/** More came than the head of the request had said. */
function bodyOverLimit(
  bytesMax: number,
  at: { readonly store: StoreName; readonly access: Access; readonly sending: boolean },
): Failure {
  const { store, access, sending } = at;
  const limit = `The body is longer than proxy.limits.bodyBytes (${bytesMax}).`;
  if (access === 'read') return { code: 'body-too-large', detail: `${limit} Nothing was changed.` };
  if (!sending) {
    return {
      code: 'body-too-large',
      detail: `${limit} Nothing was sent and nothing was changed.`,
      sent: 'no',
    };
  }
  return {
    code: 'body-too-large',
    detail: `${limit} A part of the write had been sent to ${store} and was broken off. ${unknown}`,
    sent: 'unknown',
    members: { store, stage: 'sending' },
  };
}

/** The member's lease lapsed after admission. Before the first byte that is a plain refusal. */
export function lapsedFailure(store: StoreName, sending: boolean): Failure {
  if (!sending) {
    return {
      code: 'lease-lapsed',
      detail: `This proxy lost touch with the ledger before it could send the write. ${untouched}`,
      sent: 'no',
      retryAfterSeconds: 1,
      members: { store, stage: 'lease-lapsed' },
    };
  }
  return {
    code: 'outcome-unknown',
    detail: `This proxy lost touch with the ledger while it sent the write to ${store}, and broke it off. ${unknown}`,
    sent: 'unknown',
    members: { store, stage: 'lease-lapsed' },
  };
}

/** An upgrade that was asked for when its partition was fenced, or the proxy told to end. */
export function upgradeBrokenOff(store: StoreName, why: 'fenced' | 'shutting-down'): Failure {
  const because = why === 'fenced' ? 'The account began to move' : 'This proxy was told to end';
  return {
    code: 'outcome-unknown',
    detail: `${because} while ${store} was asked to upgrade the connection, so that was broken off. Connect again; what ${store} did with the request is not known.`,
    sent: 'unknown',
    members: { store, stage: why },
  };
}

/** Answers of a gateway that does not know what became of the write (502, 504, 520 to 527). */
export function outcomeUnknownAt(status: number): boolean {
  return status === 502 || status === 504 || (status >= 520 && status <= 527);
}

/** Accepted for later (202), or answered by a gateway that does not know what became of it. */
export function leavesDoubt(status: number): boolean {
  return status === 202 || outcomeUnknownAt(status);
}
