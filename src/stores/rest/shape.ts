/** How one kind of record looks in a REST store: reading an item of a list, and the shape of a copy. */
import type { RecordConfig } from '../../config/schema.ts';
import type { KindCapabilities, RecordProblem, TargetShape } from '../../core/ports.ts';
import { type CopyForm, type Fields, isUsableId, type Json, type StoreRecord } from '../../core/records.ts';
import { isSignableName } from '../../guard/signature.ts';
import { isInexact } from './exact-json.ts';
import { isDeeperThan, nestingMax } from './nesting.ts';
import { placeholdersInList } from './paging.ts';
import { isFields, placeholdersOf, valueAt, valuesAt, withoutPath, withPath } from './paths.ts';
import { placeholdersInBody } from './templates.ts';

export type ReadItem =
  | { readonly record: StoreRecord }
  | { readonly problem: RecordProblem }
  | { readonly skip: true }
  /** A tombstone that names nothing but the id. */
  | { readonly gone: string };

/** In the place of a path: records do not say their partition, because they are asked for by it. */
export const partitionOfCall = '{partition}';

/**
 * Reads one item. Items of other partitions than `partition` are skipped, whatever is wrong with them: not every
 * platform honours the filter it was given. `asked`: the partition that the call named.
 */
export function readItem(
  kind: string,
  config: RecordConfig,
  item: Json,
  partition?: string,
  asked?: string,
): ReadItem {
  const problem = (detail: string): ReadItem => ({ problem: { kind, detail } });
  if (!isFields(item)) return problem('an item of the list is not an object');
  const named = config.partition === partitionOfCall ? asked : valueAt(item, config.partition);
  const owner = nameOf(named);
  const hasOwner = owner !== undefined && isSignableName(owner);
  // A number may be the one that was changed.
  const isOwnerKept = typeof named === 'string' || !isInexact(item);
  if (partition !== undefined && hasOwner && isOwnerKept && owner !== partition) return { skip: true };
  if (isInexact(item)) {
    return problem('a record holds a number that cannot be kept exactly; the platform must write it as text');
  }
  const id = idOf(valueAt(item, config.id));
  if (id === undefined) {
    return problem(`a record without a usable id at "${config.id}"; it cannot be copied`);
  }
  const deleted = config.deleted !== undefined && isSet(valueAt(item, config.deleted));
  if (owner === undefined && deleted) return { gone: id };
  if (!hasOwner) {
    return problem(`record ${id} has no usable partition at "${config.partition}"; it cannot be copied`);
  }
  if (isDeeperThan(item, nestingMax)) {
    return problem(
      `record ${id} holds more than ${nestingMax} lists and objects inside each other; it cannot be copied`,
    );
  }
  const { version: versionPath } = config;
  const version =
    versionPath === undefined || versionPath === 'etag' ? undefined : nameOf(valueAt(item, versionPath));
  return {
    record: {
      kind,
      id,
      partition: owner,
      fields: item,
      deleted,
      ...(config.writers === undefined ? {} : { writers: writersIn(item, config.writers) }),
      ...(version === undefined ? {} : { version }),
    },
  };
}

/** Names that cannot be partitions belong to nobody whom the proxy could let write. */
function writersIn(item: Json, path: string): string[] {
  const names = valuesAt(item, path).flatMap((value): string[] => {
    const name = nameOf(value);
    return name === undefined || !isSignableName(name) ? [] : [name];
  });
  return [...new Set(names)];
}

export function idOf(value: Json | undefined): string | undefined {
  const id = nameOf(value);
  return id !== undefined && isUsableId(id) ? id : undefined;
}

function nameOf(value: Json | undefined): string | undefined {
  if (typeof value === 'number') return Number.isFinite(value) ? String(value) : undefined;
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** As platforms write "no": PHP and MySQL give numbers and flags as text. */
const unset: ReadonlySet<Json> = new Set([null, false, '', 0, '0', 'false']);

function isSet(value: Json | undefined): boolean {
  return !unset.has(value ?? null);
}

export function shapeOf(config: RecordConfig): TargetShape {
  return {
    id: config.id,
    partition: config.partition,
    version: config.version === 'etag' ? undefined : config.version,
    deleted: config.deleted,
  };
}

/** The record under the target's names. Id and partition keep their JSON type; version and tombstone stay behind. */
export function copyFormOf(record: StoreRecord, source: TargetShape, target: TargetShape): CopyForm {
  const id = valueAt(record.fields, source.id) ?? record.id;
  const partition = valueAt(record.fields, source.partition) ?? record.partition;
  let fields: Fields = record.fields;
  for (const path of [source.id, source.partition]) fields = withoutPath(fields, path);
  fields = comparable(fields, source, target);
  fields = withPath(fields, target.id, id);
  if (target.partition !== partitionOfCall) fields = withPath(fields, target.partition, partition);
  return { kind: record.kind, id: record.id, fields };
}

/** The fields without what either side keeps for itself: versions and deletion marks. */
export function comparable(fields: Fields, source: TargetShape, target: TargetShape): Fields {
  let kept = fields;
  for (const path of [source.version, source.deleted, target.version, target.deleted]) {
    if (path !== undefined) kept = withoutPath(kept, path);
  }
  return kept;
}

export function capabilitiesOf(kind: string, config: RecordConfig): KindCapabilities {
  const inPath = placeholdersOf(config.list.path);
  const given = placeholdersInList(config.list);
  const inGet = [...placeholdersOf(config.get.path), ...placeholdersInBody(config.get.body)];
  const needsPartition = inPath.includes('partition') || config.partition === partitionOfCall;
  const hasVersionField = config.version !== undefined && config.version !== 'etag';
  const notWritable = whyNotWritable(config);
  return {
    kind,
    byPartition: given.includes('partition'),
    needsPartition,
    readableById: config.partition !== partitionOfCall && !inGet.includes('partition'),
    since: hasVersionField && given.includes('since'),
    paged: config.list.next !== undefined || config.list.paging !== undefined,
    tombstones: config.deleted !== undefined || config.deletes !== undefined,
    versions: config.version === undefined ? 'none' : config.version === 'etag' ? 'etag' : 'field',
    ...(notWritable === undefined ? {} : { notWritable }),
  };
}

function whyNotWritable(config: RecordConfig): string | undefined {
  if (config.put === undefined) return 'the connector has no "put"';
  if (config.delete === undefined) return 'the connector has no "delete"';
  return undefined;
}
