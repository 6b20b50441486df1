/**
 * The writing side of a REST store. It is made only for stores that copies may go to, and used only by
 * src/sync/apply.ts. It sends each write once: what became of a lost one is found by reading.
 */
import type { CallConfig } from '../../config/rest-calls.ts';
import type { RecordConfig } from '../../config/schema.ts';
import type { StoreName } from '../../core/ownership.ts';
import {
  type BulkLimits,
  type BulkOutcome,
  type CopyStamp,
  type CopyWriter,
  type StampedCopy,
  StoreFailure,
  type WriteCondition,
} from '../../core/ports.ts';
import type { CopyForm, Json } from '../../core/records.ts';
import type { RestAnswer } from './answers.ts';
import { bulkBody, readBulkAnswer } from './bulk.ts';
import type { RestClient } from './client.ts';
import { isFields, placeholdersOf, valueAt } from './paths.ts';
import type { RecordConfigs } from './reader.ts';
import { callRequest, type Request } from './requests.ts';
import { placeholdersInBody } from './templates.ts';

interface WriteCall {
  readonly request: Request;
  readonly condition?: Readonly<Record<string, string>>;
}

export class RestWriter implements CopyWriter {
  readonly store: StoreName;
  readonly #client: RestClient;
  readonly #records: RecordConfigs;
  readonly #headers: Readonly<Record<string, string>>;

  /** `headers` go with writes alone. */
  constructor(
    client: RestClient,
    records: RecordConfigs,
    headers: Readonly<Record<string, string>> | undefined = {},
  ) {
    this.store = client.store;
    this.#client = client;
    this.#records = records;
    this.#headers = headers;
  }

  /**
   * Throws StoreFailure: `unavailable` means that the outcome is unknown; `rejected` and
   * `refused-by-guard` that nothing was written.
   */
  async put(
    copy: CopyForm,
    stamp: CopyStamp,
    exists: boolean,
    signal: AbortSignal,
    onlyIf?: WriteCondition,
  ): Promise<void> {
    const config = this.#configOf(copy.kind);
    if (!exists && config.create !== undefined) {
      await this.#create(config, copy, stamp, signal);
      return;
    }
    if (config.put === undefined) throw notConfigured(this.store, copy.kind, 'put');
    const request = requestWith(config.put, 'PUT', copy, stamp);
    const answer = await this.#send({ request, condition: conditionOf(config, onlyIf) }, stamp, signal);
    if (isGone(answer)) {
      throw new StoreFailure(
        'rejected',
        `${this.store} has no ${copy.kind} ${copy.id} to put; if put does not create there, configure "create"`,
      );
    }
  }

  async remove(
    key: { kind: string; id: string },
    stamp: CopyStamp,
    signal: AbortSignal,
    onlyIf?: WriteCondition,
  ): Promise<void> {
    const config = this.#configOf(key.kind);
    if (config.delete === undefined) throw notConfigured(this.store, key.kind, 'delete');
    const request = callRequest(config.delete, 'DELETE', { id: key.id, partition: stamp.partition });
    // 404 and 410 are what was wanted.
    await this.#send({ request, condition: conditionOf(config, onlyIf) }, stamp, signal);
  }

  bulk(kind: string): BulkLimits | undefined {
    const bulk = this.#records[kind]?.bulk;
    if (bulk === undefined) return undefined;
    const given = [...placeholdersOf(bulk.path), ...placeholdersInBody(bulk.body)];
    const onePartition = this.#client.isGuarded || given.includes('partition');
    return { max: bulk.max, onePartition };
  }

  /**
   * Throws StoreFailure as put does; then what became of each record is found by reading. Of records that the
   * answer leaves in doubt nothing is claimed.
   */
  async putMany(kind: string, copies: readonly StampedCopy[], signal: AbortSignal): Promise<BulkOutcome> {
    const config = this.#configOf(kind);
    const { bulk } = config;
    const [first] = copies;
    if (first === undefined) return { written: new Set(), mayStillHappen: false };
    if (bulk === undefined) throw notConfigured(this.store, kind, 'bulk');
    const { stamp } = first;
    if (this.bulk(kind)?.onePartition === true && copies.some((one) => !isSameStamp(one.stamp, stamp))) {
      throw new Error(`a bulk call to ${this.store} holds records of one partition only`);
    }
    const sent = copies.map(({ copy }) => copy);
    const items = sent.map(({ fields }) => fields);
    const { partition } = stamp;
    const request = callRequest({ ...bulk, body: undefined }, 'POST', { partition });
    const body = bulkBody(bulk.body, items, { partition });
    const answer = await this.#send({ request: { ...request, body } }, stamp, signal);
    if (isGone(answer)) {
      throw new StoreFailure(
        'rejected',
        `${this.store} has nothing at ${bulk.path} to write many ${kind} with`,
      );
    }
    return readBulkAnswer(answer, sent, config.id);
  }

  async #create(config: RecordConfig, copy: CopyForm, stamp: CopyStamp, signal: AbortSignal): Promise<void> {
    const { create = { path: '' } } = config;
    const { path, id = config.id } = create;
    const request = requestWith(create, 'POST', copy, stamp);
    const answer = await this.#send({ request }, stamp, signal);
    if (isGone(answer)) {
      throw new StoreFailure(
        'rejected',
        `${this.store} has nothing at ${path} to create a ${copy.kind} with`,
      );
    }
    const given = idIn(answer.body, id);
    if (given === undefined || given === copy.id) return;
    // It is not removed here: a store that answers with a record it had already would lose that one.
    throw new StoreFailure(
      'rejected',
      `${this.store} gave the copy of ${copy.kind} ${copy.id} the id ${given}; look whether that one is to be removed; ` +
        'stores that assign ids are not available yet: let "put" create records under the caller\'s id',
    );
  }

  #send({ request, condition }: WriteCall, stamp: CopyStamp, signal: AbortSignal): Promise<RestAnswer> {
    const headers = { ...this.#headers, ...condition };
    return this.#client.call({ ...request, access: 'copy', asWriter: true, stamp, headers }, signal);
  }

  #configOf(kind: string): RecordConfig {
    const config = this.#records[kind];
    if (config === undefined) {
      throw new StoreFailure('rejected', `${this.store} has no records of kind ${kind} to copy to`);
    }
    return config;
  }
}

/** Without a configured body the record itself is sent. */
function requestWith(call: CallConfig, usualMethod: string, copy: CopyForm, stamp: CopyStamp): Request {
  const values = { id: copy.id, partition: stamp.partition, record: copy.fields };
  const request = callRequest(call, usualMethod, values);
  return request.body === undefined ? { ...request, body: copy.fields } : request;
}

/** A weak ETag proves nothing of the content, and no store may match it (RFC 9110, 13.1.1). */
function conditionOf(
  { version: kept }: RecordConfig,
  onlyIf: WriteCondition | undefined,
): Readonly<Record<string, string>> {
  if (kept !== 'etag' || onlyIf === undefined) return {};
  if (onlyIf === 'absent') return { 'if-none-match': '*' };
  return onlyIf.version.startsWith('W/') ? {} : { 'if-match': onlyIf.version };
}

function idIn(body: Json | undefined, path: string): string | undefined {
  if (!isFields(body)) return undefined;
  const id = valueAt(body, path);
  return typeof id === 'string' || typeof id === 'number' ? String(id) : undefined;
}

function isGone(answer: RestAnswer): boolean {
  return answer.status === 404 || answer.status === 410;
}

function isSameStamp(left: CopyStamp, right: CopyStamp): boolean {
  return left.partition === right.partition && left.epoch === right.epoch;
}

function notConfigured(store: StoreName, kind: string, name: string): StoreFailure {
  return new StoreFailure('rejected', `the connector of ${store} has no "${name}" for ${kind}`);
}
