/**
 * The partitions that a request touches together, from the places that its route names. What readers could
 * understand differently is never guessed: an entry that names nobody, a field that is there twice, a body of
 * another kind.
 */
import type { RouteRule } from '../core/route.ts';
import { valuesInPairs } from '../core/condition.ts';
import { type BodyStep, type PartitionPlace, partitionPlaceOf } from '../core/partition-places.ts';
import { asText, valuesOf } from './field.ts';
import { elementsOf, readingsAt } from './json-text.ts';
import { type Origin, routeSourceOf } from './partition-source.ts';
import { nameOfText, type SeenBody } from './seen-body.ts';

/** Entries of arrays that are looked at in one body, however few partitions they name. */
export const entriesMax = 1_000;

export type Names = readonly string[] | 'unclear' | 'too-many';

/** Of one route, made ready; the body's part is kept instead of the body, since a request may wait long. */
export interface PartitionList {
  readonly readsBody: boolean;
  inBody(body: SeenBody): Names;
  outside(origin: Origin): Names;
}

export function partitionListOf({ partitions }: RouteRule): PartitionList | undefined {
  if (partitions === undefined) return undefined;
  const places = [partitions].flat().map((text) => {
    const place = partitionPlaceOf(text);
    if (place === undefined) throw new Error(`"${text}" is no place where partitions could stand`);
    return place;
  });
  const paths = places.flatMap((place) => (place.place === 'body' ? [place.steps] : []));
  const sources = places.flatMap(sourcesOf);
  return {
    readsBody: paths.length > 0,
    inBody: (body) => (paths.length === 0 ? [] : namesInBody(body, paths)),
    outside: (origin) => allOf(sources, (source) => source(origin)),
  };
}

type Source = (origin: Origin) => Names;

function sourcesOf(place: PartitionPlace): Source[] {
  switch (place.place) {
    case 'body':
      return [];
    case 'query':
      return [({ matched }) => namesInQuery(matched.query, place.name, place.holds)];
    case 'header':
      return [({ request }) => namesInHeader(request.rawHeaders, place.name.toLowerCase())];
    case 'single': {
      const source = routeSourceOf(place.source);
      return [
        (origin) => {
          const name = source(origin);
          if (name === undefined) return [];
          return typeof name === 'string' && name !== '' ? [name] : 'unclear';
        },
      ];
    }
  }
}

function namesInQuery(query: string, name: string, holds: 'repeated' | 'list'): Names {
  const { exact, loose } = valuesInPairs(query, name);
  if (exact.length !== loose.length || exact.some((value, at) => value !== loose[at])) return 'unclear';
  if (holds === 'repeated') return exact;
  return exact.length > 1 ? 'unclear' : listed(exact);
}

function namesInHeader(rawHeaders: readonly string[], name: string): Names {
  const values = valuesOf(rawHeaders, name).map(asText);
  return values.includes(undefined) ? 'unclear' : listed(values.map((value) => value ?? ''));
}

function listed(lines: readonly string[]): Names {
  const names = lines.flatMap((line) => line.split(',')).map((name) => name.trim());
  return names.includes('') ? 'unclear' : names;
}

/** An array is read by the paths that begin with `[*]`, an object by the others: a batch may be one of either. */
function namesInBody(body: SeenBody, paths: readonly (readonly BodyStep[])[]): Names {
  if (body.kind === 'none') return [];
  if (body.kind !== 'json') return 'unclear';
  const { text } = body;
  const first = opens(text) === '[' ? 'each' : 'name';
  const fitting = paths.filter(([step]) => step?.step === first);
  if (fitting.length === 0) return 'unclear';
  const budget = { entries: entriesMax };
  return allOf(fitting, (steps) => {
    const found = namesAt(text, steps, budget);
    return found === 'absent' ? [] : found;
  });
}

function namesAt(
  text: string,
  [step, ...rest]: readonly BodyStep[],
  budget: { entries: number },
): Names | 'absent' {
  if (step === undefined) {
    const name = nameOfText(text);
    return name === '' ? 'unclear' : [name];
  }
  if (step.step === 'name') {
    if (opens(text) !== '{') return 'unclear';
    const readings = readingsAt(text, [step.name]);
    if (readings === 'too-many' || readings.length > 1) return 'unclear';
    const [value] = readings;
    return value === undefined ? 'absent' : namesAt(value, rest, budget);
  }
  const entries = elementsOf(text, budget.entries);
  if (entries === undefined) return opens(text) === '[' ? 'too-many' : 'unclear';
  budget.entries -= entries.length;
  return allOf(entries, (entry) => {
    const found = namesAt(entry, rest, budget);
    // One that names nobody could be anybody's.
    return found === 'absent' ? 'unclear' : found;
  });
}

/** All names together, or the first reason why there are none. */
function allOf<Place>(places: readonly Place[], namesIn: (place: Place) => Names): Names {
  const names: string[] = [];
  for (const place of places) {
    const found = namesIn(place);
    if (typeof found === 'string') return found;
    names.push(...found);
  }
  return names;
}

function opens(text: string): string | undefined {
  return /^[ \t\r\n]*(.)/.exec(text)?.[1];
}
