/**
 * How a list continues. A reader holds one Paging per pass; after each page it says which placeholders or
 * which address the next request takes, or that the list has ended.
 */
import { z } from 'zod';
import { StoreFailure } from '../../core/ports.ts';
import type { Json } from '../../core/records.ts';
import type { ListConfig } from '../../config/rest-calls.ts';
import type { RestAnswer } from './answers.ts';
import { placeholdersOf, type PlaceholderValues, valueAt } from './paths.ts';
import { placeholdersInBody } from './templates.ts';

export type NextPage =
  | { readonly page: 'placeholders'; readonly values: PlaceholderValues }
  | { readonly page: 'path'; readonly path: string }
  | { readonly page: 'none' };

/** Everything that the next request of a list depends on. */
const positionSchema = z.object({
  next: z.union([
    z.object({ page: z.literal('placeholders'), values: z.record(z.string(), z.string()) }),
    z.object({ page: z.literal('path'), path: z.string() }),
  ]),
  pageNumber: z.int(),
  offset: z.int(),
  /** Of the last page, by number or offset: what tells it from another, and whether one before it was another. */
  shown: z.string().optional(),
  moves: z.boolean().default(false),
  isShort: z.boolean().default(false),
});

/** What a call of the list is filled in with, wherever it stands. */
export function placeholdersInList({ path, query, body }: ListConfig): string[] {
  return [...[path, ...Object.values(query)].flatMap(placeholdersOf), ...placeholdersInBody(body)];
}

/** What is wrong with a list's paging, as sentences for the operator; empty when nothing is. */
export function pagingProblems(list: ListConfig): string[] {
  const given = new Set(placeholdersInList(list));
  const problems: string[] = [];
  const { paging, next } = list;
  if (next !== undefined && paging !== undefined) {
    problems.push('list has both "next" and "paging"; keep one of them');
  }
  if (next !== undefined && !given.has('cursor')) {
    problems.push('list.next needs {cursor} in its query or body, or every page would be the first');
  }
  if (typeof paging === 'object' && 'page' in paging && !given.has('page')) {
    problems.push('paging by page needs {page} in the query or body, or every page would be the first');
  }
  if (typeof paging === 'object' && 'offset' in paging && !given.has('offset')) {
    problems.push('paging by offset needs {offset} in the query or body, or every page would be the first');
  }
  if (typeof paging === 'object' && 'last' in paging && !given.has('cursor')) {
    problems.push(
      'paging by the last record needs {cursor} in the query or body, or every page would be the first',
    );
  }
  return problems;
}

type CountedPaging = Extract<ListConfig['paging'], { readonly page: unknown } | { readonly offset: unknown }>;

/** What was read of a list: its answer, and from where. */
export interface PageRead {
  readonly answer: RestAnswer;
  readonly items: readonly Json[];
  /** Equal for two answers with the same records in the same order. */
  readonly shown: string;
  readonly url: string;
}

export interface PagedStore {
  /** Scheme, host and port: nothing else is followed. */
  readonly origin: string;
  /** An address that the store gave, as it may be kept and sent. */
  withoutCredential(path: string): string;
}

/** A list that ignores the parameter of its cursor can give a new one with the same page each time. */
const samePagesMax = 5;

/**
 * By number or offset, where `more` does not tell, only an empty page is the end, or 404 for the page after a good one,
 * or the last page once more. Behind a page that was not full, a refusal is the end, too (WordPress answers 400 there),
 * and the same page once more even if it was the first. That a page is shorter proves nothing: a platform may cap pages
 * below the size that was asked for, change that at any time, and leave rows out that nobody may see.
 */
export class Paging {
  readonly #list: ListConfig;
  readonly #store: PagedStore;
  readonly #visited = new Set<string>();
  #pageNumber: number;
  #offset = 0;
  #shown: string | undefined;
  #moves = false;
  /** The last page had less than was asked for. */
  #isShort = false;
  #lastPage: string | undefined;
  #repeats = 0;

  constructor(list: ListConfig, store: PagedStore) {
    this.#list = list;
    this.#store = store;
    this.#pageNumber = typeof list.paging === 'object' && 'page' in list.paging ? list.paging.page.from : 1;
  }

  first(): PlaceholderValues {
    const { paging } = this.#list;
    // Without its page parameter a platform may answer with one short page and no link: a silent loss.
    if (paging === 'link' || (typeof paging === 'object' && 'link' in paging))
      return { page: '1', offset: '0' };
    if (typeof paging !== 'object' || 'last' in paging) return {};
    return 'page' in paging
      ? { page: String(this.#pageNumber), size: String(paging.page.size) }
      : { offset: '0', size: String(paging.offset.size) };
  }

  /** The place of the page `next`, for another pass to go on from, in this process or another. */
  position(next: Exclude<NextPage, { readonly page: 'none' }>): string {
    const [pageNumber, offset] = [this.#pageNumber, this.#offset];
    const [shown, moves, isShort] = [this.#shown, this.#moves, this.#isShort];
    return JSON.stringify({ next, pageNumber, offset, shown, moves, isShort });
  }

  /** The page that `position` named. Throws StoreFailure `rejected` for what it cannot have given. */
  resume(position: string): NextPage {
    const parsed = positionSchema.safeParse(parsedOrNull(position));
    if (!parsed.success) {
      throw new StoreFailure('rejected', 'the place where a list was left cannot be read; it begins anew');
    }
    const { next, pageNumber, offset, shown, moves, isShort } = parsed.data;
    this.#pageNumber = pageNumber;
    this.#offset = offset;
    this.#shown = shown;
    this.#moves = moves;
    this.#isShort = isShort;
    return next;
  }

  /** Some platforms say with 404 that there is no such page; of the first one that says nothing. */
  endsWith({ status }: RestAnswer): boolean {
    return status === 404 && this.#shown !== undefined;
  }

  /** Others refuse it; of a page that comes after a full one that can mean anything. */
  endsWithRefusal(): boolean {
    return this.#shown !== undefined && this.#isShort;
  }

  /** Throws StoreFailure `bad-answer` for a list that goes in circles. */
  after({ answer, items, shown, url }: PageRead): NextPage {
    const { paging, next, more } = this.#list;
    if (more !== undefined && !isTrue(valueAt(answer.body, more))) return { page: 'none' };
    if (typeof paging === 'object' && ('page' in paging || 'offset' in paging)) {
      return this.#afterCounted(paging, items.length, shown);
    }
    this.#mustGoOn(items.length, shown);
    if (paging === 'link') return this.#follow(linkIn(answer), url, 'the Link header');
    if (next !== undefined) return this.#afterCursor(valueAt(answer.body, next), next);
    if (paging === undefined) return { page: 'none' };
    if ('link' in paging) return this.#follow(addressIn(answer, paging.link), url, `"${paging.link}"`);
    const last = items.at(-1);
    return last === undefined
      ? { page: 'none' }
      : this.#afterCursor(valueAt(last, paging.last) ?? {}, `${paging.last} of the last record`);
  }

  #afterCounted(paging: CountedPaging, itemCount: number, shown: string): NextPage {
    const { size } = 'page' in paging ? paging.page : paging.offset;
    if (itemCount === 0) return { page: 'none' };
    if (this.#list.more !== undefined) this.#mustGoOn(itemCount, shown);
    else {
      this.#isShort = itemCount < size;
      if (this.#isRepeated(shown)) return { page: 'none' };
    }
    if ('page' in paging) {
      this.#pageNumber += 1;
      return { page: 'placeholders', values: { page: String(this.#pageNumber), size: String(size) } };
    }
    this.#offset += itemCount;
    return { page: 'placeholders', values: { offset: String(this.#offset), size: String(size) } };
  }

  /** Behind its end a platform may show the last page for ever; but one that only ever shows one page does not count. */
  #isRepeated(shown: string): boolean {
    const before = this.#shown;
    this.#shown = shown;
    if (before !== undefined && before !== shown) this.#moves = true;
    if (before !== shown) return false;
    if (this.#moves || this.#isShort) return true;
    throw new StoreFailure(
      'bad-answer',
      'the list goes in circles: its second page shows what its first one did, so nobody knows whether it ends there; ' +
        'look at the query parameters of its paging',
    );
  }

  /** Where the answers themselves say that the list goes on. */
  #mustGoOn(itemCount: number, shown: string): void {
    const page = itemCount === 0 ? undefined : shown;
    this.#repeats = page !== undefined && page === this.#lastPage ? this.#repeats + 1 : 0;
    this.#lastPage = page;
    if (this.#repeats < samePagesMax) return;
    throw new StoreFailure(
      'bad-answer',
      `the list goes in circles: it gave the same page ${samePagesMax + 1} times; does the platform know the parameter that its pages are asked for with?`,
    );
  }

  #afterCursor(cursor: Json | undefined, place: string): NextPage {
    if (cursor === undefined || cursor === null || cursor === '' || cursor === false) return { page: 'none' };
    if (typeof cursor !== 'string' && typeof cursor !== 'number') {
      throw new StoreFailure('bad-answer', `the cursor at "${place}" is neither text nor a number`);
    }
    this.#visit(String(cursor), 'cursor');
    return { page: 'placeholders', values: { cursor: String(cursor) } };
  }

  #follow(target: string | undefined, url: string, place: string): NextPage {
    if (target === undefined) return { page: 'none' };
    const next = URL.canParse(target, url) ? new URL(target, url) : undefined;
    if (next === undefined || next.origin !== this.#store.origin) {
      throw new StoreFailure(
        'bad-answer',
        `${place} leads to another host; it was not followed, because credentials would go with it`,
      );
    }
    const path = this.#store.withoutCredential(`${next.pathname}${next.search}`);
    this.#visit(path, 'link');
    return { page: 'path', path };
  }

  #visit(place: string, what: string): void {
    if (this.#visited.has(place)) {
      throw new StoreFailure('bad-answer', `the list goes in circles: it gave the same ${what} twice`);
    }
    this.#visited.add(place);
  }
}

function parsedOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function linkIn({ headers }: RestAnswer): string | undefined {
  const header = headers['link'];
  return nextLink(Array.isArray(header) ? header.join(', ') : (header ?? ''));
}

function addressIn({ body }: RestAnswer, path: string): string | undefined {
  const target = valueAt(body, path);
  if (target === undefined || target === null || target === '' || target === false) return undefined;
  if (typeof target === 'string') return target;
  throw new StoreFailure('bad-answer', `what stands at "${path}" is no address of a next page`);
}

/** As platforms write "yes", too: PHP and MySQL give flags as text. */
function isTrue(value: Json | undefined): boolean {
  return value === true || value === 1 || value === '1' || value === 'true';
}

/** The target of the first link with rel="next" (RFC 8288; relation types are not case-sensitive). */
export function nextLink(header: string): string | undefined {
  for (const match of header.matchAll(/<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:"[^"]*"|[^",;\s]*))?)*)/g)) {
    const relation = /;\s*rel\s*=\s*(?:"([^"]*)"|([^",;\s]*))/i.exec(match[2] ?? '');
    const types = (relation?.[1] ?? relation?.[2] ?? '').toLowerCase().split(/\s+/);
    if (types.includes('next')) return match[1];
  }
  return undefined;
}
