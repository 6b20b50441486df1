/** The admin API as the commands call it: one request, one parsed answer, and refusals as values. */
import { request } from 'undici';
import type { z } from 'zod';
import { problemAnswer, type ProblemAnswer } from '../admin/answers.ts';
import { type Attempt, type CliRefusal, exitOfProblem, failedAttempt, refusal } from './exit.ts';
import { plain } from './output.ts';

export interface AdminAddress {
  readonly url: string;
  readonly token: string;
}

const callMs = 30_000;

interface Manner {
  readonly withinMs?: number;
  readonly type?: 'application/json' | 'application/x-ndjson';
}

export class AdminClient {
  readonly #address: AdminAddress;
  readonly #interrupted: AbortSignal;

  constructor(address: AdminAddress, interrupted: AbortSignal) {
    this.#address = address;
    this.#interrupted = interrupted;
  }

  get<Schema extends z.ZodType>(path: string, schema: Schema): Promise<Attempt<z.output<Schema>>> {
    return this.#call('GET', path, undefined, schema);
  }

  /** Never repeated: where the answer is lost, the refusal says that the outcome is unknown. */
  post<Schema extends z.ZodType>(
    path: string,
    body: unknown,
    schema: Schema,
    withinMs = callMs,
  ): Promise<Attempt<z.output<Schema>>> {
    return this.#call('POST', path, body, schema, { withinMs });
  }

  put<Schema extends z.ZodType>(
    path: string,
    body: unknown,
    schema: Schema,
  ): Promise<Attempt<z.output<Schema>>> {
    return this.#call('PUT', path, body, schema);
  }

  /** The answer as it stands, for documents that are no JSON. */
  async getText(path: string, withinMs: number): Promise<Attempt<string>> {
    const answer = await this.#exchange('GET', path, undefined, { withinMs });
    if (!answer.ok) return answer;
    const { status, text } = answer.value;
    if (status === 200) return { ok: true, value: text };
    return failedAttempt(problem(this.#address.url, status, parsed(text)));
  }

  /** Sends NDJSON; else like `post`. */
  postLines<Schema extends z.ZodType>(
    path: string,
    lines: readonly string[],
    schema: Schema,
    withinMs: number,
  ): Promise<Attempt<z.output<Schema>>> {
    // A lone line is a JSON body: the call then takes no document.
    const type = lines.length > 1 ? 'application/x-ndjson' : 'application/json';
    return this.#call('POST', path, lines.join('\n'), schema, { withinMs, type });
  }

  async #call<Schema extends z.ZodType>(
    method: 'GET' | 'POST' | 'PUT',
    path: string,
    body: unknown,
    schema: Schema,
    manner: Manner = {},
  ): Promise<Attempt<z.output<Schema>>> {
    const { url } = this.#address;
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
    const exchanged = await this.#exchange(method, path, text, manner);
    if (!exchanged.ok) return exchanged;
    const { status } = exchanged.value;
    const json = parsed(exchanged.value.text);
    if (status < 200 || status > 299) return failedAttempt(problem(url, status, json));
    const answer = schema.safeParse(json);
    if (answer.success) return { ok: true, value: answer.data };
    const detail = `${url} answered ${method} /v1${path} in a shape this version does not know; are both of one version?`;
    return failedAttempt(refusal('bad-answer', detail));
  }

  async #exchange(
    method: 'GET' | 'POST' | 'PUT',
    path: string,
    body: string | undefined,
    { withinMs = callMs, type = 'application/json' }: Manner,
  ): Promise<Attempt<{ readonly status: number; readonly text: string }>> {
    const { url, token } = this.#address;
    try {
      // Not fetch: that refuses a number of ports, and would follow redirects with the token.
      const response = await request(`${url}/v1${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': type },
        ...(body === undefined ? {} : { body }),
        ...{ headersTimeout: withinMs, bodyTimeout: withinMs },
        signal: AbortSignal.any([AbortSignal.timeout(withinMs), this.#interrupted]),
      });
      return { ok: true, value: { status: response.statusCode, text: await response.body.text() } };
    } catch (error) {
      return failedAttempt(this.#unreachable(method, error, withinMs));
    }
  }

  #unreachable(method: string, error: unknown, withinMs: number): CliRefusal {
    const { url } = this.#address;
    const code = causeCode(error, withinMs);
    if (this.#interrupted.aborted) return refusal('interrupted', 'Interrupted.');
    if (code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === 'EAI_AGAIN' || code === 'EHOSTUNREACH') {
      return refusal(
        'admin-unreachable',
        `No admin API answers at ${url} (${code}). Start "onewriter up", or name the right address with --admin URL.`,
      );
    }
    const unknown =
      method === 'GET' ? '' : ' Whether the order was carried out is unknown: see "onewriter status".';
    return refusal('admin-unreachable', `The admin API at ${url} did not answer (${code}).${unknown}`);
  }
}

function problem(url: string, status: number, json: unknown): CliRefusal {
  const answer = problemAnswer.safeParse(json);
  if (!answer.success) {
    return refusal('bad-answer', `${url} answered ${status}, and not as an admin API does; check --admin.`);
  }
  const { code, detail } = answer.data;
  const lines = linesOf(answer.data);
  return {
    exit: exitOfProblem(status, code),
    code,
    detail: plain(detail),
    ...(lines.length > 0 && { lines }),
  };
}

function linesOf({ problems = [], blockers = [], blocked = [] }: ProblemAnswer): string[] {
  return [
    ...(problems.length > 1 ? problems.map(({ path, message }) => `${path}: ${message}`) : []),
    ...blockers.map(({ code, detail }) => `${code}: ${detail}`),
    ...blocked.map(({ partition, code, detail }) => `${partition}: ${code}: ${detail}`),
  ].map(plain);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The socket's error, which can be wrapped several times over. */
function causeCode(error: unknown, withinMs: number): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return `no answer within ${withinMs} ms`;
  if ('code' in error && typeof error.code === 'string') return error.code;
  if (error instanceof AggregateError && error.errors.length > 0) return causeCode(error.errors[0], withinMs);
  return error.cause === undefined ? error.message : causeCode(error.cause, withinMs);
}
