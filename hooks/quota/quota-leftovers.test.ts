/** What is kept for the sake of quotas goes with them, and claims with their pushes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import { Ground, repository } from './quota-ground.fixture.js';

/** An owner with a quota, and pushes to two of its repositories that are over. */
async function pushedTo(ground: Ground): Promise<void> {
  ground.sizes.set('team/app', 10).set('team/lib', 20);
  await ground.quotas.set({ owner: 'team' }, 500);
  for (const name of ['team/app', 'team/lib']) {
    assert.equal(await ground.judge(name, 5, `to ${name}`), undefined);
    await ground.settle(name, `to ${name}`, 30);
  }
}

test('nothing is kept for an owner without a quota', async () => {
  const ground = new Ground();
  await pushedTo(ground);
  assert.equal(ground.kept().length, 3);
  await ground.quotas.remove({ owner: 'team' });
  assert.deepEqual(ground.kept(), []);
  // Nor for one that is only looked at, nor for a repository that has another name.
  assert.equal((await ground.quotas.show({ owner: 'team' })).usedBytes, 60);
  ground.measured = 0;
  await ground.quotas.renamed(repository('team/app'), repository('other/app'));
  assert.equal(ground.measured, 0);
  assert.deepEqual(ground.kept(), []);
});

test('where repositories have quotas of their own, what these need stays', async () => {
  const ground = new Ground();
  await pushedTo(ground);
  ground.sizes.set('team/other', 1);
  await ground.quotas.set(repository('team/lib'), 100);
  assert.equal(await ground.judge('team/lib', 40, 'running'), undefined);
  await ground.quotas.remove({ owner: 'team' });
  assert.deepEqual(ground.kept(), ['quotas/claims/team', 'quotas/usage/team/id%20of%20team%2Flib']);
  assert.match(String(await ground.judge('team/lib', 40, 'next')), /has 70 bytes of 100 bytes/);
  await ground.settle('team/lib', 'running', 70);
  await ground.quotas.set(repository('team/app'), 100);
  await ground.quotas.remove(repository('team/lib'));
  assert.equal(ground.kept().length, 2);
  ground.sizes.delete('team/app');
  await ground.quotas.deleted(repository('team/app'));
  assert.deepEqual(ground.kept(), []);
});

test('a quota that moves to another owner leaves nothing behind', async () => {
  const ground = new Ground();
  ground.sizes.set('one/app', 10);
  await ground.quotas.set(repository('one/app'), 100);
  assert.equal(await ground.judge('one/app', 5, 'a'), undefined);
  await ground.settle('one/app', 'a', 15);
  assert.equal(ground.kept().length, 2);
  ground.sizes.delete('one/app');
  ground.sizes.set('two/app', 15);
  await ground.quotas.renamed(repository('one/app'), repository('two/app'));
  assert.ok(
    ground.kept().every((key) => key.includes('/two')),
    ground.kept().join(),
  );
});

test('whenever a quota is removed while a push is judged by it, nothing is left', async () => {
  for (const subject of [{ owner: 'team' }, repository('team/app')]) {
    let raced = true;
    for (let at = 1; raced; at += 1) {
      const ground = new Ground();
      ground.sizes.set('team/app', 10);
      await ground.quotas.set(subject, 500);
      let transactions = 0;
      raced = false;
      ground.before = async () => {
        transactions += 1;
        if (transactions !== at) return;
        raced = true;
        await ground.quotas.remove(subject);
      };
      const allowance = await ground.quotas.allowance(repository('team/app'));
      assert.equal(await ground.judge('team/app', 5, 'push'), undefined);
      await (allowance?.settle('push', true) ?? ground.quotas.settle('push', true));
      const left = raced ? [] : ['quotas/usage', 'quotas/claims'];
      assert.equal(ground.kept().length, left.length, `at ${at}: ${ground.kept().join()}`);
      assert.ok(at < 50);
    }
  }
});

test('what a push claimed is given back though there was no quota when it began, or its repository has another name', async () => {
  const ground = new Ground();
  ground.sizes.set('one/app', 10).set('two/app', 10);
  const allowance = await ground.quotas.allowance(repository('one/app'));
  assert.equal(allowance, undefined);
  assert.equal(ground.quotas.settle('push', true), undefined, 'it claimed nothing');
  await ground.quotas.set({ owner: 'one' }, 100);
  await ground.quotas.set({ owner: 'two' }, 100);
  assert.equal(await ground.judge('one/app', 40, 'push'), undefined);
  assert.equal(ground.claimed('one'), 40);
  // Renamed, and judged again.
  assert.equal(await ground.judge('two/app', 40, 'push'), undefined);
  assert.deepEqual([ground.claimed('one'), ground.claimed('two')], [0, 40]);
  ground.sizes.set('two/app', 50);
  await ground.quotas.settle('push', true);
  assert.equal(ground.claimed('two'), 0);
  assert.equal((await ground.quotas.list()).find(({ name }) => name === 'two')?.usedBytes, 50);
  assert.equal(ground.quotas.settle('push', true), undefined, 'once');
});

test('what cannot be measured after a push counts as what the push claimed, and not twice', async () => {
  const ground = new Ground();
  await pushedTo(ground);
  assert.equal(await ground.judge('team/app', 40, 'push'), undefined);
  ground.away.add('team/app');
  await ground.settle('team/app', 'push', 70);
  assert.equal(ground.claimed('team'), 0);
  assert.equal((await ground.quotas.list())[0]?.usedBytes, 100);
});

test('a claim is given back though the coordinator fails when the push is over', async () => {
  for (const committed of [true, false]) {
    const ground = new Ground();
    await pushedTo(ground);
    assert.equal(await ground.judge('team/app', 40, 'push'), undefined);
    ground.late = Promise.resolve();
    let failures = 2;
    ground.before = async ({ success }) => {
      if (failures === 0 || success.every(({ type }) => type === 'get')) return;
      failures -= 1;
      throw new QuorateError('unavailable', 'no leader');
    };
    await ground.settle('team/app', 'push', committed ? 70 : undefined);
    assert.equal(failures, 0);
    assert.equal(ground.claimed('team'), 0);
    assert.equal((await ground.quotas.list())[0]?.usedBytes, committed ? 100 : 60);
  }
});

test('pushes go on though one of the repositories of an owner cannot be measured', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 10).set('team/lost', 300);
  ground.away.add('team/lost');
  assert.equal((await ground.quotas.set({ owner: 'team' }, 500)).usedBytes, 10);
  assert.equal(await ground.judge('team/app', 5, 'a'), undefined);
  ground.away.delete('team/lost');
  ground.nowMs += 700_000;
  assert.equal((await ground.quotas.show({ owner: 'team' })).usedBytes, 310);
  ground.away.add('team/lost');
  assert.match(String(await ground.judge('team/app', 190)), /owner team has 315 bytes/);
});

test('of an owner whose stores do not answer, a count asks for some repositories only', async () => {
  const ground = new Ground();
  for (let n = 0; n < 300; n += 1) {
    ground.sizes.set(`team/app${n}`, 1);
    ground.away.add(`team/app${n}`);
  }
  await ground.quotas.set({ owner: 'team' }, 500);
  assert.equal(ground.measured, 100);
});

test("for a repository's own quota the other repositories of its owner are not measured", async () => {
  const ground = new Ground();
  for (let n = 0; n < 50; n += 1) ground.sizes.set(`team/app${n}`, 10);
  await ground.quotas.set(repository('team/app1'), 100);
  ground.measured = 0;
  assert.equal(await ground.judge('team/app1', 50, 'a'), undefined);
  await ground.settle('team/app1', 'a', 60);
  assert.match(String(await ground.judge('team/app1', 50, 'b')), /has 60 bytes of 100 bytes/);
  ground.nowMs += 6_000;
  ground.sizes.set('team/app1', 30);
  assert.equal(await ground.judge('team/app1', 50, 'c'), undefined, 'measured anew');
  assert.ok(ground.measured < 8, `${ground.measured} measurements`);
  assert.equal(ground.kept().length, 2);
});
