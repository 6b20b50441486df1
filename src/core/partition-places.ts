/** Where a route says that the partitions stand which a request touches together. */

/** One step into a JSON body. */
export type BodyStep =
  | { readonly step: 'name'; readonly name: string }
  /** Every entry of an array. */
  | { readonly step: 'each' };

export type PartitionPlace =
  | { readonly place: 'body'; readonly steps: readonly BodyStep[] }
  /** `repeated`: the parameter once for each; `list`: once, with commas. */
  | { readonly place: 'query'; readonly name: string; readonly holds: 'repeated' | 'list' }
  /** One list, over all lines of the field (RFC 9110, 5.3). */
  | { readonly place: 'header'; readonly name: string }
  /** A single one, as under `partition`. */
  | { readonly place: 'single'; readonly source: string };

/** Undefined where the text names no such place. */
export function partitionPlaceOf(text: string): PartitionPlace | undefined {
  if (text === 'body' || /^body[.[]/.test(text)) {
    const steps = bodyStepsOf(text.slice('body'.length));
    return steps && { place: 'body', steps };
  }
  const [, kind, name, many] = /^(query|header)\.(.+)(\[[*,]\])$/.exec(text) ?? [];
  if (kind === 'query' && name !== undefined) {
    return { place: 'query', name, holds: many === '[,]' ? 'list' : 'repeated' };
  }
  if (kind === 'header' && name !== undefined) {
    return many === '[*]' && /^[\w!#$%&'*+.^`|~-]+$/.test(name) ? { place: 'header', name } : undefined;
  }
  const single = text === 'user' || /^(?:path|header|claim|query)\.[^[\]]+$/.test(text);
  return single ? { place: 'single', source: text } : undefined;
}

function bodyStepsOf(text: string): BodyStep[] | undefined {
  const steps: BodyStep[] = [];
  for (let rest = text; rest !== '';) {
    const name = /^\.([^.[\]]+)/.exec(rest);
    if (name === null && !rest.startsWith('[*]')) return undefined;
    steps.push(name === null ? { step: 'each' } : { step: 'name', name: name[1] ?? '' });
    rest = rest.slice(name === null ? '[*]'.length : name[0].length);
  }
  return steps.length === 0 ? undefined : steps;
}
