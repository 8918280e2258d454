import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { RefCommand } from '../contract/objects.js';
import { takeFileSteps } from '../git/file-steps.js';
import type { IndexedPack } from '../git/pack-indexer.js';
import { stepsOfPlainMoves } from './plain-moves.js';

const zero = '0'.repeat(40);
const old = 'a'.repeat(40);
const next = 'b'.repeat(40);
const tag = 'c'.repeat(40);
const unknown: IndexedPack = {
  name: 'pack-1',
  objectCount: 2,
  sizeBytes: 100,
  engine: 'libgit2',
};
const indexed: IndexedPack = {
  ...unknown,
  closure: { commits: [next], tags: [tag], boundary: [old] },
};
const main: RefCommand = { ref: 'refs/heads/main', oldOid: old, newOid: next };

let gitDir: string;

beforeEach(() => {
  gitDir = mkdtempSync(join(tmpdir(), 'quorate-plain-moves-'));
  put('refs/heads/main', `${old}\n`);
  put('refs/heads/a/b', `${old}\n`);
});

afterEach(() => rmSync(gitDir, { recursive: true }));

function put(name: string, text: string): void {
  mkdirSync(dirname(join(gitDir, name)), { recursive: true });
  writeFileSync(join(gitDir, name), text);
}

describe('git has to say', () => {
  const others: readonly (readonly [string, readonly RefCommand[], IndexedPack | undefined])[] = [
    ['of a new branch', [{ ...main, oldOid: zero }], indexed],
    ['of a branch that goes', [{ ...main, newOid: zero }], indexed],
    ['of a value that stays', [{ ...main, oldOid: next }], indexed],
    ['of a tag', [{ ...main, ref: 'refs/tags/main' }], indexed],
    ['of a branch that is to name a tag', [{ ...main, newOid: tag }], indexed],
    ['of a commit that was here', [{ ...main, newOid: 'd'.repeat(40) }], indexed],
    ['of a pack of which little is known', [main], unknown],
    ['of no pack', [main], undefined],
    ['of two commands for one branch', [main, main], indexed],
    ['when one of the commands is not plain', [main, { ...main, ref: 'refs/x' }], indexed],
    [
      'of many commands',
      Array.from({ length: 17 }, (_, n) => ({ ...main, ref: `refs/heads/${n}` })),
      indexed,
    ],
  ];
  for (const [what, commands, pack] of others) {
    test(what, () => assert.equal(stepsOfPlainMoves(gitDir, commands, pack), undefined));
  }
});

describe('a look at the files finds what git would find', () => {
  const both = [main, { ...main, ref: 'refs/heads/a/b' }];
  const look = (): Promise<void> =>
    takeFileSteps(stepsOfPlainMoves(gitDir, both, indexed) ?? assert.fail('they are plain moves'));

  test('nothing', () => look());

  const troubles: readonly (readonly [string, () => void])[] = [
    ['another value', () => put('refs/heads/a/b', `${next}\n`)],
    ['a torn value', () => put('refs/heads/a/b', '')],
    ['a symbolic ref', () => put('refs/heads/main', 'ref: refs/heads/a/b\n')],
    ['a branch that is packed', () => rmSync(join(gitDir, 'refs/heads/main'))],
    ['a branch that is locked', () => put('refs/heads/a/b.lock', '')],
    ['a lock that leads nowhere', () => symlinkSync('no', join(gitDir, 'refs/heads/main.lock'))],
  ];
  for (const [what, make] of troubles) {
    test(what, async () => {
      make();
      await assert.rejects(look());
    });
  }
});
