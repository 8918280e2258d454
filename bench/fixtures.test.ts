import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { prepareCommits } from './client-repositories.js';
import { git } from './commands.js';
import { branchOfRefs, openFixture } from './fixtures.js';

test('fixtures are made once, repacked, from sources that later commits change', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'bench-fixtures-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const cache = join(directory, 'cache');
  const said: string[] = [];
  const options = {
    cache,
    repository: undefined,
    largeBytes: 0,
    progress: (message: string) => said.push(message),
  };
  const refs = await openFixture('refs', options);
  assert.equal(refs.facts.refs, 50_001);
  assert.ok(said.length > 0);
  said.length = 0;
  const small = await openFixture('small', options);
  assert.deepEqual(await openFixture('refs', options), refs);
  assert.deepEqual(said, [], 'nothing is made again');
  assert.ok(small.facts.packBytes > 0.7 * 1024 ** 2 && small.facts.packBytes < 2 * 1024 ** 2);
  assert.ok(small.facts.commits >= 50);
  await git(['fsck', '--strict', '--connectivity-only'], { cwd: small.path });
  const packs = (await readdir(join(small.path, 'objects/pack'))).sort((a, b) => (a < b ? -1 : 1));
  assert.match(packs.join(' '), /^\S+\.bitmap \S+\.idx \S+\.pack( \S+\.rev)?$/);
  const last = await git(['show', '--numstat', '--format=', 'HEAD'], { cwd: small.path });
  assert.match(last, /^\d+\t\d+\t\S/m);
  const branch = await git(['rev-parse', '--verify', branchOfRefs(49_999)], { cwd: refs.path });
  assert.match(branch, /^[0-9a-f]{40}$/);
  await t.test('commits to push are chains on top of it', async () => {
    const place = { fixture: small, rounds: 3, directory, quick: false };
    const commits = await prepareCommits(place, { chains: 2, perRound: 2 });
    const oids = [0, 1, 2].flatMap((round) => commits.of(1, round));
    assert.equal(new Set(oids).size, 6);
    const tip = await git(['rev-parse', 'HEAD'], { cwd: small.path });
    const parents = oids.map((oid) => git(['rev-parse', `${oid}^`], { cwd: commits.repository }));
    assert.deepEqual(await Promise.all(parents), [tip, ...oids.slice(0, -1)]);
    assert.throws(() => commits.of(1, 3), /more rounds/);
  });
});
