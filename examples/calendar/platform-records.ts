/** The platform's appointments in memory, its log of accepted writes, and its webhooks. */
import { createHmac } from 'node:crypto';
import type { AcceptedWrite, Appointment, Draft, ListQuery } from './appointment.ts';

/** Who asks: a person, or the holder of the API token, who sees and may change everything. */
export interface Caller {
  readonly user: string;
  readonly hand: 'user' | 'copy';
}

export class PlatformRecords {
  readonly log: AcceptedWrite[] = [];
  readonly #records = new Map<string, Appointment>();
  readonly #onChange: (appointment: Appointment) => void;
  #lastNumber = 0;

  constructor(onChange: (appointment: Appointment) => void) {
    this.#onChange = onChange;
  }

  all(): Appointment[] {
    return [...this.#records.values()];
  }

  get(id: string): Appointment | undefined {
    return this.#records.get(id);
  }

  /** Sorted by (updated_at, id); one record more than `limit` where there are more. */
  list(query: ListQuery): Appointment[] {
    const { owner, since, after, includeDeleted } = query;
    return this.all()
      .filter((record) => owner === undefined || record.owner_id === owner)
      .filter((record) => includeDeleted || record.deleted_at === null)
      .filter((record) => since === undefined || record.updated_at >= since)
      .filter((record) => after === undefined || comparePosition(record, after) > 0)
      .toSorted(comparePosition)
      .slice(0, query.limit + 1);
  }

  create(draft: Draft, owner: string, caller: Caller): Appointment {
    this.#lastNumber += 1;
    return this.#write(`L${String(this.#lastNumber).padStart(6, '0')}`, draft, owner, caller, 'POST');
  }

  put(id: string, draft: Draft, owner: string, caller: Caller): Appointment {
    return this.#write(id, draft, owner, caller, 'PUT');
  }

  remove(held: Appointment, caller: Caller): void {
    const now = new Date().toISOString();
    this.#keep({ ...held, updated_at: now, deleted_at: now }, caller, 'DELETE');
  }

  #write(id: string, draft: Draft, owner: string, caller: Caller, method: 'POST' | 'PUT'): Appointment {
    const appointment: Appointment = {
      id,
      owner_id: owner,
      title: draft.title,
      starts_at: draft.starts_at,
      ends_at: draft.ends_at,
      location: draft.location ?? null,
      notes: draft.notes ?? null,
      updated_at: new Date().toISOString(),
      deleted_at: null,
    };
    this.#keep(appointment, caller, method);
    return appointment;
  }

  #keep(appointment: Appointment, caller: Caller, method: AcceptedWrite['method']): void {
    const { id, owner_id, title } = appointment;
    this.#records.set(id, appointment);
    this.log.push({ at_ms: Date.now(), ...caller, method, id, owner_id, title });
    this.#onChange(appointment);
  }
}

/** Tells a subscriber about changes: signed, unordered, and never repeated when it fails. */
export function webhookSender(url: string, secret: string): (appointment: Appointment) => void {
  return ({ id, owner_id, updated_at, deleted_at }) => {
    const event = deleted_at === null ? 'appointment.saved' : 'appointment.deleted';
    const body = JSON.stringify({ event, id, owner_id, updated_at });
    const signature = `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`;
    void fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-calendar-signature': signature },
      body,
      signal: AbortSignal.timeout(5000),
    }).then(
      (answer) => answer.body?.cancel(),
      () => undefined, // subscribers that miss a hook are expected to poll
    );
  };
}

function comparePosition(
  a: { readonly updated_at: string; readonly id: string },
  b: { readonly updated_at: string; readonly id: string },
): number {
  if (a.updated_at !== b.updated_at) return a.updated_at < b.updated_at ? -1 : 1;
  if (a.id === b.id) return 0;
  return a.id < b.id ? -1 : 1;
}
