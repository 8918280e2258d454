/** A change that breaks the code on purpose. */
export interface Mutation {
  readonly name: string;
  /** Kinds of trouble that bring it out soonest (faults.ts); without them, whatever the seed chooses. */
  readonly troubles?: readonly string[];
  /** The seed at which the search begins, for one that the first seeds let through; 1 otherwise. */
  readonly from?: number;
  readonly edits: readonly {
    /** End of the compiled file's path: `backends/replicated/commit.js`. */
    readonly file: string;
    /** A regular expression. It has to match, or the mutant is out of date. */
    readonly pattern: string;
    /** Taken as it is, for every match. */
    readonly replacement: string;
  }[];
}

/** Undefined for a file that it does not touch. Throws when the mutant does not fit the code any more. */
export function applyMutation(
  { name, edits }: Mutation,
  url: string,
  source: string,
): string | undefined {
  const own = edits.filter(({ file }) => new URL(url).pathname.endsWith(`/${file}`));
  if (own.length === 0) return undefined;
  return own.reduce((text, { file, pattern, replacement }) => {
    const mutated = text.replaceAll(new RegExp(pattern, 'g'), () => replacement);
    if (mutated === text) throw new Error(`the mutant "${name}" finds nothing to break in ${file}`);
    return mutated;
  }, source);
}

/** `pattern`, a regular expression, in a compiled file below `backends/`. */
export function edit(
  file: string,
  pattern: string,
  replacement: string,
): Mutation['edits'][number] {
  return { file: `backends/${file}`, pattern, replacement };
}
