import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import { ownerOf } from './quota.js';
import { Ground, repository } from './quota-ground.fixture.js';

test('the owner is the first segment of the name', () => {
  assert.equal(ownerOf('team/app'), 'team');
  assert.equal(ownerOf('team/tools/lint'), 'team');
  assert.equal(ownerOf('app'), 'app');
});

test('without a quota nothing is measured or written', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 5_000_000);
  assert.equal(await ground.judge('team/app', 10_000_000), undefined);
  assert.equal(await ground.quotas.allowance(repository('team/app')), undefined);
  assert.equal(ground.measured, 0);
  assert.equal(ground.memory.entries.size, 0);
});

test("what is stored, claimed and brought is held against both quotas, the repository's and the owner's", async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 100).set('team/lib', 200).set('other/app', 900);
  await ground.quotas.set({ owner: 'team' }, 500);
  await ground.quotas.set(repository('team/app'), 250);
  assert.equal(await ground.judge('team/app', 50, 'a'), undefined);
  assert.match(
    (await ground.judge('team/app', 101, 'b')) ?? '',
    /^quota exceeded: repository team\/app has 150 bytes of 250 bytes, and this push brings 101 bytes$/,
  );
  assert.match(
    (await ground.judge('team/lib', 151, 'c')) ?? '',
    /^quota exceeded: owner team has 350 bytes of 500 bytes, and this push brings 151 bytes$/,
  );
  assert.equal(await ground.judge('team/lib', 149, 'd'), undefined);
  assert.equal(await ground.judge('other/app', 10_000, 'e'), undefined);
  // Judged again in another round, a push does not count twice.
  assert.equal(await ground.judge('team/app', 50, 'a'), undefined);
  await ground.settle('team/lib', 'd');
  assert.equal(await ground.judge('team/lib', 149, 'f'), undefined, 'what was given up is free');
  await ground.settle('team/lib', 'f', 349);
  assert.match((await ground.judge('team/lib', 2, 'g')) ?? '', /owner team has 499 bytes/);
  assert.deepEqual(ground.counted.filter((outcome) => outcome === 'refused').length, 3);
});

test('two pushes judged at the same time are not both let in when only one fits', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 0);
  await ground.quotas.set(repository('team/app'), 100);
  const judged = await Promise.all(
    Array.from({ length: 8 }, (_, n) => ground.judge('team/app', 30, `p${n}`)),
  );
  assert.equal(judged.filter((refusal) => refusal === undefined).length, 3);
});

/** Many repositories of one owner, who has room for all. */
async function crowd(ground: Ground, count: number): Promise<readonly string[]> {
  const names = Array.from({ length: count }, (_, n) => `team/app${n}`);
  for (const name of names) ground.sizes.set(name, 0);
  ground.diskBytes = 100_000;
  await ground.quotas.set({ owner: 'team' }, 100_000);
  ground.measured = 0;
  return names;
}

test('pushes to many repositories of one owner at the same time are in no way of each other', async () => {
  const ground = new Ground();
  const names = await crowd(ground, 200);
  const judged = await Promise.all(names.map((name) => ground.judge(name, 30, `to ${name}`)));
  assert.deepEqual(new Set(judged), new Set([undefined]));
  assert.equal(ground.measured, 200, 'all are counted once, for all of them');
  await Promise.all(names.map((name) => ground.settle(name, `to ${name}`, 30)));
  assert.equal((await ground.quotas.list())[0]?.usedBytes, 6000);
  const claims = [...ground.memory.entries.values()].find(({ key }) => key.includes('claims'));
  assert.match(Buffer.from(claims?.value ?? []).toString(), /"claims":\{\}/);
});

test('of pushes to one repository that end together, what was measured last is noted', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 0);
  await ground.quotas.set({ owner: 'team' }, 1000);
  const pushes = Array.from({ length: 10 }, (_, n) => `push${n}`);
  for (const push of pushes) await ground.judge('team/app', 10, push);
  await Promise.all(pushes.map((push, n) => ground.settle('team/app', push, 10 * (n + 1))));
  assert.equal((await ground.quotas.list())[0]?.usedBytes, 100);
});

test('who fits by what is known does not wait for a long count of all; who does not fit does', async () => {
  const ground = new Ground();
  const [name = '', other = ''] = await crowd(ground, 20);
  assert.equal(await ground.judge(name, 30, 'first'), undefined);
  await ground.settle(name, 'first', 30);
  ground.nowMs += 700_000;
  ground.late = Promise.resolve();
  const events = new EventEmitter();
  const counted = once(events, 'counted');
  ground.measuring = async () => void (await counted);
  assert.equal(await ground.judge(name, 30, 'second'), undefined);
  const large = ground.judge(other, 99_980, 'large');
  events.emit('counted');
  assert.match(String(await large), /owner team has 60 bytes/, 'what is stored, and a claim');
});

test('a push that ends slowly does not make uncounted what others brought', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 0);
  await ground.quotas.set(repository('team/app'), 100);
  for (const push of ['slow', 'quick']) await ground.judge('team/app', 30, push);
  await ground.whileMeasuring(
    () => ground.settle('team/app', 'slow', 30),
    () => ground.settle('team/app', 'quick', 60),
  );
  assert.match(String(await ground.judge('team/app', 45)), /has 60 bytes of 100 bytes/);
});

test('nor does a count of all that takes long', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 30);
  await ground.quotas.set({ owner: 'team' }, 100);
  await ground.judge('team/app', 30, 'quick');
  ground.sizes.set('team/app', 40);
  const { usedBytes } = await ground.whileMeasuring(
    () => ground.quotas.show({ owner: 'team' }),
    () => ground.settle('team/app', 'quick', 60),
  );
  assert.equal(usedBytes, 60);
});

test('what forks share is divided among them', async () => {
  const ground = new Ground();
  for (const name of ['team/app', 'team/fork', 'other/fork']) {
    ground.sizes.set(name, 10);
    ground.shared.set(name, { sharedBytes: 300, sharedBy: 3 });
  }
  const { usedBytes } = await ground.quotas.show(repository('team/app'));
  assert.equal(usedBytes, 110);
  assert.equal((await ground.quotas.show({ owner: 'team' })).usedBytes, 220);
});

test('a claim of a process that died is given up after a while', async () => {
  const ground = new Ground();
  ground.sizes.set('app', 0);
  await ground.quotas.set(repository('app'), 100);
  assert.equal(await ground.judge('app', 80, 'died'), undefined);
  assert.notEqual(await ground.judge('app', 80, 'next'), undefined);
  ground.nowMs += 901_000;
  assert.equal(await ground.judge('app', 80, 'next'), undefined);
});

test('before a push is refused, what is stored is measured anew, and not for each push', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 90);
  await ground.quotas.set({ owner: 'team' }, 100);
  ground.nowMs += 6_000;
  // Maintenance, and another repository that went.
  ground.sizes.set('team/app', 10);
  assert.equal(await ground.judge('team/app', 50, 'a'), undefined);
  ground.measured = 0;
  for (let n = 0; n < 10; n += 1)
    assert.notEqual(await ground.judge('team/app', 50, `n${n}`), undefined);
  assert.ok(ground.measured <= 1, `${ground.measured} measurements`);
});

test('who is over a quota does not have very many repositories measured without end', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 90);
  await ground.quotas.set({ owner: 'team' }, 100);
  // A count takes a minute.
  ground.measuring = async () => void (ground.nowMs += 60_000);
  assert.notEqual(await ground.judge('team/app', 50), undefined);
  ground.measured = 0;
  ground.nowMs += 200_000;
  assert.notEqual(await ground.judge('team/app', 50), undefined);
  assert.equal(ground.measured, 0);
  ground.nowMs += 60_000;
  assert.notEqual(await ground.judge('team/app', 50), undefined);
  assert.equal(ground.measured, 1);
});

test('who gives a push up does not wait for a count', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 90);
  await ground.quotas.set({ owner: 'team' }, 100);
  const gone = new AbortController();
  const events = new EventEmitter();
  ground.measuring = async () => {
    gone.abort();
    await once(events, 'counted');
  };
  await assert.rejects(ground.judge('team/app', 50, 'gone', gone.signal), { code: 'cancelled' });
  ground.measuring = () => Promise.resolve();
  events.emit('counted');
  assert.equal(ground.claimed('team'), 0);
  assert.equal(await ground.judge('team/app', 5), undefined);
});

test('the pusher is warned from the threshold on', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 500);
  await ground.quotas.set(repository('team/app'), 1000);
  assert.equal(await ground.judge('team/app', 299, 'a'), undefined);
  assert.deepEqual(ground.told, []);
  await ground.settle('team/app', 'a');
  assert.equal(await ground.judge('team/app', 300, 'b'), undefined);
  assert.deepEqual(ground.told, [
    'warning: repository team/app uses 80 % of its quota: 800 bytes of 1000 bytes\n',
  ]);
});

test('what may come is told before it comes', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 5000);
  ground.diskBytes = 100_000;
  await ground.quotas.set(repository('team/app'), 8000);
  await ground.quotas.set({ owner: 'team' }, 20_000);
  const allowance = await ground.quotas.allowance(repository('team/app'));
  assert.equal(allowance?.maxPackBytes, 3000);
  assert.match(
    allowance?.refuse() ?? '',
    /^quota exceeded: repository team\/app has 4.9 KiB of 7.8 KiB/,
  );
  ground.sizes.set('team/app', 9000);
  ground.nowMs += 700_000;
  const none = await ground.quotas.allowance(repository('team/app'));
  assert.equal(none?.maxPackBytes, 1024, 'a pack of no object is taken, and judged');
  assert.equal(await ground.judge('team/app', 0), undefined);
});

function refuses(action: Promise<unknown>): Promise<void> {
  return assert.rejects(action, (error) => {
    assert.ok(error instanceof QuorateError);
    assert.equal(error.code, 'failed-precondition');
    assert.match(error.message, /quota\.overcommit/);
    return true;
  });
}

test('no more is promised than may be; what is part of an owner counts once; lowering is not refused', async () => {
  const ground = new Ground({ overcommitPercent: 150 });
  for (const name of ['team/app', 'team/lib', 'solo']) ground.sizes.set(name, 1);
  await ground.quotas.set({ owner: 'team' }, 900);
  await ground.quotas.set(repository('team/app'), 800);
  await ground.quotas.set(repository('team/lib'), 800);
  await ground.quotas.set(repository('solo'), 600);
  assert.deepEqual(await ground.quotas.promised(), { bytes: 1500, maxBytes: 1500 });
  await refuses(ground.quotas.set({ owner: 'new' }, 1));
  await refuses(ground.quotas.set({ owner: 'team' }, 901));
  // The disk became smaller.
  ground.diskBytes = 500;
  await ground.quotas.set({ owner: 'team' }, 850);
  await refuses(ground.quotas.set({ owner: 'team' }, 900));
  ground.diskBytes = 1000;
  ground.sizes.delete('solo');
  await ground.quotas.set({ owner: 'new' }, 600);
});

test('two quotas set at the same time do not promise too much together', async () => {
  const ground = new Ground();
  const set = await Promise.allSettled(
    ['a', 'b', 'c'].map((owner) => ground.quotas.set({ owner }, 400)),
  );
  assert.equal(set.filter(({ status }) => status === 'fulfilled').length, 2);
});

test('a quota is forgotten with its repository, and its bytes follow it to another owner', async () => {
  const ground = new Ground();
  ground.sizes.set('one/app', 100).set('two/app', 10);
  await ground.quotas.set({ owner: 'one' }, 300);
  await ground.quotas.set({ owner: 'two' }, 300);
  await ground.quotas.set(repository('one/app'), 200);
  ground.sizes.delete('one/app');
  ground.sizes.set('two/moved', 100);
  // As the directory backend does, whose ids are names.
  await ground.quotas.copy(repository('one/app').id, repository('two/moved').id);
  await ground.quotas.deleted(repository('one/app'));
  await ground.quotas.renamed(repository('one/app'), repository('two/moved'));
  const reports = await ground.quotas.list();
  assert.deepEqual(
    reports.map(({ kind, name, usedBytes }) => `${kind} ${name} ${usedBytes}`),
    ['owner one 0', 'owner two 110', 'repository two/moved 100'],
  );
  await ground.quotas.deleted(repository('two/moved'));
  assert.equal((await ground.quotas.list()).length, 2);
  await assert.rejects(ground.quotas.remove(repository('two/moved')), /no such quota/);
});

test('a repository moves to an owner whose quota has room for it, and to no other', async () => {
  const ground = new Ground();
  ground.sizes.set('one/app', 100).set('two/app', 150);
  await ground.quotas.set({ owner: 'two' }, 200);
  await assert.rejects(ground.quotas.holdRoom(repository('one/app'), 'two/moved'), (error) => {
    assert.ok(error instanceof QuorateError);
    assert.equal(error.code, 'failed-precondition');
    assert.match(
      error.message,
      /^quota exceeded: owner two has 150 bytes of 200 bytes, and one\/app has 100 bytes/,
    );
    return true;
  });
  // Within an owner, and to one without a quota, nothing is asked.
  ground.measured = 0;
  await ground.quotas.holdRoom(repository('two/app'), 'two/other');
  await ground.quotas.holdRoom(repository('one/app'), 'three/app');
  assert.equal(ground.measured, 0);
  // What others push, or move, meanwhile counts.
  ground.sizes.set('two/app', 50);
  ground.nowMs += 6_000;
  const held = await ground.quotas.holdRoom(repository('one/app'), 'two/moved');
  assert.match((await ground.judge('two/app', 60, 'a')) ?? '', /owner two has 150 bytes/);
  ground.sizes.set('four/app', 60);
  await assert.rejects(ground.quotas.holdRoom(repository('four/app'), 'two/app4'), /150 bytes/);
  await held.release();
  assert.equal(await ground.judge('two/app', 60, 'a'), undefined);
});

test('a damaged record stops the push', async () => {
  const ground = new Ground();
  ground.sizes.set('app', 1);
  await ground.quotas.set(repository('app'), 10);
  const [key = ''] = [...ground.memory.entries.keys()].filter((each) => each.includes('limits'));
  ground.memory.put(key, Buffer.from('{"bytes":"much"}'));
  await assert.rejects(ground.judge('app', 1), /damaged/);
});
