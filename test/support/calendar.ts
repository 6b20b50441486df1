/** Speaks to the calendar example as the proxy would: every request signed. */
import { type GuardClaims, signGuard } from '../../src/guard/signature.ts';

export const calendarSecret = 'the secret of the calendar tests';

export interface CalendarAnswer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

export async function ask(
  url: string,
  request: {
    readonly method?: string;
    readonly path: string;
    readonly body?: unknown;
    readonly headers?: Readonly<Record<string, string>>;
  },
): Promise<CalendarAnswer> {
  const { method = 'GET', path, body, headers = {} } = request;
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  return { status: answer.status, body: (text === '' ? {} : JSON.parse(text)) as Record<string, unknown> };
}

/** As `claims.user` of `claims.partition`; with the claims of onewriter itself for `user: ''`. */
export function askSigned(
  url: string,
  claims: GuardClaims,
  request: { readonly method?: string; readonly path: string; readonly body?: unknown },
): Promise<CalendarAnswer> {
  const { method = 'GET', path } = request;
  const timestampSeconds = Math.floor(Date.now() / 1000);
  const statement = { secret: calendarSecret, timestampSeconds, method, target: path, ...claims };
  return ask(url, { ...request, headers: signGuard(statement) });
}

export function guardCall(
  url: string,
  name: 'verdict' | 'advance' | 'seal',
  partition: string,
  epoch: number,
  access: GuardClaims['access'] = 'copy',
): Promise<CalendarAnswer> {
  return askSigned(
    url,
    { user: '', partition, epoch, access },
    { method: 'POST', path: `/.well-known/onewriter/guard/${name}`, body: { partition, epoch } },
  );
}

/** An appointment of one hour, `day` days into 2027. */
export function hour(title: string, day: number): Record<string, unknown> {
  const startMs = Date.UTC(2027, 0, 1, 9) + day * 86_400_000;
  const [starts_at, ends_at] = [startMs, startMs + 3_600_000].map((ms) => new Date(ms).toISOString());
  return { title, starts_at, ends_at };
}
