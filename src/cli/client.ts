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
  ): Promise<Attempt<z.output<Schema>>> {
    return this.#call('POST', path, body, schema);
  }

  async #call<Schema extends z.ZodType>(
    method: 'GET' | 'POST',
    path: string,
    body: unknown,
    schema: Schema,
  ): Promise<Attempt<z.output<Schema>>> {
    const { url, token } = this.#address;
    let status: number;
    let text: string;
    try {
      // Not fetch: that refuses a number of ports, and would follow redirects with the token.
      const response = await request(`${url}/v1${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: AbortSignal.any([AbortSignal.timeout(callMs), this.#interrupted]),
      });
      status = response.statusCode;
      text = await response.body.text();
    } catch (error) {
      return failedAttempt(this.#unreachable(method, error));
    }
    const json = parsed(text);
    if (status < 200 || status > 299) return failedAttempt(problem(url, status, json));
    const answer = schema.safeParse(json);
    if (answer.success) return { ok: true, value: answer.data };
    const detail = `${url} answered ${method} /v1${path} in a shape this version does not know; are both of one version?`;
    return failedAttempt(refusal('bad-answer', detail));
  }

  #unreachable(method: string, error: unknown): CliRefusal {
    const { url } = this.#address;
    const code = causeCode(error);
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
function causeCode(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return `no answer within ${callMs} ms`;
  if ('code' in error && typeof error.code === 'string') return error.code;
  if (error instanceof AggregateError && error.errors.length > 0) return causeCode(error.errors[0]);
  return error.cause === undefined ? error.message : causeCode(error.cause);
}
