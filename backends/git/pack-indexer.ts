import type { ObjectFormat, Oid } from '../contract/objects.js';

export interface IndexPackRequest {
  /** Bytes of one pack, thin or not. */
  readonly pack: AsyncIterable<Uint8Array>;
  /** Where `pack-<hash>.pack` and `.idx` are written: an existing, empty directory. */
  readonly quarantinePackDir: string;
  /** `objects` of the repository: bases of a thin pack are looked up there. */
  readonly objectsDir: string;
  readonly objectFormat: ObjectFormat;
  /** 0: no limit. Beyond it: `resource-exhausted`. */
  readonly maxPackBytes: number;
  /** Largest inflated object; 0: no limit. */
  readonly maxObjectBytes: number;
  readonly fsck: { readonly enabled: boolean; readonly ignore: readonly string[] };
  readonly signal: AbortSignal;
  /** Text for the pusher (side-band 2): git's own progress lines for large packs. */
  readonly progress: (text: Uint8Array) => void;
  /** What is `unsynced` afterwards the caller syncs, beside other work. */
  readonly syncsLater?: true;
}

export interface IndexedPack {
  /** `pack-<hash>`, the common name of the files; undefined when the pack held no object (nothing is left then). */
  readonly name: string | undefined;
  readonly objectCount: number;
  readonly sizeBytes: number;
  readonly engine: 'libgit2' | 'git';
  /** Names of all files in the directory. Absent: unknown. */
  readonly files?: readonly string[];
  /** Paths of what is not on disk yet; only for a caller that syncs them. */
  readonly unsynced?: readonly string[];
  /**
   * The pack's commits and tags, and commits and tags outside it: if all that the latter reach is there, so is all
   * that the former reach. Absent when that was not plain, and a walk has to find out.
   */
  readonly closure?: {
    readonly commits: readonly Oid[];
    readonly tags: readonly Oid[];
    readonly boundary: readonly Oid[];
  };
  /** Whatever an object of the pack names is in the pack as well, so that each of them is complete. Absent: unknown. */
  readonly selfContained?: true;
}

/**
 * Indexes packs into quarantines: small ones by libgit2 in a worker process, large ones by `git index-pack`.
 * On return both files and their directory are on disk (fsync), unless the caller sees to that. On rejection (`invalid-argument` with git's own words
 * for a bad pack or fsck finding, `resource-exhausted`, `cancelled`, `storage-failure`) the directory is empty.
 */
export interface PackIndexer {
  index(request: IndexPackRequest): Promise<IndexedPack>;
  /** `libgit2 1.5.1 + git 2.39.5`, or `git 2.39.5 (libgit2 not found)`. */
  readonly description: string;
  readonly queued: number;
  close(): Promise<void>;
}
