import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { QuorateError } from '../../backends/contract/errors.js';
import { parseRepositoryName } from './repository-name.js';

const accepted: readonly (readonly [string, string])[] = [
  ['team/app', 'team/app'],
  ['/team/app.git', 'team/app'],
  ['/team/app.git/', 'team/app'],
  ['app', 'app'],
  ['a.b/c-d_e.1', 'a.b/c-d_e.1'],
  ['lock', 'lock'],
  ['git', 'git'],
  ['x'.repeat(100), 'x'.repeat(100)],
  ['a/b/c/d/e/f/g/h', 'a/b/c/d/e/f/g/h'],
];

for (const [path, name] of accepted) {
  test(`a name: ${path}`, () => assert.equal(parseRepositoryName(path), name));
}

const refused = [
  { desc: 'nothing', path: '' },
  { desc: 'a slash', path: '/' },
  { desc: 'only the suffix', path: '/.git' },
  { desc: 'climbing', path: '/../etc/passwd' },
  { desc: 'climbing inside', path: 'a/../b' },
  { desc: 'two dots inside a part', path: 'a..b' },
  { desc: 'a dot part', path: 'a/./b' },
  { desc: 'a hidden part', path: '.ssh/keys' },
  { desc: 'an option', path: '-upload-pack=id' },
  { desc: 'an option inside', path: 'a/--help' },
  { desc: 'an empty part', path: 'a//b' },
  { desc: 'two leading slashes', path: '//a' },
  { desc: 'NUL', path: 'a\0b' },
  { desc: 'a line feed', path: 'a\n' },
  { desc: 'a backslash', path: 'a\\b' },
  { desc: 'a space', path: 'a b' },
  { desc: 'a percent sign left over', path: 'a%2e%2e' },
  { desc: 'a tilde', path: '~root/x' },
  { desc: 'a full-width dot', path: 'a/．．/b' },
  { desc: 'a combining letter', path: 'ap̈p' },
  { desc: 'a git directory inside', path: 'app.git/hooks' },
  { desc: 'the suffix twice', path: 'app.git.git' },
  { desc: 'the suffix in other letters', path: 'app.GIT' },
  { desc: 'a lock file', path: 'app.lock' },
  { desc: 'a lock file with the suffix', path: 'team/app.lock.git' },
  { desc: 'a long part', path: 'x'.repeat(101) },
  { desc: 'a long name', path: `${'x'.repeat(90)}/`.repeat(3).slice(0, -1) },
  { desc: 'a deep name', path: 'a/b/c/d/e/f/g/h/i' },
];

for (const { desc, path } of refused) {
  test(`no name: ${desc}`, () => {
    assert.throws(() => parseRepositoryName(path), { code: 'invalid-argument' });
  });
}

test('whatever comes out stays below the root and is its own name', () => {
  const part = fc.oneof(
    fc.string({ maxLength: 8 }),
    fc.constantFrom('..', '.', '/', '.git', '.lock', '-', 'a', 'B', '\0', '//'),
  );
  const path = fc.array(part, { maxLength: 8 }).map((parts) => parts.join(''));
  fc.assert(
    fc.property(path, (path) => {
      let name: string;
      try {
        name = parseRepositoryName(path);
      } catch (error) {
        assert.ok(error instanceof QuorateError);
        return;
      }
      assert.match(name, /^[A-Za-z0-9_][A-Za-z0-9._-]*(?:\/[A-Za-z0-9_][A-Za-z0-9._-]*)*$/);
      assert.ok(!name.includes('..'));
      assert.equal(parseRepositoryName(`/${name}.git`), name);
    }),
    { numRuns: 2000 },
  );
});
