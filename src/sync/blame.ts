/** Whose fault it is that one record could not be looked at: its own, so that the others go on, or everybody's. */
import { StoreFailure, type StoreReader } from '../core/ports.ts';
import type { StoreName } from '../core/ownership.ts';
import { sentenceOf } from '../log.ts';

type Readers = Readonly<Record<StoreName, Pick<StoreReader, 'probe'>>>;

/** A mistake in this program. Redis and the network fail in other ways. */
export function isOurFault(error: unknown): error is Error {
  return [TypeError, RangeError, URIError, SyntaxError].some((kind) => error instanceof kind);
}

/** A store that answers its cheapest read would show other records. */
export async function isOfOneRecord(error: unknown, readers: Readers, signal: AbortSignal): Promise<boolean> {
  if (!(error instanceof StoreFailure)) return isOurFault(error);
  if (error.kind === 'rejected' || error.kind === 'bad-answer') return true;
  if (error.kind !== 'unavailable' || error.store === undefined) return false;
  return readers[error.store].probe(signal).then(
    () => true,
    () => false,
  );
}

/** Some of what was to be read could not be; everything else was. */
export class NotAllRead extends Error {}

/** One look at many things, of which some cannot be read. */
export class Look {
  readonly #readers: Readers;
  readonly #signal: AbortSignal;
  readonly #unread: string[] = [];

  constructor(readers: Readers, signal: AbortSignal) {
    this.#readers = readers;
    this.#signal = signal;
  }

  /** False: this one could not be read. Throws where the others cannot be, either. */
  async at(what: string, read: () => Promise<void>): Promise<boolean> {
    try {
      await read();
      return true;
    } catch (error) {
      this.#signal.throwIfAborted();
      if (!(await isOfOneRecord(error, this.#readers, this.#signal))) throw error;
      this.#unread.push(`${what}: ${sentenceOf(error)}`);
      return false;
    }
  }

  /** Throws NotAllRead. */
  end(): void {
    const [first] = this.#unread.toSorted();
    if (first === undefined) return;
    const count = this.#unread.length;
    throw new NotAllRead(`${count} could not be read, and all others were; the first of them: ${first}`);
  }
}
