/**
 * What the configuration can already say, but this version cannot do. It is refused by name: a setting
 * that is silently ignored would be worse than a missing one.
 */
import type { ConfigProblem } from './problems.ts';
import type { Config } from './schema.ts';
import type { ReadableConfig } from './sections.ts';

type Connector = NonNullable<Config['stores']['legacy']['connector']>;

/** The same for readers, by the keys of docs/configuration.md: what is not there of each; empty for all of it. */
export const unavailableKeys: Readonly<Record<string, readonly string[]>> = {
  'stores.legacy.connector.kind': ['caldav'],
  'stores.legacy.connector.records.NAME.map': [],
};

/** Every place of the configuration that asks for something this version does not have. */
export function notAvailableYet(config: ReadableConfig): ConfigProblem[] {
  const { stores } = config;
  const wanted: [path: string, unavailable: boolean, instead: string][] = [
    ...connectorRows('stores.legacy.connector', stores.legacy.connector),
    ...connectorRows('stores.app.connector', stores.app.connector),
  ];
  return wanted
    .filter(([, unavailable]) => unavailable)
    .map(([path, , instead]) => ({ path, message: `is not available yet; ${instead}` }));
}

type Rows = [path: string, unavailable: boolean, instead: string][];

function connectorRows(path: string, connector: Connector | undefined): Rows {
  if (connector === undefined) return [];
  if (connector.kind === 'postgres') return [];
  if (connector.kind !== 'rest') return [[`${path}.kind`, true, 'use rest']];
  return Object.entries(connector.records).flatMap(([kind, record]): Rows => {
    const place = `${path}.records.${kind}`;
    return [[`${place}.map`, record.map !== undefined, 'leave it out: fields keep their names']];
  });
}
