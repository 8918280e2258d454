/** Git's own nouns, as every layer passes them. */

/** Lower-case hexadecimal object id: 40 digits (sha1) or 64 (sha256). */
export type Oid = string;
export type ObjectFormat = 'sha1' | 'sha256';
export type ObjectType = 'commit' | 'tree' | 'blob' | 'tag';

/** One ref of a snapshot. Names are full (`refs/heads/main`); HEAD is not among them. */
export interface RefEntry {
  readonly name: string;
  readonly oid: Oid;
  /** What an annotated tag finally points at; absent for anything else. */
  readonly peeled?: Oid;
  /** Set when the ref is symbolic: the full name it points to. `oid` is then the resolved value. */
  readonly symref?: string;
}

/** HEAD: the branch it names (born or not), or a detached object id. */
export type Head = { readonly symref: string } | { readonly oid: Oid };

/** All refs of a repository at one generation. Immutable. Sorted by name, bytewise, as git sorts. */
export interface RefSnapshot {
  /** The generation that this is; the directory backend, which has none, counts reads. */
  readonly generation: number;
  readonly head: Head;
  readonly refs: readonly RefEntry[];
  find(name: string): RefEntry | undefined;
  /** Index range [start, end) in `refs` of the names that start with `prefix`. O(log n). */
  prefixRange(prefix: string): readonly [number, number];
  /** True when some ref's value (not its peeled value) is this object. O(1) after first use. */
  hasTip(oid: Oid): boolean;
}

/** A command of a push: create when `oldOid` is all zeros, delete when `newOid` is. */
export interface RefCommand {
  readonly ref: string;
  readonly oldOid: Oid;
  readonly newOid: Oid;
}
