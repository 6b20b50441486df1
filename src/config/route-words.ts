/** A route in the words of the configuration, short enough to stand in a list. */
import type { Config } from './schema.ts';

type Route = Pick<Config['routes'][number], 'path' | 'methods' | 'host' | 'query' | 'headers' | 'body'>;

/** For example `GET,HEAD status.example/*`; other conditions are only said to be there. */
export function routeInWords({ path, methods, host, query, headers, body }: Route): string {
  const how = methods === undefined ? '' : `${methods.join(',')} `;
  const more = Object.entries({ query, headers, body }).flatMap(([name, there]) => (there ? [name] : []));
  return `${how}${host ?? ''}${path}${more.length === 0 ? '' : ` (by ${more.join(', ')}, too)`}`;
}

/** Routes outside the promise: always one store, and no partition. */
export function pinnedRoutesIn({ routes }: Pick<Config, 'routes'>): string[] {
  return routes.filter((route) => route.store !== undefined).map(routeInWords);
}
