/** Calls about the directory: which partition a user belongs to, and changing it. */
import { z } from 'zod';
import type { DirectoryRefusal } from '../core/homes.ts';
import { isGoodName } from '../proxy/field.ts';
import { nameTestOf } from '../proxy/partition-name.ts';
import { directoryAnswer, directorySetAnswer } from './answers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import type { AdminProblem } from './problems.ts';
import { reason } from './terms.ts';

/** As the proxy takes names: what it would refuse in a request must not come in here. */
const nameError =
  'must be 1 to 256 bytes, composed (NFC), without control or invisible characters or white space around it';
export const usableName = z.string().refine(isGoodName, { error: nameError });

export function directoryOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/directory/:user',
      role: 'viewer',
      summary: 'Which partition a user belongs to by the directory.',
      answer: directoryAnswer,
      run: async ({ parameters }) => {
        const user = parameters['user'] ?? '';
        const partition = await parts.directory?.partitionOf(user);
        if (!isFollowed(parts)) return entryUnfollowed(user, partition);
        return partition === undefined ? noSuchUser(user) : { answer: { user, partition } };
      },
    }),
    operation({
      method: 'put',
      path: '/directory/:user',
      role: 'operator',
      summary:
        'Makes a user belong to a partition. From another one only where both live in one store; both take no write while it changes.',
      changes: true,
      body: z.strictObject({ partition: usableName, reason }),
      answer: directorySetAnswer,
      run: async ({ parameters, body, actor }) => {
        const user = parameters['user'] ?? '';
        const usable = usableName.safeParse(user);
        if (!usable.success || parts.directory === undefined) return badUser();
        if (!isFollowed(parts)) return nothingWouldFollow();
        const { partition } = body;
        const unlike = unlikeNames(parts, [partition]);
        if (unlike !== undefined) return unlike;
        const set = await parts.directory.set({ user, partition, by: actor.name, reason: body.reason });
        if ('refused' in set) return { problem: problemOfDirectory(set) };
        const change = {
          action: 'directory.set',
          target: user,
          reason: body.reason,
          before: set.before ?? null,
          after: partition,
        };
        return { answer: set, change };
      },
    }),
  ];
}

export function noSuchUser(user: string): Reply {
  const detail = `"${user}" has no entry in the directory, and no other rule says which partition such users belong to. Set one: onewriter directory set USER PARTITION --reason TEXT`;
  return { problem: { code: 'no-such-user', detail } };
}

export function problemOfDirectory({ refused, detail }: DirectoryRefusal): AdminProblem {
  return { code: refused, detail };
}

/** By the rules as they are now: without a rule that asks the directory, an entry decides nothing. */
function isFollowed({ config, rules }: AdminParts): boolean {
  return (rules?.() ?? config).partition.some((rule) => 'directory' in rule);
}

function nothingWouldFollow(): Reply {
  const detail =
    'Nothing was changed: partition has no directory rule, so nothing would follow this entry. Put {directory: true} under partition first.';
  return { problem: { code: 'no-directory', detail } };
}

function entryUnfollowed(user: string, partition: string | undefined): Reply {
  const entry = partition === undefined ? 'no entry' : `an entry for "${partition}"`;
  const detail = `Partition has no directory rule, so nothing follows the directory; "${user}" has ${entry}. onewriter explain USER says where the user belongs.`;
  return { problem: { code: 'no-directory', detail } };
}

/** Requests that would lead to such a partition are refused: it must not come in. */
export function unlikeNames({ config, rules }: AdminParts, names: readonly string[]): Reply | undefined {
  const isName = nameTestOf(rules?.() ?? config);
  const other = names.find((name) => !isName(name));
  if (other === undefined) return undefined;
  const message = `"${other}" is no name of a partition by partitionNames of the configuration, or could be read as another one`;
  return {
    problem: {
      code: 'invalid-request',
      detail: `Nothing was changed. partition: ${message}.`,
      members: { problems: [{ path: 'partition', message }] },
    },
  };
}

function badUser(): Reply {
  const message = nameError;
  return {
    problem: {
      code: 'invalid-request',
      detail: `Nothing was changed. user: ${message}.`,
      members: { problems: [{ path: 'user', message }] },
    },
  };
}
