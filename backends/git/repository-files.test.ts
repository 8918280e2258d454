import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  createRepositoryFiles,
  readObjectStoreStats,
  removeTree,
  writeFileDurably,
} from './repository-files.js';
import { createFixture, type Fixture } from './testing/indexer-fixture.js';

let fixture: Fixture;
before(async () => {
  fixture = await createFixture();
});
after(() => fixture.close());

function create(name: string, objectFormat: 'sha1' | 'sha256' = 'sha1', head = 'refs/heads/main') {
  const gitDir = join(fixture.root, name);
  return createRepositoryFiles({ git: fixture.git, gitDir, objectFormat, head });
}

async function git(gitDir: string, ...args: string[]): Promise<string> {
  const { stdout, exitCode, stderr } = await fixture.git.run({ args, env: { GIT_DIR: gitDir } });
  assert.equal(exitCode, 0, stderr);
  return stdout.toString().trim();
}

describe('createRepositoryFiles', () => {
  for (const objectFormat of ['sha1', 'sha256'] as const) {
    test(`makes a bare ${objectFormat} repository with our configuration`, async () => {
      const gitDir = join(fixture.root, objectFormat);
      await create(objectFormat, objectFormat, 'refs/heads/trunk');
      assert.equal(await git(gitDir, 'symbolic-ref', 'HEAD'), 'refs/heads/trunk');
      assert.equal(await git(gitDir, 'rev-parse', '--show-object-format'), objectFormat);
      assert.equal(await git(gitDir, 'config', 'gc.auto'), '0');
      assert.equal(await git(gitDir, 'config', 'core.bare'), 'true');
      assert.equal(await git(gitDir, 'config', '--type=bool', 'core.logAllRefUpdates'), 'false');
      assert.ok(!readdirSync(gitDir).includes('hooks'));
    });
  }

  test('an existing one is left alone, and nothing else is left', async () => {
    await create('once');
    const before = readdirSync(fixture.root).sort();
    await assert.rejects(create('once', 'sha1', 'refs/heads/other'), { code: 'already-exists' });
    assert.deepEqual(readdirSync(fixture.root).sort(), before);
    assert.match(readFileSync(join(fixture.root, 'once', 'HEAD'), 'utf8'), /main/);
  });

  test('a parent that is not there, a HEAD that is no branch', async () => {
    await assert.rejects(create('no/such/parent'));
    await assert.rejects(create('evil', 'sha1', 'refs/heads/a\nb'), { code: 'invalid-argument' });
    await assert.rejects(create('evil', 'sha1', 'main'), { code: 'invalid-argument' });
    assert.ok(!readdirSync(fixture.root).some((name) => name.includes('creating')));
  });
});

test('writeFileDurably replaces a file as a whole and leaves nothing when it fails', async () => {
  const path = join(fixture.root, 'file');
  await writeFileDurably(path, 'one');
  await writeFileDurably(path, Buffer.from('two'));
  assert.equal(readFileSync(path, 'utf8'), 'two');
  const directory = join(fixture.root, 'directory');
  mkdirSync(join(directory, 'full'), { recursive: true });
  writeFileSync(join(directory, 'full', 'x'), '');
  await assert.rejects(writeFileDurably(join(directory, 'full'), 'three'));
  assert.deepEqual(readdirSync(directory), ['full']);
});

test('removeTree removes what is there and minds nothing that is not', async () => {
  const directory = join(fixture.root, 'tree');
  mkdirSync(join(directory, 'a', 'b'), { recursive: true });
  await removeTree(directory);
  await removeTree(directory);
  assert.ok(!readdirSync(fixture.root).includes('tree'));
});

test('statistics count packs and estimate loose objects', async () => {
  for (let i = 0; i < 600; i++) writeLoose(i);
  const stats = await readObjectStoreStats(fixture.objectsDir);
  assert.equal(stats.packCount, 0);
  // 600 files in the sixteen sampled directories and in all others alike.
  assert.ok(
    stats.looseObjectCount > 400 && stats.looseObjectCount < 800,
    `${stats.looseObjectCount}`,
  );
  assert.ok(stats.sizeBytes > 4000 && stats.sizeBytes < 8000);
  const empty = await readObjectStoreStats(join(fixture.root, 'nowhere'));
  assert.deepEqual([empty.packCount, empty.looseObjectCount, empty.sizeBytes], [0, 0, 0]);
});

function writeLoose(i: number): void {
  const fanout = join(fixture.objectsDir, (i % 256).toString(16).padStart(2, '0'));
  mkdirSync(fanout, { recursive: true });
  writeFileSync(join(fanout, i.toString().padStart(38, '0')), '0123456789');
}
