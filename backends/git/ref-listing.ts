import { QuorateError } from '../contract/errors.js';
import type { Head, ObjectFormat, RefEntry } from '../contract/objects.js';
import { isZero } from './ref-commands.js';

/**
 * `ls-refs` of gitprotocol-v2, as a client of our own git: the one listing that gives values, full peeling (through
 * tags of tags), symbolic refs and an unborn HEAD in one process, from packed-refs where it can.
 *
 *   output = *ref flush-pkt
 *   ref = PKT-LINE((oid / "unborn") SP refname *(SP attribute) LF)
 *   attribute = "symref-target:" refname / "peeled:" oid
 */
export function writeListRequest(objectFormat: ObjectFormat): Buffer {
  const lines = ['command=ls-refs\n', `object-format=${objectFormat}\n`];
  const args = ['peel\n', 'symrefs\n', 'unborn\n'];
  return Buffer.from(`${lines.map(packet).join('')}0001${args.map(packet).join('')}0000`, 'latin1');
}

function packet(line: string): string {
  return (line.length + 4).toString(16).padStart(4, '0') + line;
}

export interface RefListing {
  /** Undefined when HEAD is neither a branch nor an object that exists. */
  readonly head: Head | undefined;
  readonly refs: readonly RefEntry[];
}

/** Throws `storage-failure` for anything that is not a whole answer. */
export function parseRefListing(output: Buffer): RefListing {
  const refs: RefEntry[] = [];
  let head: Head | undefined;
  let offset = 0;
  for (;;) {
    const digits = output.toString('latin1', offset, offset + 4);
    if (digits === '0000') return { head, refs };
    const length = /^[0-9a-f]{4}$/.test(digits) ? Number.parseInt(digits, 16) : 0;
    if (length <= 4 || offset + length > output.length) throw cutShort();
    const start = offset + 4;
    const end = offset + length - 1;
    const line = output.toString('utf8', start, end);
    offset += length;
    const entry = parseLine(line);
    // git lists refs that it cannot read, and ones with impossible names, with an object id of zeros.
    if (entry.name === 'HEAD') head = headOf(entry);
    else if (isZero(entry.oid)) continue;
    else if (isUtf8(line, output.subarray(start, end))) refs.push(refOf(entry));
  }
}

/** Decoding puts U+FFFD for what is not UTF-8; a name may also hold that character itself. */
function isUtf8(text: string, bytes: Buffer): boolean {
  return !text.includes('\u{fffd}') || Buffer.from(text).equals(bytes);
}

interface Line {
  readonly oid: string;
  readonly name: string;
  symref?: string;
  peeled?: string;
}

/** Ref names hold no space, so that every space separates. */
function parseLine(line: string): Line {
  const [oid = '', name = '', ...attributes] = line.split(' ');
  const entry: Line = { oid, name };
  for (const attribute of attributes) {
    const colon = attribute.indexOf(':');
    const value = attribute.slice(colon + 1);
    if (attribute.startsWith('symref-target:')) entry.symref = value;
    else if (attribute.startsWith('peeled:')) entry.peeled = value;
  }
  return entry;
}

function headOf({ oid, symref }: Line): Head | undefined {
  if (symref !== undefined) return { symref };
  return isZero(oid) ? undefined : { oid };
}

function refOf({ oid, name, symref, peeled }: Line): RefEntry {
  return {
    name,
    oid,
    ...(peeled === undefined ? {} : { peeled }),
    ...(symref === undefined ? {} : { symref }),
  };
}

function cutShort(): QuorateError {
  return new QuorateError('storage-failure', 'the list of refs was cut short');
}
