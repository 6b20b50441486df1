/** Many things a few at a time, in one place: what is done with a batch ends before the next is taken. */

/** In order, `size` at a time; the last batch may be smaller, and none is empty. Takes items only as they are asked for. */
export function* inBatches<Item>(items: Iterable<Item>, size: number): Generator<readonly Item[]> {
  let batch: Item[] = [];
  for (const item of items) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
