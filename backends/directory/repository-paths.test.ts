import assert from 'node:assert/strict';
import promises, { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, mock, test } from 'node:test';
import { compareBytewise } from '../git/ref-order.js';
import { RepositoryPaths } from './repository-paths.js';

// Walks through a root, wherever they begin.

let root: string;
/** Of every repository, in order. */
let names: readonly string[];

/** As much as makes a directory a git directory. */
async function gitDirectory(path: string): Promise<void> {
  for (const part of ['objects', 'refs']) await mkdir(join(root, path, part), { recursive: true });
  await writeFile(join(root, path, 'HEAD'), '');
}

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'quorate-paths-'));
  const places: Readonly<Record<string, string>> = {
    'a.git': 'a',
    a: 'a',
    'a-b.git': 'a-b',
    'a.b': 'a.b',
    'a0.git': 'a0',
    'below/x.git': 'below/x',
    'below/x-y/deep/z': 'below/x-y/deep/z',
    'below/x.git.git': 'below/x.git',
    'below.git': 'below',
    'below-too/b': 'below-too/b',
    'tree/.git': 'tree',
    'tree.git/.git': 'tree.git',
    'holder.git/in': 'holder.git/in',
    z: 'z',
  };
  for (const path of Object.keys(places)) await gitDirectory(path);
  for (const path of ['empty/deep', '.hidden/x.git', 'below/.x']) {
    await mkdir(join(root, path), { recursive: true });
  }
  await symlink(join(root, 'z'), join(root, 'link.git'));
  await symlink(join(root, 'below'), join(root, 'linked'));
  names = [...new Set([...Object.values(places), 'link'])].sort(compareBytewise);
});
after(async () => await rm(root, { recursive: true }));

async function walked(
  paths: RepositoryPaths,
  range?: { readonly prefix?: string; readonly after?: string; readonly count?: number },
  most = Infinity,
): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { name } of paths.walk(range)) {
    if (found.push(name) >= most) break;
  }
  return found;
}

for (const count of [1, 2, 5, 4_096]) {
  test(`a walk for about ${count} names finds all, in order, from any name on`, async () => {
    const paths = await RepositoryPaths.open(root);
    assert.deepEqual(await walked(paths, { count }), names);
    for (const name of [...names, 'below/', 'below/x-y/q', 'zz', '!']) {
      const rest = names.filter((each) => compareBytewise(each, name) > 0);
      assert.deepEqual(await walked(paths, { after: name, count }), rest, name);
    }
    for (const prefix of [
      'a',
      'below',
      'below/',
      'below/x',
      'below/x-y/deep',
      'none',
      'li',
      '../',
    ]) {
      const wanted = names.filter((each) => each.startsWith(prefix));
      assert.deepEqual(await walked(paths, { prefix, count }), wanted, prefix);
      assert.deepEqual(
        await walked(paths, { prefix, after: 'below/x', count }),
        wanted.filter((each) => compareBytewise(each, 'below/x') > 0),
      );
    }
  });
}

test('a page reads no directory whose names come before it, or after', async () => {
  const paths = await RepositoryPaths.open(root);
  const read: unknown[] = [];
  const { readdir } = promises;
  mock.method(promises, 'readdir', (path: string, options: { withFileTypes: true }) => {
    read.push(path.slice(root.length));
    return readdir(path, options);
  });
  syncBuiltinESMExports();
  try {
    assert.deepEqual(await walked(paths, { after: 'below/x-y' }, 1), ['below/x-y/deep/z']);
    assert.deepEqual(read, ['', '/below/', '/below/x-y/', '/below/x-y/deep/']);
  } finally {
    mock.restoreAll();
    syncBuiltinESMExports();
  }
});
