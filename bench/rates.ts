/** How many requests each contender takes: every load with few and with many connections, in rounds. */
import { jsonBody, mebibyte } from './bodies.ts';
import type { Contender } from './contenders.ts';
import { fullLoad, type LoadReport } from './load.ts';
import { median, pairedMedian } from './statistics.ts';

interface Kind {
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly body?: Buffer;
}

const get: Kind = { name: 'GET 150 B', method: 'GET', path: '/r1' };
const post: Kind = { name: 'POST 1 KiB', method: 'POST', path: '/r1', body: jsonBody() };
const upload: Kind = { name: 'up 1 MiB', method: 'POST', path: '/sink', body: Buffer.alloc(mebibyte, 'x') };
const download: Kind = { name: 'down 1 MiB', method: 'GET', path: '/large' };

export interface Cell {
  readonly kind: Kind;
  readonly connections: number;
  /** Also with the other identities. */
  readonly tokens?: boolean;
  /** Many large bodies at once take longer than a short measurement. */
  readonly stretch?: number;
}

export const few = 64;
const many = 1_000;
export const getCell: Cell = { kind: get, connections: few, tokens: true };
export const postCell: Cell = { kind: post, connections: few, tokens: true };
const quickCells: readonly Cell[] = [
  getCell,
  postCell,
  { kind: get, connections: many },
  { kind: upload, connections: few, stretch: 2 },
  { kind: download, connections: few, stretch: 2 },
];
const allCells: readonly Cell[] = [
  ...quickCells,
  { kind: post, connections: many },
  { kind: upload, connections: many, stretch: 4 },
  { kind: download, connections: many, stretch: 4 },
];

export interface RateSettings {
  readonly rounds: number;
  readonly seconds: number;
  readonly quick: boolean;
  readonly wrk: boolean;
  /** To whose rate in the same round the ratios are. */
  readonly baseline: string;
}

export interface Rate {
  readonly load: string;
  readonly connections: number;
  readonly contender: string;
  /** Median over the rounds. */
  readonly perSecond: number;
  readonly ratio: number;
  /** Over all rounds. */
  readonly errors: number;
  readonly perSecondByRound: readonly number[];
}

export async function measureRates(all: readonly Contender[], settings: RateSettings): Promise<Rate[]> {
  const { rounds, quick } = settings;
  const cells = quick ? quickCells : allCells;
  // Compiled code is what runs in production.
  for (const cell of cells.slice(0, 2)) for (const contender of all) await measure(cell, contender, settings);
  const reports = new Map(cells.map((cell) => [cell, new Map<string, LoadReport[]>()]));
  for (let round = 0; round < rounds; round += 1) {
    const order = round % 2 === 0 ? all : all.toReversed();
    for (const [cell, byName] of reports) {
      for (const contender of order.filter(({ variant }) => cell.tokens === true || !variant)) {
        const report = await measure(cell, contender, settings);
        byName.set(contender.name, [...(byName.get(contender.name) ?? []), report]);
      }
    }
  }
  return [...reports].flatMap(([cell, byName]) => ratesOf(cell, byName, settings.baseline));
}

function measure(cell: Cell, contender: Contender, settings: RateSettings): Promise<LoadReport> {
  const { connections, stretch = 1 } = cell;
  const requests = requestsOf(cell, contender);
  const seconds = settings.seconds * stretch;
  return fullLoad({ port: contender.port, requests, connections, seconds }, settings.wrk);
}

/** Whole requests, of different users; fewer where they are large. */
export function requestsOf({ kind }: Cell, { port, credentials }: Contender): string[] {
  const { method, path, body } = kind;
  const chosen = (body?.byteLength ?? 0) > 10_000 ? credentials.slice(0, 4) : credentials;
  const length = body && `Content-Type: application/json\r\nContent-Length: ${body.byteLength}\r\n`;
  const host = `Host: 127.0.0.1:${port}\r\n`;
  const content = body?.toString('latin1') ?? '';
  return chosen.map(
    (field) => `${method} ${path} HTTP/1.1\r\n${host}${field}\r\n${length ?? ''}\r\n${content}`,
  );
}

function ratesOf(
  { kind, connections }: Cell,
  byName: ReadonlyMap<string, readonly LoadReport[]>,
  baseline: string,
): Rate[] {
  const compared = byName.get(baseline)?.map(({ perSecond }) => perSecond) ?? [];
  return [...byName].map(([contender, reports]) => {
    const perSecondByRound = reports.map(({ perSecond }) => perSecond);
    return {
      ...{ load: kind.name, connections, contender, perSecondByRound },
      perSecond: median(perSecondByRound),
      ratio: pairedMedian(perSecondByRound, compared, (mine, other) => mine / other),
      errors: reports.reduce((sum, { errors }) => sum + errors, 0),
    };
  });
}
