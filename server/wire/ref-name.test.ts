import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isRefName } from './ref-name.js';

const names = [
  { desc: 'a branch', name: 'refs/heads/main', valid: true },
  { desc: 'other scripts', name: 'refs/heads/日本/é', valid: true },
  { desc: 'a dot at the end of an inner component', name: 'refs/heads/a./b', valid: true },
  { desc: 'an @ among others', name: 'refs/heads/@', valid: true },
  { desc: '.lock inside a component', name: 'refs/heads/a.lockb', valid: true },
  { desc: 'a dash in front', name: 'refs/heads/-x', valid: true },
  { desc: 'one level', name: 'main', valid: false },
  { desc: 'nothing', name: '', valid: false },
  { desc: 'an empty component', name: 'refs//main', valid: false },
  { desc: 'a slash in front', name: '/refs/heads/main', valid: false },
  { desc: 'a slash at the end', name: 'refs/heads/', valid: false },
  { desc: 'a hidden component', name: 'refs/heads/.a', valid: false },
  { desc: 'two dots', name: 'refs/heads/a..b', valid: false },
  { desc: 'climbing', name: 'refs/../config', valid: false },
  { desc: '.lock', name: 'refs/heads/main.lock', valid: false },
  { desc: '.lock in the middle', name: 'refs/a.lock/b', valid: false },
  { desc: 'a dot at the end', name: 'refs/heads/main.', valid: false },
  { desc: 'reflog syntax', name: 'refs/heads/a@{1}', valid: false },
  { desc: 'NUL', name: 'refs/heads/a\0b', valid: false },
  { desc: 'DEL', name: 'refs/heads/a\x7f', valid: false },
  { desc: 'line feed', name: 'refs/heads/a\nb', valid: false },
  ...' ~^:?*[\\'.split('').map((char) => ({
    desc: `the character ${char}`,
    name: `refs/heads/a${char}b`,
    valid: false,
  })),
];

for (const { desc, name, valid } of names) {
  test(`${valid ? 'a' : 'no'} ref name: ${desc}`, () => assert.equal(isRefName(name), valid));
}

test('one level passes where it is allowed, except @', () => {
  assert.equal(isRefName('main', { oneLevel: true }), true);
  assert.equal(isRefName('@', { oneLevel: true }), false);
});

test("agrees with git's own check-ref-format", () => {
  const alphabet = fc.constantFrom(
    'refs',
    'a',
    '/',
    '.',
    '..',
    '.lock',
    '@',
    '{',
    '@{',
    ' ',
    '~',
    '*',
    'é',
    '\\',
    '\x7f',
    '-',
  );
  const name = fc.array(alphabet, { minLength: 1, maxLength: 7 }).map((parts) => parts.join(''));
  fc.assert(
    fc.property(name, fc.boolean(), (name, oneLevel) => {
      const args = ['check-ref-format', ...(oneLevel ? ['--allow-onelevel'] : []), name];
      // An option in front would be read as one; git's own callers never pass such names this way.
      fc.pre(!name.startsWith('-'));
      const git = spawnSync('git', args);
      assert.equal(isRefName(name, { oneLevel }), git.status === 0, JSON.stringify(name));
    }),
    { numRuns: 150 },
  );
});
