/** What the process that supervises and the proxy processes say to each other. */
import type { RuleSet } from '../config/reload.ts';
import type { RedisAddress } from '../ledger/connection.ts';

export type ProcessOrder =
  | {
      readonly order: 'start';
      readonly rules: RuleSet;
      readonly redis: RedisAddress;
      /** For an orderly end, ms; whatever is left then is broken off. */
      readonly endWithinMs: number;
    }
  | { readonly order: 'name-obstacle'; readonly rules: RuleSet }
  | { readonly order: 'change'; readonly rules: RuleSet }
  | { readonly order: 'renew-certificate' }
  | { readonly order: 'stop' };

export type Report =
  | { readonly report: 'ready'; readonly url: string; readonly warnings: readonly string[] }
  | { readonly report: 'not-started'; readonly error: ToldError }
  /** Why the rules cannot be changed here at the moment. */
  | { readonly report: 'obstacle'; readonly detail: string | undefined }
  | { readonly report: 'changed'; readonly changed: boolean }
  /** Sent again and again: this process lives, and this is what it has counted. */
  | { readonly report: 'pulse'; readonly counters: Readonly<Record<string, number>> };

/** How often a process says that it lives, ms. */
export const pulseMs = 1_000;

/** An error on its way to another process, with what its reader goes by: which address could not be had. */
export interface ToldError {
  readonly message: string;
  readonly code?: string;
  readonly port?: number;
  readonly address?: string;
  readonly cause?: ToldError;
}

export function tellError(error: unknown): ToldError {
  if (!(error instanceof Error)) return { message: String(error) };
  const { code, port, address } = error as Error & Pick<ToldError, 'code' | 'port' | 'address'>;
  return {
    message: error.message === '' ? error.name : error.message,
    ...(code === undefined ? {} : { code }),
    ...(port === undefined ? {} : { port }),
    ...(address === undefined ? {} : { address }),
    ...(error.cause === undefined ? {} : { cause: tellError(error.cause) }),
  };
}

export function heardError({ message, cause, ...named }: ToldError): Error {
  const error = cause === undefined ? new Error(message) : new Error(message, { cause: heardError(cause) });
  return Object.assign(error, named);
}
