import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Scene } from '../../e2e/harness.js';
import type { FrontEndClient } from './front-end-ground.js';

/** In each scene, what every transport reads: each of so many refs is synced to the disk when it is made. */
const manyRefsOf = new WeakMap<Scene, Promise<{ name: string; tip: string }>>();

function manyRefs(client: FrontEndClient): Promise<{ name: string; tip: string }> {
  const made = manyRefsOf.get(client.scene) ?? pushManyRefs(client);
  manyRefsOf.set(client.scene, made);
  return made;
}

/** A repository with `main` and 3,000 further branches, all at the same commit. */
async function pushManyRefs(client: FrontEndClient): Promise<{ name: string; tip: string }> {
  const { name, source } = await client.published();
  const tip = await client.revision(source, 'main');
  const lines = Array.from(
    { length: 3000 },
    (_, index) => `create refs/heads/topic/${index} ${tip}\n`,
  );
  await client.git(['update-ref', '--stdin'], { cwd: source, stdin: lines.join('') });
  await client.git(['push', '-q', client.url(name), 'refs/heads/*:refs/heads/*'], {
    cwd: source,
  });
  return { name, tip };
}

/** Clones and fetches of every kind. */
export function defineFrontEndFetches(client: FrontEndClient): void {
  test('a clone is whole and sound', async () => {
    const { name, source } = await client.published({
      commits: 20,
      files: { 'deep/er/file.txt': 'deep\n', 'noise.bin': Buffer.alloc(100_000, '\0\xff quorate') },
    });
    await client.git(['tag', '-a', '-m', 'First', 'v1', 'main~5'], { cwd: source });
    await client.git(['push', '-q', client.url(name), 'v1', 'main~3:refs/heads/side'], {
      cwd: source,
    });
    for (const spelling of [name, `${name}.git`]) {
      const copy = await client.clone(spelling);
      assert.equal(await client.revision(copy, 'HEAD'), await client.revision(source, 'main'));
      assert.equal(
        await client.revision(copy, 'origin/side'),
        await client.revision(source, 'main~3'),
      );
      assert.equal(await client.revision(copy, 'v1'), await client.revision(source, 'v1'));
      assert.equal(await client.git(['symbolic-ref', 'HEAD'], { cwd: copy }), 'refs/heads/main');
      await client.git(['fsck', '--strict'], { cwd: copy });
      assert.equal(await readFile(join(copy, 'deep/er/file.txt'), 'utf8'), 'deep\n');
    }
  });

  test('an empty repository can be cloned, and brings its branch name with protocol 2', async () => {
    const name = client.freshName();
    await client.admin('repo', 'create', name, '--default-branch', 'trunk');
    const copy = await client.clone(name);
    const branch = await client.git(['symbolic-ref', 'HEAD'], { cwd: copy });
    assert.equal(branch, client.transport.protocol === 2 ? 'refs/heads/trunk' : 'refs/heads/main');
    assert.deepEqual(await client.serverRefs(name), {});
  });

  test('a shallow clone, deepened and made whole', async () => {
    const { name, source } = await client.published({ commits: 12 });
    const copy = await client.clone(name, '--depth=3');
    assert.equal(await client.commitCount(copy), 3);
    await client.git(['fetch', '-q', '--deepen=4'], { cwd: copy });
    assert.equal(await client.commitCount(copy), 7);
    await client.scene.commit(source, 'later.txt', 'later');
    await client.git(['push', '-q', client.url(name), 'main'], { cwd: source });
    await client.git(['fetch', '-q', '--depth=2'], { cwd: copy });
    assert.equal(await client.commitCount(copy, 'origin/main'), 2);
    await client.git(['fetch', '-q', '--unshallow'], { cwd: copy });
    assert.equal(await client.commitCount(copy, 'origin/main'), 13);
    await client.git(['fsck'], { cwd: copy });
  });

  test('a clone of what is newer than a date, and of what a ref does not reach', async () => {
    const { name, source } = await client.published({ commits: 10 });
    await client.git(['push', '-q', client.url(name), 'main~4:refs/heads/old'], { cwd: source });
    // The harness dates commit n at 1,700,000,000 + n.
    const since = await client.clone(name, '--shallow-since=@1700000008 +0000', '--single-branch');
    assert.equal(await client.commitCount(since), 3);
    const exclude = await client.clone(name, '--shallow-exclude=old', '--single-branch');
    assert.equal(await client.commitCount(exclude), 4);
  });

  for (const filter of ['blob:none', 'tree:0', 'blob:limit=1k']) {
    test(`a partial clone (${filter}) fetches the rest when it is needed`, async () => {
      const { name } = await client.published({
        commits: 5,
        files: { 'big.txt': 'a line of text\n'.repeat(1000), 'sub/small.txt': 'small\n' },
      });
      const copy = await client.clone(name, `--filter=${filter}`, '--no-checkout');
      const missing = (): Promise<string> =>
        client.git(['rev-list', '--objects', '--all', '--missing=print'], { cwd: copy });
      assert.match(await missing(), /^\?/m, 'something was left out');
      await client.git(['checkout', '-q', 'main'], { cwd: copy });
      assert.equal((await readFile(join(copy, 'big.txt'), 'utf8')).length, 15_000);
      assert.equal(await readFile(join(copy, 'sub/small.txt'), 'utf8'), 'small\n');
      assert.match(await client.git(['log', '--stat', '--oneline'], { cwd: copy }), /file-1\.txt/);
    });
  }

  test('filters can be switched off', async () => {
    const { name } = await client.published();
    await client.admin('repo', 'set', name, 'uploadpack.allowFilter=false');
    const copy = await client.clone(name, '--filter=blob:none', '--no-checkout');
    const missing = await client.git(['rev-list', '--objects', '--all', '--missing=print'], {
      cwd: copy,
    });
    assert.doesNotMatch(missing, /^\?/m);
  });

  test('a fetch brings new commits, branches and the tags on them', async () => {
    const { name, source } = await client.published({ commits: 5 });
    const copy = await client.clone(name);
    const next = await client.scene.commit(source, 'next.txt', 'next');
    await client.git(['tag', '-a', '-m', 'Next', 'v2'], { cwd: source });
    await client.git(['push', '-q', client.url(name), 'main', 'main~1:refs/heads/side', 'v2'], {
      cwd: source,
    });
    await client.git(['fetch', '-q'], { cwd: copy });
    assert.equal(await client.revision(copy, 'origin/main'), next);
    assert.equal(await client.revision(copy, 'v2^{commit}'), next);
    await client.revision(copy, 'origin/side');
    const nothing = await client.git(['fetch'], { cwd: copy });
    assert.equal(nothing, '');
    await client.git(['push', '-q', client.url(name), ':side'], { cwd: source });
    await client.git(['fetch', '-q', '--prune'], { cwd: copy });
    await client.refused(['rev-parse', '--verify', '-q', 'origin/side'], { cwd: copy });
  });

  test('histories that went apart are negotiated', async () => {
    const { name, source } = await client.published({ commits: 50 });
    const copy = await client.clone(name);
    for (let index = 0; index < 40; index += 1) {
      await client.git(['commit', '-q', '--allow-empty', '-m', `Local ${index}`], { cwd: copy });
    }
    const theirs = await client.scene.commit(source, 'theirs.txt', 'theirs');
    await client.git(['push', '-q', client.url(name), 'main'], { cwd: source });
    await client.git(['fetch', '-q'], { cwd: copy });
    assert.equal(await client.revision(copy, 'origin/main'), theirs);
    await client.git(['fsck'], { cwd: copy });
  });

  test('a commit can be fetched by its id if a ref reaches it', async () => {
    const { name, source } = await client.published({ commits: 6 });
    const inside = await client.revision(source, 'main~3');
    const copy = client.freshPath();
    await client.git(['init', '-q', copy]);
    await client.git(['fetch', '-q', '--depth=1', client.url(name), inside], { cwd: copy });
    assert.equal(await client.revision(copy, 'FETCH_HEAD'), inside);
    const tree = await client.revision(source, 'main^{tree}');
    await client.git(['push', '-q', client.url(name), '+main~1:main'], { cwd: source });
    const absent = 'abcdef'.repeat(6).padEnd(40, '0');
    await client.refused(['fetch', '-q', client.url(name), absent], { cwd: copy });
    assert.notEqual(tree, absent);
  });

  test('hidden refs are not shown, not served by id, and not written', async () => {
    const { name, source } = await client.published({ commits: 3 });
    const secret = await client.scene.commit(source, 'secret.txt', 'secret');
    await client.git(['push', '-q', client.url(name), 'main:refs/hidden/secret'], { cwd: source });
    await client.admin('repo', 'set', name, 'transfer.hideRefs=refs/hidden');
    assert.deepEqual(Object.keys(await client.serverRefs(name)), ['refs/heads/main']);
    const copy = await client.clone(name);
    await client.refused(['fetch', '-q', 'origin', secret], { cwd: copy });
    await client.refused(['fetch', '-q', 'origin', 'refs/hidden/secret'], { cwd: copy });
    const words = await client.refused(['push', client.url(name), 'main:refs/hidden/more'], {
      cwd: source,
    });
    assert.match(words, /hidden ref/);
  });

  test('thousands of refs are listed and fetched', async () => {
    const { name, tip } = await manyRefs(client);
    const refs = await client.serverRefs(name);
    assert.equal(Object.keys(refs).length, 3001);
    assert.ok(Object.values(refs).every((oid) => oid === tip));
    const some = await client.git(['ls-remote', client.url(name), 'refs/heads/topic/77']);
    assert.equal(some, `${tip}\trefs/heads/topic/77`);
    const copy = await client.clone(name);
    const branches = await client.git(['for-each-ref', '--format=x', 'refs/remotes/'], {
      cwd: copy,
    });
    assert.equal(branches.split('\n').length, 3002);
  });

  test('HEAD is symbolic, and clones follow it where it goes', async () => {
    const { name, source } = await client.published({ commits: 3 });
    await client.git(['push', '-q', client.url(name), 'main~1:refs/heads/develop'], {
      cwd: source,
    });
    assert.match(
      await client.git(['ls-remote', '--symref', client.url(name), 'HEAD']),
      /^ref: refs\/heads\/main\tHEAD$/m,
    );
    await client.admin('repo', 'set', name, '--default-branch', 'develop');
    const copy = await client.clone(name);
    assert.equal(await client.git(['symbolic-ref', 'HEAD'], { cwd: copy }), 'refs/heads/develop');
    assert.equal(await client.revision(copy, 'HEAD'), await client.revision(source, 'main~1'));
  });

  test('an archive over SSH; over HTTP a sentence says that there is none', async () => {
    const { name } = await client.published({ files: { 'in/archive.txt': 'archived text\n' } });
    const args = ['archive', '--format=tar', `--remote=${client.url(name)}`, 'main', 'in'];
    if (client.transport.scheme === 'ssh') {
      assert.match(await client.git(args), /in\/archive\.txt[^]*archived text/);
    } else {
      await client.refused(args);
    }
  });

  test('what does not exist is not found', async () => {
    const words = await client.refused([
      'clone',
      '-q',
      client.url('team/nothing'),
      client.freshPath(),
    ]);
    assert.match(words, /not found|no such repository|does not exist/i);
  });
}
