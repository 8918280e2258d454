/** More would be no help. */
const maxSuggestions = 3;
/** Letters of a name that is looked at: what is longer is near to nothing. */
const maxLength = 100;

/**
 * Which of `known` may have been meant with `given`, whatever the case of its letters: those that end in the same
 * part after a dot, and the nearest of which few letters are different (three, and no more than half of a short name).
 */
export function nearNames(given: string, known: readonly string[]): readonly string[] {
  const wanted = given.slice(0, maxLength).toLowerCase();
  const compared = known.map((name) => {
    const lower = name.toLowerCase();
    const sameEnd = lastPart(lower) === lastPart(wanted);
    return { name, sameEnd, distance: editDistance(lower, wanted) };
  });
  const bound = Math.min(3, Math.floor(wanted.length / 2), ...compared.map((one) => one.distance));
  return compared
    .filter(({ sameEnd, distance }) => sameEnd || distance <= bound)
    .map(({ name }) => name)
    .slice(0, maxSuggestions);
}

function lastPart(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1);
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substituted = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
