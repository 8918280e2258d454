import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import type { Transaction } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { allRefs } from '../contract/visible-refs.js';
import { type LocalFixture, runGit, startLocal, zeroOid } from '../local/testing/local-fixture.js';
import { intercepting, type Step } from './testing/fault-coordinator.js';
import { inRounds } from './testing/rounds.js';
import { until } from '../contract/testing/until.js';

const open: LocalFixture[] = [];
afterEach(async () => {
  for (const fixture of open.splice(0)) await fixture.remove().catch(() => undefined);
});

const main = 'refs/heads/main';
const newFork = (name: string) => ({
  name,
  access: { public: false, grants: {} },
  visible: allRefs,
});

const passes = (): undefined => undefined;

/** A fixture whose transactions go through a step that tests set, and a repository with a commit. */
async function scene(): Promise<{
  local: LocalFixture;
  source: Repository;
  meet: (step: (transaction: Transaction) => Step | undefined) => void;
}> {
  let met: (transaction: Transaction) => Step | undefined = passes;
  const local = await startLocal({
    wrap: (coordinator) => intercepting(coordinator, (transaction) => met(transaction)),
  });
  open.push(local);
  const source = await local.create('source');
  const newOid = await local.commit('one');
  await local.push(source, [{ ref: main, oldOid: zeroOid, newOid }]);
  return { local, source, meet: (step) => (met = step) };
}

/** Stops the fixture and starts another one on its data, without what was in the way. */
async function restart(local: LocalFixture): Promise<LocalFixture> {
  await local.stop();
  open.splice(open.indexOf(local), 1);
  const again = await startLocal({ directory: local.directory, source: local.source });
  open.push(again);
  return again;
}

const puts = (prefix: string) => (transaction: Transaction) =>
  transaction.success.some(({ type, key }) => type === 'put' && key.startsWith(prefix));

async function keysBelow(
  { coordinator }: LocalFixture,
  prefix: string,
): Promise<readonly string[]> {
  const { entries } = await coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) });
  return entries.map(({ key }) => key);
}

function poolCount({ directory }: LocalFixture): number {
  const root = join(directory, 'store', 'pools');
  return readdirSync(root).flatMap((shard) => readdirSync(join(root, shard))).length;
}

async function assertWhole(local: LocalFixture, { id }: Repository): Promise<void> {
  const gitDir = join(local.directory, 'store', 'repos', id.slice(0, 2), id, 'git');
  assert.equal(await runGit(gitDir, ['fsck', '--full', '--no-dangling']), '');
  assert.match(await runGit(gitDir, ['rev-parse', main]), /^[0-9a-f]{40}\n$/);
}

test('a fork whose transactions fail, or whose answers are lost, leaves nothing that a start does not end', async () => {
  const places = [
    ['the pool', 'pools/'],
    ['the member', 'pool-members/'],
    ['the name', keys.names],
  ] as const;
  for (const [what, prefix] of places) {
    for (const happens of [true, false]) {
      const { local, source, meet } = await scene();
      let failed = false;
      meet((transaction) => {
        if (failed || !puts(prefix)(transaction)) return undefined;
        failed = true;
        return async (run) => {
          if (happens) await run();
          throw new QuorateError('outcome-unknown', 'the answer is lost');
        };
      });
      const forking = local.backend.repositories.fork(source, newFork('fork'));
      // The last step is settled at once.
      if (prefix !== keys.names) await assert.rejects(forking, { code: 'outcome-unknown' });
      else if (happens) await assertWhole(local, await forking);
      else await assert.rejects(forking, { code: 'unavailable', message: /was not made/ });
      const again = await restart(local);
      const made = await again.backend.repositories.get('fork');
      assert.equal(made !== undefined, happens && prefix === keys.names, what);
      assert.equal(poolCount(again), made === undefined ? 0 : 1, what);
      assert.equal((await keysBelow(again, 'pools/')).length, made === undefined ? 0 : 1, what);
      const members = made === undefined ? 0 : 2;
      assert.equal((await keysBelow(again, 'pool-members/')).length, members, what);
      assert.equal((await keysBelow(again, keys.repos)).length, made === undefined ? 1 : 2, what);
      await assertWhole(again, source);
      await assertWhole(
        again,
        made ?? (await again.backend.repositories.fork(source, newFork('fork'))),
      );
    }
  }
});

test('a pool is not given up when somebody joins while its last member takes its objects back', async () => {
  const { local, source, meet } = await scene();
  const first = await local.backend.repositories.fork(source, newFork('first'));
  let joined: Repository | undefined;
  const given: boolean[] = [];
  meet((transaction) => {
    const tombstone = transaction.success.some(
      ({ type, key }) => type === 'put' && key.startsWith('pools/'),
    );
    if (!tombstone) return undefined;
    return async (run) => {
      joined ??= await local.backend.repositories.fork(source, newFork('second'));
      const result = await run();
      given.push(result.succeeded);
      return result;
    };
  });
  await local.backend.repositories.delete(first.id);
  await until('it is given up', () => given.length > 0);
  assert.deepEqual(given, [false]);
  const again = await restart(local);
  const [pool] = await keysBelow(again, 'pools/');
  assert.ok(pool !== undefined && joined !== undefined);
  assert.equal((await keysBelow(again, 'pool-members/')).length, 2);
  assert.equal(poolCount(again), 1);
  for (const repository of [source, joined]) await assertWhole(again, repository);
  // Whoever took its objects back shares them again with its next fork.
  const third = await again.backend.repositories.fork(source, newFork('third'));
  await assertWhole(again, third);
  const { sharedBy } = await again.backend.repositories.stats(source.id);
  assert.equal(sharedBy, 3);
});

test('files of a pool go on a tombstone, never because a record is missing', async () => {
  const { local, source } = await scene();
  const fork = await local.backend.repositories.fork(source, newFork('fork'));
  const [pool = ''] = await keysBelow(local, 'pools/');
  const stray = join(local.directory, 'store', 'pools', 'ff', 'f'.repeat(32), 'git', 'objects');
  await runGit('/', ['init', '-q', '--bare', join(stray, '..')]);
  const again = await restart(local);
  assert.ok(existsSync(stray));
  await again.coordinator.transaction({
    compares: [],
    success: [{ type: 'delete', key: pool }],
    failure: [],
  });
  const last = await restart(again);
  assert.equal(poolCount(last), 2);
  for (const repository of [source, fork]) await assertWhole(last, repository);
});

test('however many forks are measured, who shares their pool is counted once; forks made and deleted here are seen at once', async () => {
  let counts = 0;
  let nowMs = 0;
  // No round of the backend comes in between: it would count, too.
  const local = await startLocal({
    clock: { ...inRounds().clock, monotonicMs: () => nowMs },
    wrap: (coordinator) => ({
      ...intercepting(coordinator, passes),
      range: (key, options) => {
        if (key.startsWith('pool-members/') && options?.limit !== 2) counts += 1;
        return coordinator.range(key, options);
      },
    }),
  });
  open.push(local);
  const { repositories } = local.backend;
  const source = await local.create('source');
  const newOid = await local.commit('one');
  await local.push(source, [{ ref: main, oldOid: zeroOid, newOid }]);
  const forks = [source];
  for (const name of ['first', 'second', 'third']) {
    forks.push(await repositories.fork(source, newFork(name)));
  }
  const sharedBy = async ({ id }: Repository): Promise<number | undefined> =>
    (await repositories.stats(id)).sharedBy;
  counts = 0;
  // At the same time, and one after the other.
  assert.deepEqual(await Promise.all(forks.map(sharedBy)), [4, 4, 4, 4]);
  for (const fork of forks) assert.equal(await sharedBy(fork), 4);
  assert.equal(counts, 1);
  // Others may have made some, or deleted them.
  nowMs += 11_000;
  assert.equal(await sharedBy(source), 4);
  assert.equal(counts, 2);
  const fourth = await repositories.fork(source, newFork('fourth'));
  assert.equal(await sharedBy(source), 5);
  await repositories.delete(fourth.id);
  await until('its files are gone', async () => (await sharedBy(source)) === 4);
});
