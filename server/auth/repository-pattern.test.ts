import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { repositoryPatternMatches, repositoryPatternProblem } from './repository-pattern.js';

const cases: readonly { pattern: string; yes: readonly string[]; no: readonly string[] }[] = [
  {
    pattern: 'team/app',
    yes: ['team/app'],
    no: ['team/apps', 'team', 'xteam/app', 'Team/app', 'team/app/x'],
  },
  {
    pattern: 'team/*',
    yes: ['team/app', 'team/a/b/c'],
    no: ['team', 'teams/app', 'other/team/app'],
  },
  { pattern: 'team/web-*', yes: ['team/web-', 'team/web-app'], no: ['team/web-a/b', 'team/app'] },
  { pattern: '*', yes: ['app', 'x'], no: ['team/app'] },
  { pattern: '**', yes: ['app', 'team/app', 'a/b/c'], no: [] },
  { pattern: '*/app', yes: ['team/app'], no: ['a/b/app', 'app'] },
  { pattern: 'a/**/z', yes: ['a/b/z', 'a/b/c/z'], no: ['a/z', 'a/b/zz'] },
  { pattern: 'a*c*e', yes: ['abcde', 'ace'], no: ['ac/e', 'abcd'] },
  { pattern: 'a.b', yes: ['a.b'], no: ['axb'] },
];

for (const { pattern, yes, no } of cases) {
  test(`pattern ${pattern}`, () => {
    for (const name of yes) assert.ok(repositoryPatternMatches(pattern, name), name);
    for (const name of no) assert.ok(!repositoryPatternMatches(pattern, name), name);
  });
}

test('a hostile pattern costs no more than its length times the name', () => {
  const pattern = `${'a*'.repeat(127)}b`;
  assert.equal(repositoryPatternProblem(pattern), undefined);
  assert.equal(repositoryPatternMatches(pattern, 'a'.repeat(255)), false);
});

test('patterns that cannot be meant are refused', () => {
  for (const pattern of ['', '/a', 'a/', 'a//b', 'a b', 'a?', 'a\n', '[a]', 'x'.repeat(257)]) {
    assert.notEqual(repositoryPatternProblem(pattern), undefined, JSON.stringify(pattern));
  }
  for (const { pattern } of cases)
    assert.equal(repositoryPatternProblem(pattern), undefined, pattern);
});

test('patterns mean what the same regular expression means', () => {
  const word = fc.array(fc.constantFrom('a', 'b', '/', '.'), { maxLength: 8 });
  const pattern = fc.array(fc.constantFrom('a', 'b', '/', '.', '*', '**'), { maxLength: 8 });
  fc.assert(
    fc.property(pattern, word, (parts, letters) => {
      const text = parts.join('');
      const source = text
        .replaceAll('.', '\\.')
        .replace(/\/\*$/, '/@')
        .replaceAll('**', '@')
        .replaceAll('*', '[^/]*')
        .replaceAll('@', '.*');
      const name = letters.join('');
      return repositoryPatternMatches(text, name) === new RegExp(`^${source}$`).test(name);
    }),
    { numRuns: 2000 },
  );
});
