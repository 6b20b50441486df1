/** Calls about partitions that are written together: the list, and that two of them are not any more. */
import { z } from 'zod';
import { type LinkBook, pairOf } from '../core/links.ts';
import { forgetLinkAnswer, linksAnswer } from './answers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import { pageQuery } from './pages.ts';
import type { AdminParts } from './parts.ts';
import { name, reason } from './terms.ts';

const linksQuery = pageQuery.extend({
  partition: name.optional().describe('Only links of this partition.'),
});
const forgetBody = z.strictObject({
  partitions: z.tuple([name, name]).refine(([one, other]) => one !== other, {
    error: 'must be two different partitions',
  }),
  reason,
});

export function linkOperations({ links }: AdminParts): Operation[] {
  if (links === undefined) return [];
  return [
    operation({
      method: 'get',
      path: '/links',
      role: 'viewer',
      summary: 'Partitions that a write has joined: no handoff parts them.',
      query: linksQuery,
      answer: linksAnswer,
      run: async ({ query }) => {
        const after = Buffer.from(query.cursor ?? '', 'base64url').toString('utf8');
        const page = await links.page(after, query.limit, query.partition);
        const next = page.next === undefined ? {} : { next: Buffer.from(page.next).toString('base64url') };
        return { answer: { links: page.links, ...next } };
      },
    }),
    operation({
      method: 'post',
      path: '/links/forget',
      role: 'admin',
      summary:
        'Says that two partitions are not written together any more. The next write that joins them notes it again.',
      changes: true,
      body: forgetBody,
      answer: forgetLinkAnswer,
      run: ({ body, actor }) => forget(links, body, actor.name),
    }),
  ];
}

async function forget(
  links: LinkBook,
  { partitions: [one, other], reason: why }: z.output<typeof forgetBody>,
  by: string,
): Promise<Reply> {
  const pair = pairOf(one, other);
  const done = await links.forget(pair, by, why);
  switch (done.result) {
    case 'forgotten': {
      const { link } = done;
      const change = { action: 'link.forget', target: pair.join(' and '), reason: why };
      return { answer: { forgotten: link }, change: { ...change, before: link, after: null } };
    }
    case 'unknown': {
      const detail = `Nothing was changed: no link between "${one}" and "${other}" is noted; "onewriter links list" (GET /v1/links?partition=) lists those of one.`;
      return { problem: { code: 'no-such-link', detail } };
    }
    case 'ledger-regressed': {
      const detail = `Nothing was changed: the ledger lost data (${done.detail}). Restore it first.`;
      return { problem: { code: 'ledger-regressed', detail } };
    }
  }
}
