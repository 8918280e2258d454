/**
 * Patterns of refs and paths: `*` is any text without a slash, `**` any text at all, `?` one character that is no
 * slash; everything else is itself. The whole name has to match. Never slower than the product of both lengths.
 */
export function matchesGlob(pattern: string, name: string): boolean {
  let at = 0;
  let inPattern = 0;
  /** Where to go on when the last `*`, or the last `**`, has to take one character more. */
  let single: { name: number; pattern: number } | undefined;
  let double: { name: number; pattern: number } | undefined;
  while (at < name.length) {
    const wanted = pattern[inPattern];
    const found = name[at];
    if (wanted === '*' && pattern[inPattern + 1] === '*') {
      inPattern += 2;
      single = undefined;
      double = { name: at, pattern: inPattern };
    } else if (wanted === '*') {
      inPattern += 1;
      single = { name: at, pattern: inPattern };
    } else if (wanted === '?' ? found !== '/' : wanted === found) {
      at += 1;
      inPattern += 1;
    } else if (single !== undefined && name[single.name] !== '/') {
      single = { name: single.name + 1, pattern: single.pattern };
      at = single.name;
      inPattern = single.pattern;
    } else if (double !== undefined) {
      single = undefined;
      double = { name: double.name + 1, pattern: double.pattern };
      at = double.name;
      inPattern = double.pattern;
    } else {
      return false;
    }
  }
  while (pattern[inPattern] === '*') inPattern += 1;
  return inPattern === pattern.length;
}
