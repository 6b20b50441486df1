/**
 * One call of the admin API as a value: its path, who may make it, what it takes and gives. The server and
 * the OpenAPI document are both made from these, so they cannot differ.
 */
import type { z } from 'zod';
import type { Actor, Role } from './access.ts';
import type { AdminProblem } from './problems.ts';

export interface Call<Query, Body> {
  readonly actor: Actor;
  /** Named segments of the path, decoded. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly body: Body;
}

/** What a change did, for the audit log; who did it and why is added by the server. */
export interface Change {
  readonly action: string;
  readonly target: string;
  readonly reason: string;
  readonly before: unknown;
  readonly after: unknown;
}

export type Reply =
  | { readonly answer: unknown; readonly change?: Change }
  /** Of any number, written one by one as NDJSON. */
  | { readonly lines: Iterable<string> }
  | { readonly problem: AdminProblem };

export interface Operation {
  readonly method: 'get' | 'post' | 'put';
  /** Below /v1; `:name` stands for one segment. */
  readonly path: string;
  readonly role: Role;
  readonly summary: string;
  /** Changes state: the reply must then carry the change for the audit log. */
  readonly changes: boolean;
  readonly query?: z.ZodType;
  readonly body?: z.ZodType;
  /** The body may also be NDJSON: one entry of the array per line. */
  readonly ndjson?: boolean;
  /** More than a body may have otherwise. */
  readonly bodyBytes?: number;
  readonly status: 200 | 202;
  readonly answer: z.ZodType;
  readonly run: (call: Call<unknown, unknown>) => Promise<Reply>;
}

interface Definition<Query extends z.ZodType, Body extends z.ZodType> {
  readonly method: Operation['method'];
  readonly path: string;
  readonly role: Role;
  readonly summary: string;
  readonly changes?: boolean;
  readonly query?: Query;
  readonly body?: Body;
  readonly ndjson?: boolean;
  readonly bodyBytes?: number;
  readonly status?: 200 | 202;
  readonly answer: z.ZodType;
  run(call: Call<z.output<Query>, z.output<Body>>): Promise<Reply>;
}

/** The server parses query and body with the definition's own schemas, so `run` may take them as typed. */
export function operation<Query extends z.ZodType, Body extends z.ZodType>(
  definition: Definition<Query, Body>,
): Operation {
  return {
    ...definition,
    changes: definition.changes ?? false,
    status: definition.status ?? 200,
    run: (call) => definition.run(call as Call<z.output<Query>, z.output<Body>>),
  };
}

/** Calls that are named for later versions; they answer 501. */
export const notAvailableYet: readonly { readonly method: 'get' | 'post'; readonly path: string }[] = [
  { method: 'post', path: '/flips/:id/approve' },
  { method: 'post', path: '/flips/:id/reject' },
  { method: 'post', path: '/freeze' },
  { method: 'post', path: '/unfreeze' },
];
