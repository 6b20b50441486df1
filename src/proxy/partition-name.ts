/**
 * Which names partitions may have. The proxy takes names as they are written, and stores do not: to an integer column
 * "01" and "+1" are 1, to many collations "Ann" is "ann". Such a second spelling would pass the fence of the first, so it
 * is no name.
 */
import type { Config } from '../config/schema.ts';
import { isGoodName } from './field.ts';

export type NameTest = (name: string) => boolean;

export function nameTestOf({ partitionNames }: Pick<Config, 'partitionNames'>): NameTest {
  const { pattern, letterCase = 'exact' } = partitionNames ?? {};
  const form = pattern === undefined ? undefined : new RegExp(`^(?:${pattern})$`, 'u');
  return (name) => {
    if (!isGoodName(name)) return false;
    if (letterCase === 'lower' && name !== name.toLowerCase()) return false;
    return form === undefined ? !isOddNumber(name) : form.test(name);
  };
}

/** A whole number in another spelling than its shortest: with zeros, a sign, a point, or digits of other scripts. */
function isOddNumber(name: string): boolean {
  return /^[-+\u2212\uff0b\uff0d]?\p{Nd}+(?:\.0*)?$/u.test(name) && !/^(?:0|[1-9][0-9]*)$/.test(name);
}
