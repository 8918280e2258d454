import { isIP, isIPv4 } from 'node:net';

/*
 * Where deliveries may go. Addresses are judged, never names: what a name resolves to when it is connected to decides
 * (IANA's special-purpose registries, RFC 6890).
 */

/** Bits of an address in front of which a network is the same. IPv4 has 4 bytes, IPv6 16. */
interface Network {
  readonly bytes: readonly number[];
  readonly bits: number;
}

/** Everything that is not an address of one host on the public internet. */
const forbiddenIPv4 = [
  '0.0.0.0/8', // this host
  '10.0.0.0/8',
  '100.64.0.0/10', // carrier-grade NAT; also where some clouds keep services
  '127.0.0.0/8',
  '169.254.0.0/16', // link-local; 169.254.169.254 hands out a machine's credentials
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24', // documentation
  '192.88.99.0/24', // 6to4 relays
  '192.168.0.0/16',
  '198.18.0.0/15', // benchmarks
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4', // multicast
  '240.0.0.0/4', // reserved, broadcast
].map(required);

/** Of IPv6 only this is the public internet ... */
const globalIPv6 = required('2000::/3');
/** ... less these. */
const forbiddenIPv6 = [
  '2001::/23', // protocol assignments, Teredo among them
  '2001:db8::/32', // documentation
  '2002::/16', // 6to4, which holds an IPv4 address
  '3fff::/20', // documentation
].map(required);

/** IPv6 addresses that stand for an IPv4 one in their last four bytes. */
const embedding = ['::ffff:0:0/96', '64:ff9b::/96'].map(required);

/** Says of an IP address whether deliveries may go there. */
export interface Targets {
  /** False as well for what is no IP address. */
  permits(address: string): boolean;
}

/** `allowed`: networks that are let in although they are not public; see `parseNetworks`. */
export function createTargets(allowed: string): Targets {
  const exceptions = parseNetworks(allowed) ?? [];
  return {
    permits(address) {
      const bytes = unembedded(addressBytes(address));
      if (bytes === undefined) return false;
      return exceptions.some((network) => contains(network, bytes)) || isPublic(bytes);
    },
  };
}

/** Comma-separated networks (`10.0.0.0/8, fd00::/8`) and addresses; undefined when one of them is neither. */
export function parseNetworks(text: string): readonly Network[] | undefined {
  const networks: Network[] = [];
  for (const part of text.split(',')) {
    if (part.trim() === '') continue;
    const network = parseNetwork(part.trim());
    if (network === undefined) return undefined;
    networks.push(network);
  }
  return networks;
}

function isPublic(bytes: readonly number[]): boolean {
  const forbidden = bytes.length === 4 ? forbiddenIPv4 : forbiddenIPv6;
  if (bytes.length === 16 && !contains(globalIPv6, bytes)) return false;
  return !forbidden.some((network) => contains(network, bytes));
}

function parseNetwork(text: string): Network | undefined {
  const [address = '', bits, ...more] = text.split('/');
  const bytes = addressBytes(address);
  if (bytes === undefined || more.length > 0) return undefined;
  const all = bytes.length * 8;
  if (bits === undefined) return { bytes, bits: all };
  if (!/^\d{1,3}$/.test(bits) || Number(bits) > all) return undefined;
  return { bytes, bits: Number(bits) };
}

function required(text: string): Network {
  const network = parseNetwork(text);
  if (network === undefined) throw new Error(`${text} is no network`);
  return network;
}

function contains({ bytes, bits }: Network, address: readonly number[]): boolean {
  if (bytes.length !== address.length) return false;
  return bytes.every((byte, index) => {
    const left = Math.min(8, Math.max(0, bits - index * 8));
    const mask = (0xff << (8 - left)) & 0xff;
    return (byte & mask) === ((address[index] ?? 0) & mask);
  });
}

function unembedded(bytes: readonly number[] | undefined): readonly number[] | undefined {
  if (bytes === undefined || !embedding.some((network) => contains(network, bytes))) return bytes;
  return bytes.slice(12);
}

/** The bytes of an IP address in any of its spellings (RFC 4291, section 2.2); a zone (`%eth0`) is left out. */
function addressBytes(text: string): readonly number[] | undefined {
  const [address = ''] = text.split('%');
  if (isIP(address) === 0) return undefined;
  if (isIPv4(address)) return address.split('.').map(Number);
  const [head = '', tail] = address.split('::');
  const front = groups(head);
  const back = groups(tail ?? '');
  const between = Array.from({ length: 8 - front.length - back.length }, () => 0);
  return [...front, ...between, ...back].flatMap((group) => [group >> 8, group & 0xff]);
}

/** The 16-bit groups of one side of `::`; the last may be written as an IPv4 address. */
function groups(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((part) => {
    if (!part.includes('.')) return [Number.parseInt(part, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = part.split('.').map(Number);
    return [(a << 8) | b, (c << 8) | d];
  });
}
