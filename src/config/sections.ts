/**
 * What of a faulty configuration could still be read. The checks across sections run on it, so that an
 * operator sees their findings together with the plain mistakes, not one round later.
 */
import { z } from 'zod';
import { bare, definitionOf } from './grammar.ts';
import { configSchema, identityRule, partitionRule, routeSchema, type Config } from './schema.ts';

type WithHoles<List extends readonly unknown[]> = readonly (List[number] | undefined)[];
type Store = Config['stores']['legacy'];

/** A whole configuration is one of these, too. */
export interface ReadableConfig {
  readonly proxy: Partial<Config['proxy']>;
  readonly admin: Partial<Config['admin']>;
  readonly redis: Partial<Config['redis']>;
  readonly ledger: Partial<Config['ledger']>;
  readonly flip: Partial<Config['flip']>;
  readonly sync: Partial<Config['sync']>;
  readonly webhooks?: Partial<NonNullable<Config['webhooks']>> | undefined;
  readonly stores: { readonly legacy: Partial<Store>; readonly app: Partial<Store> };
  /** Entries that could not be read are undefined, so that the others keep their place. */
  readonly identity: WithHoles<Config['identity']>;
  readonly partition: WithHoles<Config['partition']>;
  readonly routes: WithHoles<Config['routes']>;
}

export function readableSections(raw: unknown): ReadableConfig {
  const given = mappingOf(raw);
  const tolerantRoute = z.object(routeSchema.shape);
  return {
    ...(readable(configSchema, raw, { deep: true }) as ReadableConfig),
    identity: entries(identityRule, given['identity']),
    partition: entries(partitionRule, given['partition']),
    routes: entries(tolerantRoute, given['routes']),
  };
}

/** The members of a mapping that can be read; `deep` goes one mapping further down, into sections and stores. */
function readable(schema: z.core.$ZodType, raw: unknown, { deep }: { deep: boolean }): unknown {
  const definition = definitionOf(bare(schema));
  if (definition.type !== 'object') return undefined;
  const given = mappingOf(raw);
  const parsed: Record<string, unknown> = {};
  for (const [key, member] of Object.entries(definition.shape)) {
    const result = z.safeParse(member, given[key]);
    if (result.success) parsed[key] = result.data;
    else if (deep) parsed[key] = readable(member, given[key], { deep: key === 'stores' });
  }
  return parsed;
}

function mappingOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function entries<Entry extends z.ZodType>(schema: Entry, given: unknown): (z.output<Entry> | undefined)[] {
  if (!Array.isArray(given)) return [];
  return given.map((item) => {
    const result = schema.safeParse(item);
    return result.success ? result.data : undefined;
  });
}
