/**
 * Partitions that are written together stay together (I4): a handoff that would leave a partner behind is refused at
 * the plan, before the fence, and once more right before the commit. A write that joins two notes the link before it
 * is admitted, and every member has drained by then: so at the commit no link of a forwarded write is missing.
 */
import type { Blocker } from '../core/flip.ts';
import type { LinkBook } from '../core/links.ts';
import type { StoreName } from '../core/ownership.ts';
import type { Ledger } from '../core/ports.ts';
import { sentenceOf } from '../log.ts';

/** Why a partition must not move without its partners: for good, or for as long as one is under way or nobody knows. */
export interface Cut extends Blocker {
  readonly code: 'cuts-link' | 'linked-busy' | 'links-unread';
}

const partnersNamed = 3;
const readAtOnce = 200;

export interface LinkedParts {
  readonly links: Pick<LinkBook, 'partnersOf'>;
  readonly ledger: Pick<Ledger, 'read'>;
}

/** `behind`: partners that would stay. */
export function cutsLinks(partition: string, behind: readonly string[]): Cut {
  const named = behind.slice(0, partnersNamed).join(', ');
  const more = behind.length > partnersNamed ? ` and ${behind.length - partnersNamed} more` : '';
  const [first = ''] = behind;
  return {
    code: 'cuts-link',
    detail:
      `it is written together with ${named}${more}, which would stay behind: what they share would be split, and such ` +
      `writes refused. Merge them: add ${named}${more} to the cohort, or leave this one out; or give them one partition. ` +
      `Where it is no longer true: onewriter links forget ${partition} ${first} --reason TEXT`,
  };
}

/** Undefined where nobody is left behind. `goesAlong`: whom the same flip moves. Never rejects. */
export async function whyCut(...asked: Parameters<typeof readCut>): Promise<Cut | undefined> {
  try {
    return await readCut(...asked);
  } catch (error) {
    const detail = `whom it is written together with could not be read: ${sentenceOf(error)}`;
    return { code: 'links-unread', detail };
  }
}

async function readCut(
  { links, ledger }: LinkedParts,
  partition: string,
  to: StoreName,
  goesAlong: (partner: string) => boolean,
): Promise<Cut | undefined> {
  const partners = (await links.partnersOf([partition])).get(partition) ?? [];
  const others = partners.filter((partner) => !goesAlong(partner));
  const behind: string[] = [];
  let busy: string | undefined;
  for (let at = 0; at < others.length; at += readAtOnce) {
    const group = others.slice(at, at + readAtOnce);
    const records = await Promise.all(group.map((partner) => ledger.read(partner)));
    for (const [index, partner] of group.entries()) {
      const { phase, owner } = records[index]?.ownership ?? ledgerSaidNothing(partner);
      if (phase !== 'open') busy ??= partner;
      else if (owner !== to) behind.push(partner);
    }
  }
  if (behind.length > 0) return cutsLinks(partition, behind);
  if (busy === undefined) return undefined;
  const detail = `it is written together with ${busy}, which is being moved at the moment; try again when that has ended`;
  return { code: 'linked-busy', detail };
}

function ledgerSaidNothing(partition: string): never {
  throw new Error(`the ledger gave no record of ${partition}`);
}
