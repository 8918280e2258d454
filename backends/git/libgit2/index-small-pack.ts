import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ObjectType } from '../../contract/objects.js';
import type { KeptStores } from './kept-stores.js';
import type { Libgit2, ObjectStore } from './library.js';
import type { IndexJob, Verdict } from './messages.js';
import {
  attributesAreFine,
  recogniseCommit,
  recogniseTag,
  recogniseTree,
  type Link,
  type Recognised,
  type Undecided,
} from './object-rules.js';
import { findClosure, type PackedHistory } from './pack-closure.js';
import {
  declaredObjectCount,
  entryEndsAt,
  entryHeader,
  readPackIndex,
  type PackedObject,
} from './pack-format.js';

const CHECKSUM_BYTES = 20;
/** A larger object in a small pack is unusual, or a bomb: git, which needs less memory for it, may look at it. */
const MAX_OBJECT_BYTES = 64 * 1024 ** 2;
/** Links out of the pack that are looked up, 10 to 20 microseconds each: beyond, git's threads are as fast. */
const MAX_OUTSIDE_LINKS = 20_000;

/** Thrown to give the pack to git; caught in `indexSmallPack`. */
class GiveUp extends Error {}

class TooLarge extends Error {
  constructor(readonly objectBytes: number) {
    super('object too large');
  }
}

/**
 * Indexes a pack and checks what git would check, or gives up. Gives up whenever something is not recognised as
 * right, since git then judges; so an `indexed` is certain and an `undecided` costs only time. Files may be left
 * behind after `undecided` and `too-large`.
 */
export function indexSmallPack(library: Libgit2, kept: KeptStores, job: IndexJob): Verdict {
  let quarantine: ObjectStore | undefined;
  try {
    const pack = Buffer.from(job.pack.buffer, job.pack.byteOffset, job.pack.byteLength);
    const repository = kept.get(job.objectsDir);
    repository.indexPack(job.quarantinePackDir, pack);
    const { name, objects } = readIndex(job.quarantinePackDir);
    requireNothingHidden(pack, objects);
    quarantine = library.openStore(dirname(job.quarantinePackDir));
    const inspected = inspectObjects({ quarantine, pack, objects, job });
    if (job.fsck) checkLinks({ quarantine, repository }, inspected);
    const closure = job.fsck ? findClosure(inspected, { quarantine, repository }) : undefined;
    const sizeBytes = statSync(join(job.quarantinePackDir, `${name}.pack`)).size;
    return {
      kind: 'indexed',
      name,
      objectCount: objects.length,
      sizeBytes,
      ...(closure === undefined ? {} : { closure }),
    };
  } catch (error) {
    kept.drop(job.objectsDir);
    if (error instanceof TooLarge) return { kind: 'too-large', objectBytes: error.objectBytes };
    return { kind: 'undecided', reason: error instanceof Error ? error.message : String(error) };
  } finally {
    quarantine?.close();
  }
}

function readIndex(packDir: string): { name: string; objects: readonly PackedObject[] } {
  const indexes = readdirSync(packDir).filter((file) => file.endsWith('.idx'));
  const [file] = indexes;
  if (file === undefined || indexes.length !== 1) throw new GiveUp('no index was written');
  const objects = readPackIndex(readFileSync(join(packDir, file)));
  if (objects === undefined) throw new GiveUp('unknown index version');
  return { name: file.slice(0, -'.idx'.length), objects };
}

/**
 * Bytes between the last object and the checksum would stay in the store. libgit2 1.5 finds them by itself; that the
 * other versions do is not known.
 */
function requireNothingHidden(pack: Buffer, objects: readonly PackedObject[]): void {
  const end = pack.length - CHECKSUM_BYTES;
  let count = 0;
  let last = 0;
  for (const { offset } of objects) {
    if (offset >= end) continue; // A base that completes a thin pack.
    count += 1;
    last = Math.max(last, offset);
  }
  if (count !== declaredObjectCount(pack)) throw new GiveUp('object count');
  if (!entryEndsAt(pack, last, end, MAX_OBJECT_BYTES)) throw new GiveUp('end of the last object');
}

interface Inspected extends PackedHistory {
  readonly links: ReadonlyMap<string, ObjectType>;
  readonly attributes: ReadonlySet<string>;
}

/**
 * Reads every object of the pack back from the quarantine. libgit2 compares the content with the id then, and its
 * length with the declared one, which its indexer does not.
 */
function inspectObjects(options: {
  readonly quarantine: ObjectStore;
  readonly pack: Buffer;
  readonly objects: readonly PackedObject[];
  readonly job: IndexJob;
}): Inspected {
  const { quarantine, pack, objects, job } = options;
  const types = new Map<string, ObjectType>();
  const commits = new Map<string, readonly string[]>();
  const tags = new Map<string, string>();
  const links = new Map<string, ObjectType>();
  const attributes = new Set<string>();
  for (const { oid, offset } of objects) {
    if (offset >= pack.length - CHECKSUM_BYTES) continue;
    const entry = entryHeader(pack, offset);
    if (entry === undefined) throw new GiveUp('entry header');
    const { type, sizeBytes } =
      entry.kind === 'delta'
        ? resolveDelta(quarantine, oid)
        : { type: entry.kind, sizeBytes: entry.sizeBytes };
    if (sizeBytes > MAX_OBJECT_BYTES) throw new GiveUp('large object');
    const recognised = quarantine.read(oid, (content) =>
      job.fsck ? recognise(type, content) : nothingNamed,
    );
    if ('undecided' in recognised) throw new GiveUp(recognised.undecided);
    // Only now is the size more than a claim.
    if (job.maxObjectBytes > 0 && sizeBytes > job.maxObjectBytes) throw new TooLarge(sizeBytes);
    const name = oid.toString('hex');
    types.set(name, type);
    const targets = recognised.links.map((link) => link.oid);
    if (type === 'commit') commits.set(name, targets);
    if (type === 'tag') tags.set(name, targets[0] ?? '');
    for (const link of recognised.links) addLink(links, link);
    for (const blob of recognised.attributes) attributes.add(blob);
  }
  return { types, commits, tags, links, attributes };
}

const nothingNamed: Recognised = { links: [], attributes: [] };

function resolveDelta(store: ObjectStore, oid: Buffer): { type: ObjectType; sizeBytes: number } {
  const header = store.header(oid);
  if (header === undefined) throw new GiveUp('unreadable delta');
  return header;
}

function recognise(type: ObjectType, content: Buffer): Recognised | Undecided {
  switch (type) {
    case 'commit':
      return recogniseCommit(content);
    case 'tree':
      return recogniseTree(content);
    case 'tag':
      return recogniseTag(content);
    case 'blob':
      return nothingNamed;
  }
}

function addLink(links: Map<string, ObjectType>, link: Link): void {
  const known = links.get(link.oid);
  if (known !== undefined && known !== link.type) throw new GiveUp('one object, two types');
  links.set(link.oid, link.type);
}

/** As `index-pack --strict`: what the pack's objects name is there and of the right type. */
function checkLinks(
  stores: { readonly quarantine: ObjectStore; readonly repository: ObjectStore },
  inspected: Inspected,
): void {
  let outside = 0;
  for (const [oid, type] of inspected.links) {
    let found = inspected.types.get(oid);
    if (found === undefined) {
      outside += 1;
      if (outside > MAX_OUTSIDE_LINKS) throw new GiveUp('many links');
      found = stores.repository.header(Buffer.from(oid, 'hex'))?.type;
    }
    if (found !== type) throw new GiveUp('broken link');
  }
  for (const oid of inspected.attributes) {
    const store = inspected.types.has(oid) ? stores.quarantine : stores.repository;
    const id = Buffer.from(oid, 'hex');
    const header = store.header(id);
    if (header === undefined || header.sizeBytes > MAX_OBJECT_BYTES) throw new GiveUp('attributes');
    if (!store.read(id, attributesAreFine)) throw new GiveUp('attributes');
  }
}
