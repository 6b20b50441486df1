/** Callbacks by partition, each called at most once per call and removable while being called. */
export class Listeners {
  readonly #byPartition = new Map<string, Set<() => void>>();

  add(partition: string, listener: () => void): () => void {
    const listeners = this.#byPartition.get(partition) ?? new Set();
    this.#byPartition.set(partition, listeners);
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#byPartition.get(partition) === listeners) {
        this.#byPartition.delete(partition);
      }
    };
  }

  call(partition: string): void {
    for (const listener of [...(this.#byPartition.get(partition) ?? [])]) listener();
  }

  callAll(): void {
    for (const partition of [...this.#byPartition.keys()]) this.call(partition);
  }
}
