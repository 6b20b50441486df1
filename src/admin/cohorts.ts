/** Calls about cohorts: what they select, how far they are, and making new ones. */
import { z } from 'zod';
import { cohortSchema } from '../config/schema.ts';
import type { NamedCohort } from '../core/flip.ts';
import { cohortPageAnswer, cohortPutAnswer, cohortsAnswer } from './answers.ts';
import { type Census, takeCensus } from './census.ts';
import { newcomersOf } from './newcomers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import { pageOfNames, pageQuery } from './pages.ts';
import { reason } from './terms.ts';
import { type AdminParts, censusParts } from './parts.ts';

const cohortName = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/;

export function cohortOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/cohorts',
      role: 'viewer',
      summary: 'All cohorts, with counts of their partitions by owner and phase.',
      answer: cohortsAnswer,
      run: async () => {
        const [cohorts, census] = await Promise.all([parts.flips.cohorts(), takeCensus(censusParts(parts))]);
        const sorted = cohorts.toSorted((left, right) => (left.name < right.name ? -1 : 1));
        const rows = [];
        for (const cohort of sorted) rows.push((await counted(parts, cohort, census)).row);
        return { answer: { cohorts: rows } };
      },
    }),
    operation({
      method: 'get',
      path: '/cohorts/:name',
      role: 'viewer',
      summary: 'One cohort, with its partitions by page.',
      query: pageQuery,
      answer: cohortPageAnswer,
      run: async ({ parameters, query }) => {
        const name = parameters['name'] ?? '';
        const cohort = (await parts.flips.cohorts()).find((candidate) => candidate.name === name);
        if (cohort === undefined) return noSuchCohort(parts, name);
        const census = await takeCensus(censusParts(parts));
        const { row, partitions } = await counted(parts, cohort, census);
        const { names, ...next } = pageOfNames(partitions, query.cursor, query.limit);
        const newcomers = newcomersOf(name, partitions, census, await parts.flips.flips());
        const members = names.map((partition) => census.of(partition));
        return { answer: { ...row, members, ...(newcomers && { newcomers }), ...next } };
      },
    }),
    operation({
      method: 'put',
      path: '/cohorts/:name',
      role: 'admin',
      summary: 'Defines or redefines a cohort. Those of the configuration file are read-only here.',
      changes: true,
      body: z.strictObject({ selection: cohortSchema, reason }),
      answer: cohortPutAnswer,
      run: async ({ parameters, body, actor }) => {
        const name = parameters['name'] ?? '';
        if (!cohortName.test(name)) return badName();
        const known = (await parts.flips.cohorts()).find((candidate) => candidate.name === name);
        if (known?.source === 'file') {
          const detail = `Nothing was changed: "${name}" is in the configuration file; edit it there, or take another name.`;
          return { problem: { code: 'cohort-from-file', detail } };
        }
        await parts.cohorts.put(name, body.selection, actor.name, body.reason);
        const change = {
          action: 'cohort.put',
          target: name,
          reason: body.reason,
          before: known?.selection ?? null,
          after: body.selection,
        };
        return { answer: { name, selection: body.selection }, change };
      },
    }),
  ];
}

export async function noSuchCohort(parts: Pick<AdminParts, 'flips'>, name: string): Promise<Reply> {
  const names = (await parts.flips.cohorts()).map((cohort) => cohort.name).join(', ') || 'none';
  const detail = `There is no cohort ${name}. Known cohorts: ${names}.`;
  return { problem: { code: 'no-such-cohort', detail } };
}

async function counted(parts: AdminParts, { name, source, selection }: NamedCohort, census: Census) {
  const partitions = (await parts.flips.partitionsOf(name)) ?? [];
  return { row: { name, source, selection, counts: census.count(partitions) }, partitions };
}

function badName(): Reply {
  const message = 'letters, digits, ".", "_" and "-", beginning with a letter or digit, at most 100';
  return {
    problem: {
      code: 'invalid-request',
      detail: `Nothing was changed. name: ${message}.`,
      members: { problems: [{ path: 'name', message }] },
    },
  };
}
