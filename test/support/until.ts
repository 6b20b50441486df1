/** Waits for a condition instead of for a time. */
export async function until<Value>(
  what: string,
  condition: () => Value | Promise<Value>,
  withinMs = 10_000,
): Promise<Exclude<Value, false | null | undefined>> {
  const end = performance.now() + withinMs;
  for (;;) {
    const value = await condition();
    if (value !== undefined && value !== null && value !== false)
      return value as Exclude<Value, false | null | undefined>;
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
