/**
 * The watch stream: audit entries as server-sent events (HTML Living Standard, 9.2). A client that was cut
 * off sends the last id it saw as Last-Event-ID and misses nothing.
 */
import type { Request, Response } from 'express';
import { auditId, type AuditEntry, type AuditLog } from './audit.ts';
import type { AdminProblem } from './problems.ts';

const watchersAtOnce = 100;
const keepAliveMs = 15_000;
/** A client that reads too slowly is cut off; it resumes from its last id. */
const unreadBytes = 1_048_576;

export class AuditWatchers {
  readonly #audit: AuditLog;
  readonly #open = new Set<Response>();

  constructor(audit: AuditLog) {
    this.#audit = audit;
  }

  /** Serves the stream until either side ends it, or says why it will not. */
  async serve(request: Request, response: Response): Promise<AdminProblem | undefined> {
    const given = request.get('last-event-id') ?? request.query['after'];
    if (given !== undefined && (typeof given !== 'string' || !auditId.test(given))) {
      const message = 'must be the id of an event, like 1700000000000-0';
      return {
        code: 'invalid-request',
        detail: `Last-Event-ID ${message}.`,
        members: { problems: [{ path: 'Last-Event-ID', message }] },
      };
    }
    if (this.#open.size >= watchersAtOnce) {
      return {
        code: 'too-many-watchers',
        detail: `${watchersAtOnce} clients follow already; try again later.`,
      };
    }
    this.#open.add(response);
    const gone = new Promise<void>((resolve) => {
      response.once('close', resolve);
    });
    let leave: (() => void) | undefined;
    try {
      response.status(200).type('text/event-stream').set('cache-control', 'no-store');
      // Positioned before the headers go out: what happens after the client sees them is not missed.
      leave = await this.#audit.follow(given, (entry) => send(response, entry));
      if (!response.headersSent) response.write('retry: 2000\n\n');
      const keepAlive = setInterval(() => response.write(': here\n\n'), keepAliveMs);
      await gone;
      clearInterval(keepAlive);
    } finally {
      leave?.();
      this.#open.delete(response);
    }
    return undefined;
  }

  stop(): void {
    for (const response of this.#open) response.destroy();
  }
}

function send(response: Response, entry: AuditEntry): void {
  if (response.destroyed) return;
  response.write(`id: ${entry.id}\nevent: audit\ndata: ${JSON.stringify(entry)}\n\n`);
  if (response.writableLength > unreadBytes) response.destroy();
}
