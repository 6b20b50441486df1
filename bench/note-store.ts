/** A store of notes that answers from memory: two for each user, listed by user. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Note {
  readonly id: string;
  readonly owner: string;
  readonly text: string;
}

export interface NoteStore {
  readonly url: string;
  /** From now on lists stay unanswered, until they are answered all together. */
  fallSilent(): void;
  speakAgain(): void;
  note(owner: string, id: string): Note | undefined;
  stop(): Promise<void>;
}

export async function startNoteStore(owners: readonly string[]): Promise<NoteStore> {
  const notes = new Map<string, Map<string, Note>>();
  const keep = (note: Note): void => {
    const own = notes.get(note.owner) ?? new Map<string, Note>();
    notes.set(note.owner, own.set(note.id, note));
  };
  for (const owner of owners) {
    for (const id of [`${owner}-1`, `${owner}-2`]) keep({ id, owner, text: 'a note' });
  }
  let unanswered: (() => void)[] | undefined;
  const server = createServer((request, response) => {
    const target = request.url ?? '/';
    const answer = (status: number, body: unknown): void => {
      const text = JSON.stringify(body);
      response.writeHead(status, { 'content-type': 'application/json', 'content-length': text.length });
      response.end(text);
    };
    const listOf = /^\/notes\?owner=([^&]+)/.exec(target)?.[1];
    if (listOf !== undefined) {
      const list = (): void => answer(200, [...(notes.get(decodeURIComponent(listOf))?.values() ?? [])]);
      if (unanswered === undefined) list();
      else unanswered.push(list);
      return;
    }
    if (target === '/notes') {
      answer(200, []); // somebody looks whether the store is there
      return;
    }
    const id = decodeURIComponent(target.split('/')[2] ?? '');
    const own = notes.get(id.split('-', 1)[0] ?? '');
    if (request.method === 'GET') {
      const note = own?.get(id);
      answer(note === undefined ? 404 : 200, note ?? {});
      return;
    }
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      if (request.method === 'PUT') keep(JSON.parse(body) as Note);
      if (request.method === 'DELETE') own?.delete(id);
      answer(200, {});
    });
  });
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    fallSilent: () => {
      unanswered = [];
    },
    speakAgain: () => {
      const lists = unanswered ?? [];
      unanswered = undefined;
      for (const list of lists) list();
    },
    note: (owner, id) => notes.get(owner)?.get(id),
    stop: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
