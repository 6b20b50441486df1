/** One line of JSON per event, to standard error: time, level, event, and fields. Never a secret. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type Log = (level: LogLevel, event: string, fields?: Readonly<Record<string, unknown>>) => void;

export function jsonLog(write: (line: string) => void, lowest: LogLevel = 'info'): Log {
  const levels: LogLevel[] = ['debug', 'info', 'warn', 'error'];
  return (level, event, fields = {}) => {
    if (levels.indexOf(level) < levels.indexOf(lowest)) return;
    write(`${JSON.stringify({ time: new Date().toISOString(), level, event, ...fields })}\n`);
  };
}

/** What an error says, with what caused it: "the list could not be read: connect ECONNREFUSED". */
export function sentenceOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = error.message === '' ? error.name : error.message;
  if (error.cause === undefined) return own;
  const cause = sentenceOf(error.cause);
  return own.includes(cause) ? own : `${own}: ${cause}`;
}
