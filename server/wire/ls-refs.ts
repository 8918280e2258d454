/*
 * v2 `ls-refs` (gitprotocol-v2(5)).
 *
 *   args   = *( "peel" / "symrefs" / "unborn" / "ref-prefix" SP prefix )
 *   output = *ref flush-pkt
 *   ref    = PKT-LINE((obj-id / "unborn") SP refname *(SP ref-attribute) LF)
 *   ref-attribute = "symref-target:" refname / "peeled:" obj-id
 */
import { parseOid } from './oid.js';
import { parseErrorPkt, parsePktText, pktText, type PktReader } from './pkt-line.js';
import { excerpt, WireError } from './wire-error.js';

export interface LsRefsRequest {
  readonly peel: boolean;
  readonly symrefs: boolean;
  readonly unborn: boolean;
  /** Empty: every ref. */
  readonly prefixes: readonly string[];
}

export interface LsRefsLine {
  /** Undefined for an unborn ref (HEAD alone). */
  readonly oid?: string;
  readonly name: string;
  readonly symrefTarget?: string;
  readonly peeled?: string;
}

/** Beyond this many prefixes git answers with everything, and the client filters; so do we. */
const maxPrefixes = 65_536;

/** Throws WireError `malformed` for an argument that git does not know either. */
export function parseLsRefsArguments(args: readonly string[]): LsRefsRequest {
  let [peel, symrefs, unborn] = [false, false, false];
  let prefixes: string[] = [];
  let overflow = false;
  for (const arg of args) {
    if (arg === 'peel') peel = true;
    else if (arg === 'symrefs') symrefs = true;
    else if (arg === 'unborn') unborn = true;
    else if (arg.startsWith('ref-prefix ')) {
      if (prefixes.length < maxPrefixes) prefixes.push(arg.slice(11));
      else overflow = true;
    } else throw new WireError('malformed', `unexpected line: '${excerpt(arg)}'`);
  }
  if (overflow) prefixes = [];
  return { peel, symrefs, unborn, prefixes };
}

export function writeLsRefsArguments(request: LsRefsRequest): readonly string[] {
  const flags = (['peel', 'symrefs', 'unborn'] as const).filter((flag) => request[flag]);
  return [...flags, ...request.prefixes.map((prefix) => `ref-prefix ${prefix}`)];
}

export function writeLsRefsLine({ oid, name, symrefTarget, peeled }: LsRefsLine): string {
  const symref = symrefTarget === undefined ? '' : ` symref-target:${symrefTarget}`;
  const peel = peeled === undefined ? '' : ` peeled:${peeled}`;
  return pktText(`${oid ?? 'unborn'} ${name}${symref}${peel}\n`);
}

/** Reads a response up to and with its flush. Throws WireError. */
export async function readLsRefsResponse(reader: PktReader): Promise<readonly LsRefsLine[]> {
  const lines: LsRefsLine[] = [];
  for (;;) {
    const pkt = await reader.read();
    if (pkt === undefined) throw new WireError('truncated', 'the response is cut off');
    if (pkt.type === 'flush') return lines;
    if (pkt.type !== 'data') throw new WireError('malformed', `unexpected ${pkt.type} packet`);
    const message = parseErrorPkt(pkt.payload);
    if (message !== undefined) throw new WireError('unsupported', message);
    lines.push(parseLsRefsLine(parsePktText(pkt.payload)));
  }
}

function parseLsRefsLine(text: string): LsRefsLine {
  const [id, name, ...attributes] = text.split(' ');
  if (id === undefined || name === undefined || name === '') {
    throw new WireError('malformed', `bad ls-refs line '${excerpt(text)}'`);
  }
  const symrefTarget = attribute(attributes, 'symref-target:');
  const peeled = attribute(attributes, 'peeled:');
  return {
    ...(id === 'unborn' ? {} : { oid: parseOid(id) }),
    name,
    ...(symrefTarget === undefined ? {} : { symrefTarget }),
    ...(peeled === undefined ? {} : { peeled: parseOid(peeled) }),
  };
}

function attribute(attributes: readonly string[], key: string): string | undefined {
  return attributes.find((text) => text.startsWith(key))?.slice(key.length);
}
