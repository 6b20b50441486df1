/** How the sync reports what it does; compose decides where that goes. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type Log = (level: LogLevel, event: string, fields: Readonly<Record<string, unknown>>) => void;
