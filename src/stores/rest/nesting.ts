/**
 * How deep JSON is nested. JSON.parse takes any depth, but whoever goes through what it made step into step (a reviver,
 * JSON.stringify, a comparison) runs out of stack at some thousands: one user's record must not end what is done for all.
 */
import type { Json } from '../../core/records.ts';

/** Deeper records are not copied. Most platforms' own readers take 100 to 1,000. */
export const nestingMax = 200;

/** Has it more objects and arrays inside each other than these? */
export function isDeeperThan(value: Json, most: number): boolean {
  let level = innerOf([value]);
  for (let depth = 1; level.length > 0; depth += 1) {
    if (depth > most) return true;
    level = level.flatMap((inner) => innerOf(Object.values(inner)));
  }
  return false;
}

function innerOf(values: readonly Json[]): object[] {
  return values.filter((value): value is Exclude<typeof value, null> & object => {
    return typeof value === 'object' && value !== null;
  });
}

/** JSON in which objects and arrays that stand inside `most` others are emptied, so that none stands inside more. */
export function cutBelow(json: string, most: number): string {
  const kept: string[] = [];
  let keptTo = 0;
  let depth = 0;
  for (let at = 0; at < json.length; at += 1) {
    const character = json[at];
    if (character === '"') at = endOfText(json, at);
    else if (character === '[' || character === '{') {
      depth += 1;
      if (depth === most + 1) kept.push(json.slice(keptTo, at + 1));
    } else if (character === ']' || character === '}') {
      if (depth === most + 1) keptTo = at;
      depth -= 1;
    }
  }
  return kept.length === 0 ? json : kept.join('') + json.slice(keptTo);
}

/** Where the text ends that begins at `start`. */
function endOfText(json: string, start: number): number {
  for (let at = start + 1; at < json.length; at += 1) {
    if (json[at] === '\\') at += 1;
    else if (json[at] === '"') return at;
  }
  return json.length;
}
