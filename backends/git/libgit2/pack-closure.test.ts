import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createPackIndexer } from '../indexer.js';
import type { IndexedPack, PackIndexer } from '../pack-indexer.js';
import {
  createFixture,
  type Fixture,
  idleMeter,
  silentLogger,
} from '../testing/indexer-fixture.js';

const file = (name: string, oid: string): string => `100644 blob ${oid}\t${name}`;
const folder = (name: string, oid: string): string => `040000 tree ${oid}\t${name}`;

describe('completeness of a small pack', () => {
  let fixture: Fixture;
  let indexer: PackIndexer;
  before(async () => {
    fixture = await createFixture();
    indexer = await createPackIndexer({
      git: fixture.git,
      logger: silentLogger,
      meter: idleMeter,
      workers: 1,
    });
  });
  after(async () => {
    await indexer.close();
    await fixture.close();
  });

  const blob = (text: string): string => fixture.write('blob', text);
  const tree = (...lines: string[]): string =>
    fixture
      .run(['mktree', '--missing'], lines.map((line) => `${line}\n`).join(''))
      .toString()
      .trim();
  const commit = (root: string, ...parents: string[]): string =>
    fixture
      .run(['commit-tree', root, ...parents.flatMap((parent) => ['-p', parent]), '-m', 'm'])
      .toString()
      .trim();
  const index = async (...objects: string[]): Promise<IndexedPack> => {
    const pack = fixture.run(
      ['pack-objects', '--stdout', '-q'],
      objects.map((oid) => `${oid}\n`).join(''),
    );
    const { result } = await fixture.index(indexer, pack);
    assert.equal(result?.engine, 'libgit2');
    return result;
  };

  test('a history with all its objects hangs on nothing', async () => {
    const content = blob('alone');
    const root = tree(file('a', content));
    const tip = commit(root);
    const { closure } = await index(content, root, tip);
    assert.deepEqual(closure, { commits: [tip], tags: [], boundary: [] });
  });

  test('a change hangs on its parent, whose trees have what is not in the pack', async () => {
    const inner = tree(file('x', blob('x')));
    const base = commit(tree(file('a', blob('a')), folder('d', inner), folder('e', inner)));
    const [changed, before] = [blob('changed'), blob('a')];
    const newInner = tree(file('x', blob('x')), file('y', changed));
    const root = tree(file('a', before), folder('d', newInner), folder('e', inner));
    const tip = commit(root, base);
    const next = commit(root, tip);
    const { closure } = await index(changed, newInner, root, tip, next);
    assert.deepEqual(new Set(closure?.commits), new Set([tip, next]));
    assert.deepEqual(closure?.tags, []);
    assert.deepEqual(closure?.boundary, [base]);
  });

  test('a merge hangs on both sides, and a tag on its commit', async () => {
    const left = commit(tree(file('l', blob('left'))));
    const right = commit(tree(file('r', blob('right'))));
    const root = tree(file('l', blob('left')), file('r', blob('right')));
    const merge = commit(root, left, right);
    const tagged = fixture
      .run(['mktag'], `object ${right}\ntype commit\ntag t\ntagger A <a@b> 1 +0000\n\nm\n`)
      .toString()
      .trim();
    const { closure } = await index(root, merge, tagged);
    assert.deepEqual(closure?.commits, [merge]);
    assert.deepEqual(closure?.tags, [tagged]);
    assert.deepEqual(new Set(closure?.boundary), new Set([left, right]));
  });

  test('an object that lies in the store, but not in the parent, is left to git', async () => {
    const base = commit(tree(file('a', blob('base'))));
    const stray = blob('left over from something else');
    const root = tree(file('a', blob('base')), file('b', stray));
    const tip = commit(root, base);
    const { closure } = await index(root, tip);
    assert.equal(closure, undefined);
  });

  test('a tree of the parent that stands elsewhere now is left to git', async () => {
    const inner = tree(file('x', blob('moved')));
    const base = commit(tree(folder('d', tree(folder('deep', inner)))));
    const root = tree(folder('elsewhere', inner));
    const tip = commit(root, base);
    const { closure } = await index(root, tip);
    assert.equal(closure, undefined);
  });

  test('a root commit cannot hang on anything', async () => {
    commit(tree(file('a', blob('known'))));
    const root = tree(file('a', blob('known')));
    const tip = commit(root);
    const { closure } = await index(root, tip);
    assert.equal(closure, undefined);
  });

  test('without fsck rules nothing is read closely enough to say', async () => {
    const content = blob('unchecked');
    const root = tree(file('a', content));
    const tip = commit(root);
    const pack = fixture.run(['pack-objects', '--stdout', '-q'], `${content}\n${root}\n${tip}\n`);
    const { result } = await fixture.index(indexer, pack, { fsck: { enabled: false, ignore: [] } });
    assert.equal(result?.closure, undefined);
  });
});
