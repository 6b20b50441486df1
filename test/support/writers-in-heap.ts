/**
 * Puts a sync together, as a worker does, and prints for which stores there is a writer anywhere in this process: one
 * line of JSON. A process of its own, because the heap of a test holds the leftovers of other tests.
 *
 *   node test/support/writers-in-heap.ts REDIS_URL on|off
 */
import { queryObjects } from 'node:v8';
import { RestWriter } from '../../src/stores/rest/writer.ts';
import { startSyncRig } from './sync.ts';

const [url = '', rollbackWindow = 'off'] = process.argv.slice(2);
const rig = await startSyncRig({ url }, { sync: { rollbackWindow } });
await rig.sync.startWorkers();
const found = queryObjects(RestWriter, { format: 'summary' });
// The prototype is an object like the others, but writes for nobody.
const stores = found.flatMap((text) => /store: '(\w+)'/.exec(text)?.[1] ?? []);
process.stdout.write(`${JSON.stringify(stores.toSorted())}\n`);
await rig.stop();
