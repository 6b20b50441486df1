/**
 * How a list continues. A reader holds one Paging per pass; after each page it says which placeholders or
 * which address the next request takes, or that the list has ended.
 */
import { z } from 'zod';
import { StoreFailure } from '../../core/ports.ts';
import type { Json } from '../../core/records.ts';
import type { RecordConfig } from '../../config/schema.ts';
import type { RestAnswer } from './answers.ts';
import { placeholdersOf, type PlaceholderValues, valueAt } from './paths.ts';

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

type ListConfig = RecordConfig['list'];

/** What is wrong with a list's paging, as sentences for the operator; empty when nothing is. */
export function pagingProblems(list: ListConfig): string[] {
  const given = new Set([list.path, ...Object.values(list.query)].flatMap(placeholdersOf));
  const problems: string[] = [];
  const { paging, next } = list;
  if (next !== undefined && paging !== undefined) {
    problems.push('list has both "next" and "paging"; keep one of them');
  }
  if (next !== undefined && !given.has('cursor')) {
    problems.push('list.next needs a query parameter with {cursor}, or every page would be the first');
  }
  if (typeof paging === 'object' && 'page' in paging && !given.has('page')) {
    problems.push('paging by page needs a query parameter with {page}, or every page would be the first');
  }
  if (typeof paging === 'object' && 'offset' in paging && !given.has('offset')) {
    problems.push('paging by offset needs a query parameter with {offset}, or every page would be the first');
  }
  return problems;
}

/** What was read of a list: its answer, and from where. */
export interface PageRead {
  readonly answer: RestAnswer;
  readonly itemCount: number;
  /** Equal for two answers with the same records in the same order. */
  readonly shown: string;
  readonly url: string;
}

/**
 * By number or offset, only an empty page is the end, or 404 for the page after a good one, or the last page once more.
 * Behind a page that was not full, a refusal is the end, too (WordPress answers 400 there), and the same page once more
 * even if it was the first. That a page is shorter proves nothing: a platform may cap pages below the size that was asked for, change that
 * at any time, and leave rows out that nobody may see.
 */
export class Paging {
  readonly #list: ListConfig;
  readonly #origin: string;
  readonly #visited = new Set<string>();
  #pageNumber: number;
  #offset = 0;
  #shown: string | undefined;
  #moves = false;
  /** The last page had less than was asked for. */
  #isShort = false;

  constructor(list: ListConfig, origin: string) {
    this.#list = list;
    this.#origin = origin;
    this.#pageNumber = typeof list.paging === 'object' && 'page' in list.paging ? list.paging.page.from : 1;
  }

  first(): PlaceholderValues {
    const { paging } = this.#list;
    // Without its page parameter a platform may answer with one short page and no link: a silent loss.
    if (paging === 'link') return { page: '1', offset: '0' };
    if (typeof paging !== 'object') return {};
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
  after({ answer, itemCount, shown, url }: PageRead): NextPage {
    const { paging, next } = this.#list;
    if (paging === 'link') return this.#afterLink(answer, url);
    if (next !== undefined) return this.#afterCursor(valueAt(answer.body, next));
    if (paging === undefined) return { page: 'none' };
    const { size } = 'page' in paging ? paging.page : paging.offset;
    this.#isShort = itemCount < size;
    if (itemCount === 0 || this.#isRepeated(shown)) return { page: 'none' };
    if ('page' in paging) {
      this.#pageNumber += 1;
      const values = { page: String(this.#pageNumber), size: String(paging.page.size) };
      return { page: 'placeholders', values };
    }
    this.#offset += itemCount;
    return {
      page: 'placeholders',
      values: { offset: String(this.#offset), size: String(paging.offset.size) },
    };
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

  #afterCursor(cursor: Json | undefined): NextPage {
    if (cursor === undefined || cursor === null || cursor === '' || cursor === false) return { page: 'none' };
    if (typeof cursor !== 'string' && typeof cursor !== 'number') {
      throw new StoreFailure('bad-answer', `the cursor at "${this.#list.next}" is neither text nor a number`);
    }
    this.#visit(String(cursor), 'cursor');
    return { page: 'placeholders', values: { cursor: String(cursor) } };
  }

  #afterLink(answer: RestAnswer, url: string): NextPage {
    const header = answer.headers['link'];
    const target = nextLink(Array.isArray(header) ? header.join(', ') : (header ?? ''));
    if (target === undefined) return { page: 'none' };
    const next = URL.canParse(target, url) ? new URL(target, url) : undefined;
    if (next === undefined || next.origin !== this.#origin) {
      throw new StoreFailure(
        'bad-answer',
        'the Link header leads to another host; it was not followed, because credentials would go with it',
      );
    }
    const path = `${next.pathname}${next.search}`;
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

/** The target of the first link with rel="next" (RFC 8288; relation types are not case-sensitive). */
export function nextLink(header: string): string | undefined {
  for (const match of header.matchAll(/<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:"[^"]*"|[^",;\s]*))?)*)/g)) {
    const relation = /;\s*rel\s*=\s*(?:"([^"]*)"|([^",;\s]*))/i.exec(match[2] ?? '');
    const types = (relation?.[1] ?? relation?.[2] ?? '').toLowerCase().split(/\s+/);
    if (types.includes('next')) return match[1];
  }
  return undefined;
}
