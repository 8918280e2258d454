import assert from 'node:assert/strict';
import { test } from 'node:test';
import { array, assert as check, constantFrom, property, type Arbitrary } from 'fast-check';
import { matchesGlob } from './glob.js';

const cases: readonly (readonly [pattern: string, name: string, matches: boolean])[] = [
  ['refs/heads/main', 'refs/heads/main', true],
  ['refs/heads/main', 'refs/heads/main2', false],
  ['refs/heads/release/*', 'refs/heads/release/1', true],
  ['refs/heads/release/*', 'refs/heads/release/1/2', false],
  ['refs/heads/release/**', 'refs/heads/release/1/2', true],
  ['refs/*/v?', 'refs/tags/v1', true],
  ['refs/*/v?', 'refs/tags/v/', false],
  ['**', 'anything/at/all', true],
  ['**/*.exe', 'a/b/c.exe', true],
  ['**/*.exe', 'c.exe', false],
  ['*.exe', 'a/c.exe', false],
  ['a*b*c', 'aXbXbXc', true],
  ['**a*b', 'xa/ab', true],
  ['', '', true],
  ['*', '', true],
];

for (const [pattern, name, matches] of cases) {
  test(`${pattern} ${matches ? 'matches' : 'does not match'} ${name}`, () => {
    assert.equal(matchesGlob(pattern, name), matches);
  });
}

test('agrees with the regular expression that means the same', () => {
  check(
    property(text(['a', 'b', '/', '*', '?']), text(['a', 'b', '/']), (pattern, name) => {
      const source = pattern.replaceAll(/\*{2,}|[*?]/g, (wild) =>
        // Stars are read in pairs; the one that is left over adds nothing to `**`.
        wild.length > 1 ? '.*' : wild === '*' ? '[^/]*' : '[^/]',
      );
      assert.equal(matchesGlob(pattern, name), new RegExp(`^${source}$`).test(name));
    }),
    { numRuns: 20_000 },
  );
});

function text(alphabet: readonly string[]): Arbitrary<string> {
  return array(constantFrom(...alphabet), { maxLength: 10 }).map((letters) => letters.join(''));
}
