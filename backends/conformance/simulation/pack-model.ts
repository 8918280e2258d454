import { hash } from 'node:crypto';
import { QuorateError } from '../../contract/errors.js';
import type { Oid } from '../../contract/objects.js';

/**
 * Objects of the simulated git: commits with parents and tags with a target; trees and blobs would add nothing to what
 * is looked for. A pack is a line for each object and a checksum, so that damage shows.
 */
export interface ModelObject {
  readonly oid: Oid;
  readonly type: 'commit' | 'tag';
  /** Parents, or the one target. */
  readonly links: readonly Oid[];
}

export const zeroOid: Oid = '0'.repeat(40);

/** `salt` makes objects with the same links differ. */
export function makeObject(
  type: ModelObject['type'],
  links: readonly Oid[],
  salt: string,
): ModelObject {
  const oid = hash('sha1', [type, ...links, salt].join(' '));
  return { oid, type, links };
}

export function encodePack(objects: readonly ModelObject[]): Buffer {
  const lines = objects.map(({ oid, type, links }) => `${[oid, type, ...links].join(' ')}\n`);
  const body = lines.join('');
  return Buffer.from(`${body}${checksum(body)}\n`, 'latin1');
}

/** Undefined for what is no whole pack. */
export function decodePack(bytes: Buffer): readonly ModelObject[] | undefined {
  const lines = bytes.toString('latin1').split('\n');
  const trailer = lines.at(-2);
  const body = lines
    .slice(0, -2)
    .map((line) => `${line}\n`)
    .join('');
  if (lines.at(-1) !== '' || trailer !== checksum(body)) return undefined;
  return lines.slice(0, -2).map((line): ModelObject => {
    const [oid = '', type, ...links] = line.split(' ');
    return { oid, type: type === 'tag' ? 'tag' : 'commit', links };
  });
}

/** The checksum of a pack or an index is that of its lines. */
export function isWhole(bytes: Buffer): boolean {
  const text = bytes.toString('latin1');
  const end = text.lastIndexOf('\n', text.length - 2) + 1;
  return text.endsWith('\n') && text.slice(end, -1) === checksum(text.slice(0, end));
}

/** As git names packs: by what is in them. */
export function packName(objects: readonly ModelObject[]): string {
  const oids = objects.map(({ oid }) => oid).sort();
  return `pack-${checksum(oids.join('\n'))}`;
}

export function encodeIndex(objects: readonly ModelObject[]): Buffer {
  const body = objects.map(({ oid }) => `${oid}\n`).join('');
  return Buffer.from(`${body}${checksum(body)}\n`, 'latin1');
}

function checksum(text: string): string {
  return hash('sha1', text);
}

/** Everything that can be reached, or undefined when some of it is missing. Stops at what is in `known`. */
export function closureOf(
  tips: Iterable<Oid>,
  find: (oid: Oid) => ModelObject | undefined,
  known: ReadonlySet<Oid> = new Set(),
): Map<Oid, ModelObject> | undefined {
  const found = new Map<Oid, ModelObject>();
  const open = [...tips];
  for (let oid = open.pop(); oid !== undefined; oid = open.pop()) {
    if (found.has(oid) || known.has(oid)) continue;
    const object = find(oid);
    if (object === undefined) return undefined;
    found.set(oid, object);
    open.push(...object.links);
  }
  return found;
}

export async function readPack(pack: AsyncIterable<Uint8Array>): Promise<readonly ModelObject[]> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of pack) chunks.push(chunk);
  const objects = decodePack(Buffer.concat(chunks));
  if (objects === undefined) throw new QuorateError('invalid-argument', 'the pack is damaged');
  return objects;
}
