/** Names in SQL: always quoted, and always as the catalog has them. */

export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A text as an SQL literal; only for names of columns and channels, values go as parameters. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** `SCHEMA.NAME` or `NAME` of the configuration, quoted; a name without a schema is found on the search path. */
export function tableName(configured: string): string {
  const parts = [...configured.matchAll(/"((?:[^"]|"")+)"|([^."]+)/g)].map(
    ([, inQuotes, bare]) => inQuotes?.replaceAll('""', '"') ?? bare ?? '',
  );
  return parts.map(quoted).join('.');
}
