// Patterns over repository names, as tokens carry them. Compared with the whole name, without `.git`, case and all:
//
//   *    any run of characters within one segment: team/web-* means team/web-app and not team/web-app/docs
//   **   any run of characters, slashes too: ** means everything, team/**/docs means team/web/old/docs
//   /*   at the end matches deeper as well: team/* means everything below team/
//
// Nothing else is special.

/** Longer than a repository name may be, so it cannot be meant. It also bounds the work of a match. */
const maxPatternLength = 256;

/** Why `pattern` cannot be stored, or undefined when it can. */
export function repositoryPatternProblem(pattern: string): string | undefined {
  if (pattern === '') return 'a repository pattern must not be empty';
  if (pattern.length > maxPatternLength) {
    return `a repository pattern is at most ${maxPatternLength} characters long`;
  }
  if (!/^[A-Za-z0-9._\-/*]+$/.test(pattern)) {
    return 'a repository pattern is made of letters, digits, . _ - / and *';
  }
  if (pattern.startsWith('/') || pattern.endsWith('/') || pattern.includes('//')) {
    return 'a repository pattern is a name like team/app with * in it, without empty segments';
  }
  return undefined;
}

/** Whether `name` (without `.git`) is one that `pattern` means. Takes at most pattern x name steps. */
export function repositoryPatternMatches(pattern: string, name: string): boolean {
  const star = pattern.indexOf('*');
  // Most patterns differ from most names in their first letters.
  if (star === -1) return pattern === name;
  if (!name.startsWith(pattern.slice(0, star))) return false;
  // reachable[j]: the tokens so far can have consumed exactly j characters of the name.
  let reachable: boolean[] = Array.from({ length: name.length + 1 }, (_, index) => index === 0);
  for (const token of tokensOf(pattern)) {
    const next: boolean[] = Array.from({ length: name.length + 1 }, () => false);
    for (let index = 0; index <= name.length; index++) {
      if (token === 'segment' || token === 'deep') {
        const crosses = token === 'deep' || name[index - 1] !== '/';
        next[index] =
          reachable[index] === true || (index > 0 && crosses && next[index - 1] === true);
      } else {
        next[index] =
          index > 0 && reachable[index - 1] === true && name[index - 1] === token.literal;
      }
    }
    reachable = next;
  }
  return reachable[name.length] === true;
}

type Token = 'segment' | 'deep' | { readonly literal: string };

function tokensOf(pattern: string): readonly Token[] {
  const tokens: Token[] = [];
  for (let index = 0; index < pattern.length; index++) {
    const character = pattern.charAt(index);
    if (character !== '*') {
      tokens.push({ literal: character });
    } else if (pattern[index + 1] === '*') {
      tokens.push('deep');
      index++;
    } else {
      const endsBelowFolder = index === pattern.length - 1 && pattern[index - 1] === '/';
      tokens.push(endsBelowFolder ? 'deep' : 'segment');
    }
  }
  return tokens;
}
