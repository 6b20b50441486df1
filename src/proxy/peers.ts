/** Which peers are believed: CIDR ranges from the configuration against the address of a connection. */
import { BlockList, isIP } from 'node:net';

export type PeerTest = (address: string | undefined) => boolean;

/** Compiles CIDR ranges and single addresses. Throws a TypeError naming the range that is none. */
export function peerTest(ranges: readonly string[]): PeerTest {
  if (ranges.length === 0) return () => false;
  const list = new BlockList();
  for (const range of ranges) {
    const [address = '', prefix, extra] = range.split('/');
    const family = isIP(address);
    const bits = prefix === undefined ? (family === 4 ? 32 : 128) : Number(prefix);
    const valid = extra === undefined && prefix !== '' && Number.isInteger(bits);
    if (family === 0 || !valid || bits < 0 || bits > (family === 4 ? 32 : 128)) {
      throw new TypeError(`"${range}" is not a CIDR range like 10.0.0.0/8 or ::1/128`);
    }
    list.addSubnet(address, bits, family === 4 ? 'ipv4' : 'ipv6');
  }
  // Connections keep their address, so the last answers are worth remembering; bounded.
  const known = new Map<string, boolean>();
  return (address) => {
    if (address === undefined) return false;
    const remembered = known.get(address);
    if (remembered !== undefined) return remembered;
    const plain = plainAddress(address);
    const family = isIP(plain);
    const listed = family !== 0 && list.check(plain, family === 4 ? 'ipv4' : 'ipv6');
    if (known.size >= 1_000) known.clear();
    known.set(address, listed);
    return listed;
  };
}

/** An IPv4 peer on a dual-stack socket shows as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), an IPv6 one may carry a zone. */
export function plainAddress(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  return mapped?.[1] ?? address.split('%', 1)[0] ?? address;
}
