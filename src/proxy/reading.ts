/** What a request and its route say of the way in which it is to be read. */
import type { IncomingMessage } from 'node:http';
import type { ReadRule } from '../core/copy-reads.ts';
import type { RouteRule } from '../core/route.ts';
import type { AdmissionRequest } from './admit.ts';
import type { MatchedRequest } from './classify.ts';

const copyBoundMs = 5_000;

/** What is known of a read, beside what it reads. */
export function readingOf(
  request: IncomingMessage,
  { access, route }: MatchedRequest,
): Pick<AdmissionRequest, 'readRule' | 'seenEpoch'> | undefined {
  if (access !== 'read') return undefined;
  const epoch = seenEpochOf(request);
  const rule = readRuleOf(route?.rule);
  // A stream goes on showing what it was opened on.
  const isStream = rule?.from === 'copy' && request.headers.accept?.includes('text/event-stream') === true;
  return rule === undefined && epoch === undefined
    ? undefined
    : { readRule: isStream ? undefined : rule, seenEpoch: epoch };
}

/** What a client says that it has seen; it can only make itself wait. */
export function seenEpochOf(request: IncomingMessage): number | undefined {
  const said = request.headers['onewriter-epoch'];
  return typeof said === 'string' && /^\d{1,15}$/.test(said) ? Number(said) : undefined;
}

/** Undefined: the owner answers. */
function readRuleOf(rule: RouteRule | undefined): ReadRule | undefined {
  if (rule?.reads !== 'copy' && rule?.reads !== 'app') return undefined;
  const { reads: from, maxStalenessMs = from === 'copy' ? copyBoundMs : Number.POSITIVE_INFINITY } = rule;
  return {
    ...{ from, maxStalenessMs },
    namesPartitions: rule.partition !== undefined || rule.partitions !== undefined,
  };
}
