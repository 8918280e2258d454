import type { VisibleRefs } from '../../backends/contract/visible-refs.js';
import type { Oid, RefEntry, RefSnapshot } from '../../backends/contract/objects.js';

/** HEAD as clients may see it: `oid` is absent while its branch is unborn. */
export interface VisibleHead {
  readonly oid?: Oid;
  readonly peeled?: Oid;
  readonly symref?: string;
}

/** A snapshot less its hidden refs. Immutable; made once per snapshot and filter. */
export class RefView {
  readonly snapshot: RefSnapshot;
  readonly refs: readonly RefEntry[];
  /** Undefined when HEAD is hidden, or names a hidden branch: its id would give the branch away. */
  readonly head: VisibleHead | undefined;
  readonly #visible: VisibleRefs;
  /** Places of `refs` in the snapshot; undefined when nothing is hidden. */
  readonly #places: Uint32Array | undefined;
  #tips: ReadonlySet<Oid> | undefined;

  constructor(snapshot: RefSnapshot, visible: VisibleRefs) {
    this.snapshot = snapshot;
    this.#visible = visible;
    if (visible.key === '') {
      this.refs = snapshot.refs;
    } else {
      const refs: RefEntry[] = [];
      const places: number[] = [];
      for (const [place, ref] of snapshot.refs.entries()) {
        if (!visible.test(ref.name)) continue;
        refs.push(ref);
        places.push(place);
      }
      this.#places = Uint32Array.from(places);
      this.refs = refs;
    }
    this.head = this.#findHead();
  }

  find(name: string): RefEntry | undefined {
    const entry = this.snapshot.find(name);
    return entry !== undefined && this.#visible.test(name) ? entry : undefined;
  }

  /** Index range [start, end) in `refs` of the names that start with `prefix`. */
  prefixRange(prefix: string): readonly [number, number] {
    const [start, end] = this.snapshot.prefixRange(prefix);
    const places = this.#places;
    if (places === undefined) return [start, end];
    return [lowerBound(places, start), lowerBound(places, end)];
  }

  /** True when a visible ref or HEAD has this value. */
  hasTip(oid: Oid): boolean {
    if (this.head?.oid === oid) return true;
    if (this.#places === undefined) return this.snapshot.hasTip(oid);
    this.#tips ??= new Set(this.refs.map((ref) => ref.oid));
    return this.#tips.has(oid);
  }

  /** The name of a symbolic ref's target, unless that is hidden. */
  visibleTarget({ symref }: RefEntry): string | undefined {
    return symref !== undefined && this.#visible.test(symref) ? symref : undefined;
  }

  #findHead(): VisibleHead | undefined {
    const { head } = this.snapshot;
    if (!this.#visible.test('HEAD')) return undefined;
    if ('oid' in head) return head;
    if (!this.#visible.test(head.symref)) return undefined;
    const target = this.snapshot.find(head.symref);
    if (target === undefined) return head;
    const { oid, peeled } = target;
    return { symref: head.symref, oid, ...(peeled === undefined ? {} : { peeled }) };
  }
}

/** First index whose value is at least `value`. */
function lowerBound(sorted: Uint32Array, value: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? 0) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Filters kept per snapshot: fetch, push, and what they were before a setting changed. */
const maxViewsPerSnapshot = 8;

/** Views, made once per snapshot and filter, gone with the snapshot. */
export class RefViews {
  readonly #views = new WeakMap<RefSnapshot, Map<string, RefView>>();

  of(snapshot: RefSnapshot, visible: VisibleRefs): RefView {
    let views = this.#views.get(snapshot);
    if (views === undefined) {
      views = new Map();
      this.#views.set(snapshot, views);
    }
    let view = views.get(visible.key);
    if (view === undefined) {
      view = new RefView(snapshot, visible);
      if (views.size >= maxViewsPerSnapshot) views.clear();
      views.set(visible.key, view);
    }
    return view;
  }
}
