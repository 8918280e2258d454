/*
 * The reference advertisement of protocol v0 and v1 (gitprotocol-pack(5), "Reference Discovery").
 *
 *   advertised-refs = [version] (no-refs / list-of-refs) *shallow flush-pkt
 *   version         = PKT-LINE("version 1" LF)                              ; v1 only
 *   no-refs         = PKT-LINE(zero-id SP "capabilities^{}" NUL capability-list LF)
 *   list-of-refs    = first-ref *other-ref
 *   first-ref       = PKT-LINE(obj-id SP refname NUL capability-list LF)
 *   other-ref       = PKT-LINE(obj-id SP refname LF) / PKT-LINE(obj-id SP refname "^{}" LF)
 *   shallow         = PKT-LINE("shallow" SP obj-id LF)
 */
import { parseCapabilities, writeCapabilities, type Capability } from './capabilities.js';
import { parseOid } from './oid.js';
import { parseErrorPkt, parsePktText, pktText, type PktReader } from './pkt-line.js';
import { excerpt, WireError } from './wire-error.js';

export interface AdvertisedRef {
  readonly name: string;
  readonly oid: string;
  /** What the annotated tag finally points at: a `^{}` line of its own. */
  readonly peeled?: string;
}

export interface RefAdvertisement {
  readonly version: 0 | 1;
  readonly capabilities: readonly Capability[];
  /** In the order sent, `HEAD` first where there is one. */
  readonly refs: readonly AdvertisedRef[];
  readonly shallow: readonly string[];
}

/** The first line of a v1 answer. */
export const versionOneLine = pktText('version 1\n');

/** One ref's lines. `capabilities` go with the first ref of an advertisement. */
export function writeAdvertisedRef(
  ref: AdvertisedRef,
  capabilities?: readonly Capability[],
): string {
  const list = capabilities === undefined ? '' : `\0${writeCapabilities(capabilities)}`;
  const line = pktText(`${ref.oid} ${ref.name}${list}\n`);
  return ref.peeled === undefined ? line : `${line}${pktText(`${ref.peeled} ${ref.name}^{}\n`)}`;
}

/** The line that carries the capabilities where there is no ref to do so. `zeroOid` has the format's length. */
export function writeNoRefs(zeroOid: string, capabilities: readonly Capability[]): string {
  return writeAdvertisedRef({ name: 'capabilities^{}', oid: zeroOid }, capabilities);
}

/** The whole advertisement. `zeroOid` stands in where there is no ref. */
export function writeRefAdvertisement(advertisement: RefAdvertisement, zeroOid: string): string {
  const { version, capabilities, refs, shallow } = advertisement;
  const lines = [version === 1 ? versionOneLine : ''];
  if (refs.length === 0) lines.push(writeNoRefs(zeroOid, capabilities));
  for (const [index, ref] of refs.entries()) {
    lines.push(writeAdvertisedRef(ref, index === 0 ? capabilities : undefined));
  }
  for (const oid of shallow) lines.push(pktText(`shallow ${oid}\n`));
  return `${lines.join('')}0000`;
}

/** Reads up to and with the flush. Throws WireError; an `ERR` packet becomes `unsupported` with its message. */
export async function readRefAdvertisement(reader: PktReader): Promise<RefAdvertisement> {
  let version: 0 | 1 = 0;
  let capabilities: readonly Capability[] | undefined;
  const refs: AdvertisedRef[] = [];
  const shallow: string[] = [];
  for (;;) {
    const pkt = await reader.read();
    if (pkt === undefined) throw new WireError('truncated', 'the advertisement is cut off');
    if (pkt.type === 'flush') return { version, capabilities: capabilities ?? [], refs, shallow };
    if (pkt.type !== 'data') throw new WireError('malformed', `unexpected ${pkt.type} packet`);
    const message = parseErrorPkt(pkt.payload);
    if (message !== undefined) throw new WireError('unsupported', message);
    const text = parsePktText(pkt.payload);
    if (capabilities === undefined && refs.length === 0 && text === 'version 1') {
      version = 1;
    } else if (text.startsWith('shallow ')) {
      shallow.push(parseOid(text.slice(8)));
    } else {
      const line = parseRefLine(text);
      capabilities ??= line.capabilities ?? [];
      addRef(refs, line);
    }
  }
}

function parseRefLine(
  text: string,
): AdvertisedRef & { readonly capabilities?: readonly Capability[] } {
  const match = /^([0-9a-f]+) ([^\0]+)(?:\0(.*))?$/s.exec(text);
  const [, oid, name, list] = match ?? [];
  if (oid === undefined || name === undefined) {
    throw new WireError('malformed', `bad ref line '${excerpt(text)}'`);
  }
  const ref = { oid: parseOid(oid), name };
  return list === undefined ? ref : { ...ref, capabilities: parseCapabilities(list) };
}

function addRef(refs: AdvertisedRef[], { name, oid }: AdvertisedRef): void {
  if (name === 'capabilities^{}') return;
  if (!name.endsWith('^{}')) {
    refs.push({ name, oid });
    return;
  }
  const tag = refs.pop();
  if (tag === undefined || `${tag.name}^{}` !== name) {
    throw new WireError('malformed', `peeled line without its tag '${excerpt(name)}'`);
  }
  refs.push({ ...tag, peeled: oid });
}
