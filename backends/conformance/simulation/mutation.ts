/** A change that breaks the code: in one compiled file, every place that `pattern` matches. */
export interface Mutation {
  readonly name: string;
  /** End of the file's path: `backends/replicated/commit.js`. */
  readonly file: string;
  /** A regular expression's source. It has to match, or the mutant is out of date. */
  readonly pattern: string;
  readonly replacement: string;
}

/** Undefined for another file. Throws when the mutant does not fit the code any more. */
export function applyMutation(
  { name, file, pattern, replacement }: Mutation,
  url: string,
  source: string,
): string | undefined {
  if (!new URL(url).pathname.endsWith(`/${file}`)) return undefined;
  const mutated = source.replace(new RegExp(pattern), replacement);
  if (mutated === source) throw new Error(`the mutant "${name}" finds nothing to break in ${file}`);
  return mutated;
}
