/**
 * Refs that somebody may see, as data: it travels to the node that runs git, which has to hide the same refs. What a
 * pattern means is judged here and nowhere else.
 */
export interface VisibleRefs {
  /** Patterns of hidden refs, in order, as git-config(1) says of `transfer.hideRefs`. None contains a comma. */
  readonly hidden: readonly string[];
  /** Name for caching: equal keys on one snapshot mean equal filters. Empty when nothing is hidden. */
  readonly key: string;
  readonly test: (refName: string) => boolean;
}

/** Nothing is hidden. */
export const allRefs: VisibleRefs = { hidden: [], key: '', test: () => true };

interface Pattern {
  readonly hides: boolean;
  readonly prefix: string;
}

/**
 * A pattern matches a ref of that name and everything below it; the last pattern that matches decides; `!` in front
 * shows again what an earlier one hid. `^` in front means the name before namespaces are stripped, which is the name
 * itself here.
 */
export function refsWithout(hidden: readonly string[]): VisibleRefs {
  if (hidden.length === 0) return allRefs;
  const patterns = hidden.map(parsePattern).reverse();
  return {
    hidden,
    key: hidden.join(','),
    test: (name) => patterns.find(({ prefix }) => matches(prefix, name))?.hides !== true,
  };
}

function parsePattern(text: string): Pattern {
  const hides = !text.startsWith('!');
  const prefix = text.replace(/^!?\^?/, '').replace(/\/+$/, '');
  return { hides, prefix };
}

function matches(prefix: string, name: string): boolean {
  return name.startsWith(prefix) && (name.length === prefix.length || name[prefix.length] === '/');
}
