import { z } from 'zod';
import { QuorateError } from '../contract/errors.js';
import type { Head, RefEntry, RefSnapshot } from '../contract/objects.js';
import { createRefSnapshot } from '../git/ref-snapshot.js';
import { compareBytewise } from '../git/ref-order.js';

/** A snapshot that both sides may know, by what is in it. */
export const knownSchema = z.object({ generation: z.int().min(0), digest: z.string() });
export type KnownSnapshot = z.infer<typeof knownSchema>;

const headSchema = z.union([z.object({ symref: z.string() }), z.object({ oid: z.string() })]);

/** How a snapshot comes: as one that the caller knows, as what changed since one, or whole. */
export const snapshotIntroduction = z.object({
  generation: z.int().min(0),
  digest: z.string(),
  head: headSchema,
  from: z.enum(['known', 'difference', 'nothing']),
  /** Digest of the snapshot that the difference is from. */
  base: z.string().optional(),
});
export type SnapshotIntroduction = z.infer<typeof snapshotIntroduction>;

/** name, value, peeled value, target: as in `RefEntry`; null for what is not there. */
export const refTuple = z.tuple([
  z.string(),
  z.string(),
  z.string().nullable(),
  z.string().nullable(),
]);
export const snapshotPart = z.object({
  refs: z.array(refTuple),
  removed: z.array(z.string()).optional(),
});
export type SnapshotPart = z.infer<typeof snapshotPart>;

/** Refs in one message: some 100 KiB, a millisecond to write or read, so that nothing else waits long. */
const refsPerPart = 1000;

export function* partsOf(refs: readonly RefEntry[]): Generator<SnapshotPart> {
  for (let from = 0; from < refs.length; from += refsPerPart) {
    yield { refs: refs.slice(from, from + refsPerPart).map(encodeRef) };
  }
}

export function encodeRef({ name, oid, peeled, symref }: RefEntry): SnapshotPart['refs'][number] {
  return [name, oid, peeled ?? null, symref ?? null];
}

export function decodeRefs({ refs }: SnapshotPart): readonly RefEntry[] {
  return refs.map(([name, oid, peeled, symref]) => ({
    name,
    oid,
    ...(peeled === null ? {} : { peeled }),
    ...(symref === null ? {} : { symref }),
  }));
}

/** What makes `to` of `from`. */
export function* difference(from: RefSnapshot, to: RefSnapshot): Generator<SnapshotPart> {
  let changed: RefEntry[] = [];
  let removed: string[] = [];
  const old = from.refs;
  let at = 0;
  for (const entry of to.refs) {
    while (comparedNames(old[at], entry) < 0) {
      removed.push(old[at]?.name ?? '');
      at += 1;
    }
    const before = comparedNames(old[at], entry) === 0 ? old[at] : undefined;
    if (before !== undefined) at += 1;
    if (before === undefined || !sameRef(before, entry)) changed.push(entry);
    if (changed.length + removed.length >= refsPerPart) {
      yield { refs: changed.map(encodeRef), removed };
      changed = [];
      removed = [];
    }
  }
  for (const { name } of old.slice(at)) removed.push(name);
  for (let next = 0; next < removed.length; next += refsPerPart) {
    yield { refs: [], removed: removed.slice(next, next + refsPerPart) };
  }
  yield { refs: changed.map(encodeRef) };
}

/** Negative when the old ref's name comes before that of the new one. */
function comparedNames(old: RefEntry | undefined, entry: RefEntry): number {
  if (old === undefined) return 1;
  return old === entry ? 0 : compareBytewise(old.name, entry.name);
}

/** Snapshots of one store share what did not change. */
function sameRef(one: RefEntry, other: RefEntry): boolean {
  return (
    one === other ||
    (one.oid === other.oid && one.peeled === other.peeled && one.symref === other.symref)
  );
}

/** Puts a snapshot together from its parts. */
export class SnapshotAssembly {
  readonly #introduction: SnapshotIntroduction;
  readonly #base: RefSnapshot | undefined;
  readonly #refs: RefEntry[] = [];
  readonly #removed = new Set<string>();

  /** `base`: the snapshot that the introduction names, where it names one. */
  constructor(introduction: SnapshotIntroduction, base: RefSnapshot | undefined) {
    if (introduction.from !== 'nothing' && base === undefined) {
      throw new QuorateError('internal', 'a node answered with a snapshot that was not offered');
    }
    this.#introduction = introduction;
    this.#base = base;
  }

  add(part: SnapshotPart): void {
    for (const ref of decodeRefs(part)) this.#refs.push(ref);
    for (const name of part.removed ?? []) this.#removed.add(name);
  }

  finish(): RefSnapshot {
    const { generation, from } = this.#introduction;
    const head: Head = this.#introduction.head;
    if (from === 'known' && this.#base?.generation === generation) return this.#base;
    if (from === 'nothing') return createRefSnapshot({ generation, head, refs: this.#refs });
    return createRefSnapshot({ generation, head, refs: this.#merged() });
  }

  #merged(): readonly RefEntry[] {
    const old = this.#base?.refs ?? [];
    const changed = this.#refs;
    const merged: RefEntry[] = [];
    let at = 0;
    for (const entry of old) {
      for (let next = changed[at]; next !== undefined; next = changed[at]) {
        if (compareBytewise(next.name, entry.name) >= 0) break;
        merged.push(next);
        at += 1;
      }
      if (changed[at]?.name === entry.name) continue;
      if (!this.#removed.has(entry.name)) merged.push(entry);
    }
    return [...merged, ...changed.slice(at)];
  }
}
