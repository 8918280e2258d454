import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { PushResult } from '../contract/backend.js';
import type { RefCommand } from '../contract/objects.js';
import type { Repository } from '../contract/repository.js';
import {
  type LocalFixture,
  packOf,
  pushRequest,
  runGit,
  startLocal,
  zeroOid,
} from './testing/local-fixture.js';

const missing = 'missing necessary objects';

const outcomes = ({ refs }: PushResult): Record<string, string> =>
  Object.fromEntries(
    refs.map((ref) => [ref.ref, ref.status === 'ok' ? 'ok' : ref.reason] as const),
  );

/** As with large packs: git indexes, and says whether a pack names nothing outside itself. */
describe('completeness of packs that git indexed', () => {
  let local: LocalFixture;
  before(async () => {
    local = await startLocal({ indexWorkers: 0 });
  });
  after(async () => {
    await local.remove();
  });

  const gitDirectory = ({ id }: Repository): string =>
    join(local.directory, 'store', 'repos', id.slice(0, 2), id, 'git');

  const push = (
    repository: Repository,
    refs: Readonly<Record<string, string>>,
    pack: Buffer,
  ): Promise<PushResult> => {
    const commands = Object.entries(refs).map(([ref, newOid]): RefCommand => ({
      ref,
      oldOid: zeroOid,
      newOid,
    }));
    return local.backend.push(repository, pushRequest(commands, { pack }));
  };

  /** A commit in the store of which a blob is nowhere, as an interrupted prune could leave it; no ref reaches it. */
  async function strayCommit(repository: Repository, text: string): Promise<string> {
    const { source } = local;
    const gitDir = gitDirectory(repository);
    const lost = (await runGit(source, ['hash-object', '-w', '--stdin'], text)).trim();
    const entry = `100644 blob ${lost}\tlost\n`;
    const tree = (await runGit(source, ['mktree'], entry)).trim();
    const stray = await local.git('commit-tree', tree, '-m', text);
    await runGit(gitDir, ['mktree', '--missing'], entry);
    const content = await runGit(source, ['cat-file', 'commit', stray]);
    await runGit(gitDir, ['hash-object', '-t', 'commit', '-w', '--stdin'], content);
    return stray;
  }

  test('tips in a pack that stands alone are complete', async () => {
    const repository = await local.create('alone');
    const tip = await local.commit('alone');
    const result = await push(
      repository,
      { 'refs/heads/a': tip, 'refs/heads/b': tip },
      await packOf(local.source, [tip], []),
    );
    assert.deepEqual(outcomes(result), { 'refs/heads/a': 'ok', 'refs/heads/b': 'ok' });
    await runGit(gitDirectory(repository), ['fsck', '--full', '--strict']);
  });

  test('a ref beside it, to what only lies in the store, is walked', async () => {
    const repository = await local.create('beside');
    const stray = await strayCommit(repository, 'beside');
    const tip = await local.commit('beside it');
    const result = await push(
      repository,
      { 'refs/heads/main': tip, 'refs/heads/stray': stray },
      await packOf(local.source, [tip], []),
    );
    assert.deepEqual(outcomes(result), { 'refs/heads/main': 'ok', 'refs/heads/stray': missing });
  });

  test('a pack that builds on what only lies in the store is walked', async () => {
    const repository = await local.create('upon');
    const stray = await strayCommit(repository, 'upon');
    const tree = await local.git('rev-parse', `${await local.commit('upon it')}^{tree}`);
    const tip = await local.git('commit-tree', tree, '-p', stray, '-m', 'on top');
    const pack = await packOf(local.source, [tip], [stray]);
    assert.deepEqual(outcomes(await push(repository, { 'refs/heads/main': tip }, pack)), {
      'refs/heads/main': missing,
    });
  });
});
