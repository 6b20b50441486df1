/** Answers as bytes, and what the response parser makes of them. */
import {
  type FinalHead,
  type ResponseEnd,
  type ResponseHead,
  type ResponseLimits,
  ResponseParser,
} from '../../src/proxy/upstream/response-parser.ts';

export const limits: ResponseLimits = { headBytesMax: 32_768, fieldsMax: 1_000, interimMax: 32 };

export interface Parsed {
  readonly interim: readonly ResponseHead[];
  readonly head: FinalHead | undefined;
  readonly body: string;
  readonly end: ResponseEnd | undefined;
  readonly refusal: string | undefined;
}

/** Takes the pieces one after the other, as they would come from a socket; `ends`: the store closes behind them. */
export function parse(
  pieces: readonly string[],
  {
    method = 'GET',
    ends = false,
    ...changed
  }: { method?: string; ends?: boolean } & Partial<ResponseLimits> = {},
): Parsed {
  const parser = new ResponseParser({ ...limits, ...changed });
  parser.expect(method);
  const interim: ResponseHead[] = [];
  let head: FinalHead | undefined;
  let body = '';
  let end: ResponseEnd | undefined;
  let refusal: string | undefined;
  const steps = [
    ...pieces.map((piece) => () => parser.take(Buffer.from(piece, 'latin1'))),
    ...(ends ? [() => parser.finish()] : []),
  ];
  try {
    for (const step of steps) {
      const taken = step();
      interim.push(...taken.interim);
      head ??= taken.head;
      body += Buffer.concat(taken.body).toString('latin1');
      ({ end, refusal } = taken);
      if (end !== undefined || refusal !== undefined) break;
    }
    return { interim, head, body, end, refusal };
  } finally {
    parser.free();
  }
}
