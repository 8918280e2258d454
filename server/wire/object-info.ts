/*
 * v2 `object-info` (gitprotocol-v2(5)).
 *
 *   args   = *( "size" / "oid" SP obj-id )
 *   output = [PKT-LINE("size")] *PKT-LINE(obj-id SP [obj-size]) flush-pkt
 *
 * As git 2.39 writes it: no line feeds, and an empty size for an object that is not there.
 */
import { parseOid } from './oid.js';
import { parsePktText, pktText, type PktReader } from './pkt-line.js';
import { excerpt, WireError } from './wire-error.js';

export interface ObjectInfoRequest {
  readonly size: boolean;
  readonly oids: readonly string[];
}

export interface ObjectInfo {
  readonly oid: string;
  readonly sizeBytes: number | undefined;
}

/** Throws WireError: `malformed`, or `too-large` beyond `maxOids`. */
export function parseObjectInfoArguments(
  args: readonly string[],
  maxOids: number,
): ObjectInfoRequest {
  let size = false;
  const oids: string[] = [];
  for (const arg of args) {
    if (arg === 'size') size = true;
    else if (arg.startsWith('oid ')) oids.push(parseOid(arg.slice(4)));
    else throw new WireError('malformed', `unexpected line: '${excerpt(arg)}'`);
  }
  if (oids.length > maxOids) throw new WireError('too-large', `more than ${maxOids} objects asked`);
  return { size, oids };
}

export function writeObjectInfoArguments({ size, oids }: ObjectInfoRequest): readonly string[] {
  return [...(size ? ['size'] : []), ...oids.map((oid) => `oid ${oid}`)];
}

/** The whole answer of a request that asked for sizes. */
export function writeObjectInfo(objects: readonly ObjectInfo[]): string {
  const lines = objects.map(({ oid, sizeBytes }) => pktText(`${oid} ${sizeBytes ?? ''}`));
  return `${pktText('size')}${lines.join('')}0000`;
}

/** Reads such an answer up to and with its flush. Throws WireError. */
export async function readObjectInfo(reader: PktReader): Promise<readonly ObjectInfo[]> {
  const objects: ObjectInfo[] = [];
  for (let first = true; ; first = false) {
    const pkt = await reader.read();
    if (pkt === undefined) throw new WireError('truncated', 'the response is cut off');
    if (pkt.type === 'flush') return objects;
    if (pkt.type !== 'data') throw new WireError('malformed', `unexpected ${pkt.type} packet`);
    const text = parsePktText(pkt.payload);
    if (first && text === 'size') continue;
    const [, oid, size] = /^([0-9a-f]+) (\d{0,15})$/.exec(text) ?? [];
    if (oid === undefined) throw new WireError('malformed', `bad line '${excerpt(text)}'`);
    objects.push({ oid: parseOid(oid), sizeBytes: size === '' ? undefined : Number(size) });
  }
}
