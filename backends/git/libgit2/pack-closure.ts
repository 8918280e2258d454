import type { ObjectType } from '../../contract/objects.js';
import type { ObjectStore } from './library.js';
import type { PackClosure } from './messages.js';

/** What is known of the objects that came in a pack. */
export interface PackedHistory {
  readonly types: ReadonlyMap<string, ObjectType>;
  /** Commit -> its tree, then its parents, as `recogniseCommit` links them. */
  readonly commits: ReadonlyMap<string, readonly string[]>;
  /** Annotated tag -> what it points at. */
  readonly tags: ReadonlyMap<string, string>;
}

interface TreeEntry {
  readonly name: string;
  readonly oid: string;
  readonly isTree: boolean;
}

/** Trees that are read for one pack, some 10 microseconds each: beyond, git's walk is as quick. */
const maxTrees = 20_000;
/** Names that the answer carries: a small push has few. */
const maxNamed = 5_000;
const maxDepth = 100;

/** Ends the search: whether the pack is complete is then for git to find out. */
class Unknown extends Error {}

/**
 * Whether everything that the pack's commits reach is in the pack, or is reached by commits outside it: by their
 * parents' trees at the same place. Then, given that the history of those outside commits (the boundary) is complete,
 * so is that of the pack's. Undefined when that is not so plain: a tree that was moved, for example; git then walks.
 *
 * That an object outside the pack exists does not do: it may be left over from a refused push, and incomplete.
 */
export function findClosure(
  history: PackedHistory,
  stores: { readonly quarantine: ObjectStore; readonly repository: ObjectStore },
): PackClosure | undefined {
  try {
    return new ClosureSearch(history, stores).run();
  } catch (error) {
    if (error instanceof Unknown) return undefined;
    throw error;
  }
}

class ClosureSearch {
  readonly #history: PackedHistory;
  readonly #stores: { readonly quarantine: ObjectStore; readonly repository: ObjectStore };
  readonly #boundary = new Set<string>();
  readonly #trees = new Map<string, readonly TreeEntry[]>();
  readonly #outsideRoots = new Map<string, string>();
  /** Trees that were compared with these trees before. */
  readonly #covered = new Set<string>();

  constructor(
    history: PackedHistory,
    stores: { readonly quarantine: ObjectStore; readonly repository: ObjectStore },
  ) {
    this.#history = history;
    this.#stores = stores;
  }

  run(): PackClosure {
    const { commits, tags, types } = this.#history;
    for (const [tree, ...parents] of commits.values()) {
      if (tree === undefined) throw new Unknown();
      for (const parent of parents) if (!types.has(parent)) this.#boundary.add(parent);
      this.#cover(
        tree,
        parents.map((parent) => this.#rootOf(parent)),
        0,
      );
    }
    for (const target of tags.values()) {
      if (commits.has(target) || tags.has(target)) continue;
      // A tag of a tree or blob is rare. A tag of something outside is as complete as that is.
      if (types.has(target)) throw new Unknown();
      this.#boundary.add(target);
    }
    if (commits.size + tags.size + this.#boundary.size > maxNamed) throw new Unknown();
    return {
      commits: [...commits.keys()],
      tags: [...tags.keys()],
      boundary: [...this.#boundary],
    };
  }

  /** Every entry of `tree` is in the pack or in one of the `known` trees, and so on down. */
  #cover(tree: string, known: readonly string[], depth: number): void {
    if (known.includes(tree)) return;
    const key = `${tree} ${known.join(' ')}`;
    if (this.#covered.has(key)) return;
    if (!this.#history.types.has(tree) || depth > maxDepth) throw new Unknown();
    const before = known.map((oid) => this.#read(oid));
    const knownOids = new Set(before.flatMap((entries) => entries.map(({ oid }) => oid)));
    for (const { name, oid, isTree } of this.#read(tree)) {
      if (knownOids.has(oid)) continue;
      if (!this.#history.types.has(oid)) throw new Unknown();
      if (!isTree) continue;
      const same = before.flatMap((entries) =>
        entries.filter((entry) => entry.isTree && entry.name === name).map((entry) => entry.oid),
      );
      this.#cover(oid, same, depth + 1);
    }
    this.#covered.add(key);
  }

  #rootOf(commit: string): string {
    const packed = this.#history.commits.get(commit)?.[0];
    if (packed !== undefined) return packed;
    const known = this.#outsideRoots.get(commit);
    if (known !== undefined) return known;
    const root = this.#stores.repository.read(Buffer.from(commit, 'hex'), (content) =>
      /^tree ([0-9a-f]{40})\n/.exec(content.subarray(0, 46).toString('latin1')),
    )?.[1];
    if (root === undefined) throw new Unknown();
    this.#outsideRoots.set(commit, root);
    return root;
  }

  #read(tree: string): readonly TreeEntry[] {
    const known = this.#trees.get(tree);
    if (known !== undefined) return known;
    if (this.#trees.size >= maxTrees) throw new Unknown();
    const { quarantine, repository } = this.#stores;
    const store = this.#history.types.has(tree) ? quarantine : repository;
    const entries = store.read(Buffer.from(tree, 'hex'), parseTree);
    this.#trees.set(tree, entries);
    return entries;
  }
}

/** `mode SP name NUL oid`, again and again; links to other repositories' commits (submodules) are left out. */
function parseTree(content: Buffer): readonly TreeEntry[] {
  const entries: TreeEntry[] = [];
  for (let at = 0; at < content.length;) {
    const space = content.indexOf(0x20, at);
    const nul = content.indexOf(0, space);
    if (space < 0 || nul < 0 || nul + 21 > content.length) throw new Unknown();
    const mode = content.toString('latin1', at, space);
    if (mode !== '160000') {
      entries.push({
        name: content.toString('latin1', space + 1, nul),
        oid: content.toString('hex', nul + 1, nul + 21),
        isTree: mode === '40000',
      });
    }
    at = nul + 21;
  }
  return entries;
}
