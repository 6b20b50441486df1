/** What a check of `doctor` says. */
export interface Finding {
  readonly level: 'ok' | 'warn' | 'fail';
  /** What was looked at. */
  readonly check: string;
  readonly detail: string;
  /** What to do; on every warn and fail. */
  readonly advice?: string;
}

export function ok(check: string, detail: string): Finding {
  return { level: 'ok', check, detail };
}

export function warn(check: string, detail: string, advice: string): Finding {
  return { level: 'warn', check, detail, advice };
}

export function fail(check: string, detail: string, advice: string): Finding {
  return { level: 'fail', check, detail, advice };
}

/** Longest time that one look at something outside may take, ms. */
export const lookMs = 5_000;

export function sentenceOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error && error.cause.message !== '' ? ` (${error.cause.message})` : '';
  return error.message.includes(cause.slice(2, -1)) ? error.message : `${error.message}${cause}`;
}
