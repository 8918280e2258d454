import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { QuarantineKey } from '../contract/replica.js';
import { observeSyncs } from '../git/testing/observe-syncs.js';
import { SpareQuarantines } from './spare-quarantines.js';
import { packOf } from './testing/local-fixture.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const { signal } = new AbortController();
const spareNames = ['pack', 'prepared'];

let scene: ReplicaScene;
beforeEach(async () => {
  scene = await openReplica();
});
afterEach(async () => {
  await scene.close();
});

const at = (...names: readonly string[]): string => join(scene.root, ...names);
const quarantines = (): string[] => readdirSync(at('quarantine'));
const spares = (): string[] => readdirSync(at('spares'));
const inodes = (directory: string): readonly number[] =>
  ['.', ...spareNames].map((name) => statSync(join(directory, name)).ino);

/** Where a push is quarantined, whose commit is prepared. */
async function prepared(ref: string): Promise<{ key: QuarantineKey; path: string }> {
  const tip = await scene.commit(ref);
  const key = await scene.prepare([create(ref, tip)]);
  scene.log.commit(key.pushId, [create(ref, tip)]);
  return { key, path: at('quarantine', quarantines()[0] ?? '') };
}

/** With what an apply leaves for later: only who closes a replica waits for that. */
async function apply(): Promise<void> {
  await scene.replica.apply(scene.id, scene.log.committed.generation);
  await scene.replica.close();
}

/** A push that was applied has left a spare quarantine. */
async function leaveSpare(): Promise<void> {
  await prepared('refs/heads/first');
  await apply();
  assert.deepEqual([quarantines().length, spares().length], [0, 1]);
}

/** As `leaveSpare`, unless there is one. */
async function leaveSpareAgain(): Promise<void> {
  if (spares().length > 0) return;
  await prepared(
    `refs/heads/${scene.log.committed.generation === 0 ? 'first' : scene.log.committed.generation}`,
  );
  await apply();
}

async function upload(pushId: string, tip: string): Promise<QuarantineKey> {
  const key = { repositoryId: scene.id, pushId, attempt: 1 };
  const bytes = await packOf(scene.source, [tip], []);
  const pack = (async function* whole() {
    yield bytes;
  })();
  await scene.replica.upload(key, pack, { settings: {}, signal, progress: () => undefined });
  return key;
}

test('what a push was quarantined in is used by the next, its name on disk before the push is prepared', async () => {
  const first = await prepared('refs/heads/first');
  const before = inodes(first.path);
  await apply();
  assert.deepEqual([quarantines(), spares().length], [[], 1]);
  const [name = ''] = spares();
  assert.deepEqual(readdirSync(at('spares', name)).toSorted(), spareNames);
  assert.deepEqual(readdirSync(at('spares', name, 'pack')), []);

  const synced: string[] = [];
  await observeSyncs(
    (path) => synced.push(path),
    async () => {
      const second = await prepared('refs/heads/second');
      assert.deepEqual(inodes(second.path), before);
    },
  );
  assert.ok(synced.includes(at('quarantine')), synced.join());
  assert.deepEqual(spares(), []);
  await apply();
  assert.deepEqual([quarantines(), spares().length], [[], 1]);
  assert.deepEqual((await scene.replica.verify(scene.id, { signal })).problems, []);
});

/** A push to the branch that `leaveSpare` made, or to another one, whose pack comes with the request to prepare. */
async function bringing(
  ref: string,
): Promise<Parameters<ReplicaScene['replica']['prepare']>[0] & { readonly pack: Buffer }> {
  const oldOid = await scene.git('rev-parse', 'refs/heads/first');
  const newOid = await scene.commit(`next of ${ref}`, oldOid);
  const command = ref === 'refs/heads/first' ? { ref, oldOid, newOid } : create(ref, newOid);
  const key = { repositoryId: scene.id, pushId: `bringing-${newOid.slice(0, 8)}`, attempt: 1 };
  const pack = await packOf(scene.source, [newOid], [oldOid]);
  return { ...scene.request(key, [command], scene.log.committed.generation), pack };
}

/** A branch that moves is judged without git's looking into the quarantine, a new one is not. */
for (const ref of ['refs/heads/first', 'refs/heads/second']) {
  test(`a pack that comes with the request is taken in what is spare, which then gets its name (${ref})`, async () => {
    await leaveSpare();
    const before = inodes(at('spares', spares()[0] ?? ''));
    const request = await bringing(ref);
    const synced: string[] = [];
    await observeSyncs(
      (path) => synced.push(path),
      async () => {
        const twice = [scene.replica.prepare(request), scene.replica.prepare(request)];
        for (const { refused } of await Promise.all(twice)) assert.deepEqual([...refused], []);
      },
    );
    const [name = ''] = quarantines();
    assert.deepEqual([quarantines().length, spares()], [1, []]);
    const path = at('quarantine', name);
    assert.deepEqual(inodes(path), before);
    const packs = readdirSync(join(path, 'pack')).map((file) => join(path, 'pack', file));
    assert.equal(packs.length, 2);
    for (const each of [...packs, join(path, 'pack')]) {
      assert.ok(synced.indexOf(each) >= 0, each);
      assert.ok(synced.indexOf(each) < synced.indexOf(at('quarantine')), each);
    }
    assert.equal((await scene.replica.heldPushes(scene.id)).length, 1);
    scene.log.commit(request.key.pushId, request.commands);
    await apply();
    assert.deepEqual([quarantines(), spares().length], [[], 1]);
    assert.deepEqual((await scene.replica.verify(scene.id, { signal })).problems, []);
  });
}

test('what a pack was taken in before it is refused is not used again', async () => {
  await leaveSpare();
  const request = await bringing('refs/heads/first');
  const pack = Buffer.from('PACK or not');
  await assert.rejects(scene.replica.prepare({ ...request, pack }), { code: 'invalid-argument' });
  assert.deepEqual([quarantines(), spares()], [[], []]);
});

test('a push that is over before what it was taken in has its name leaves nothing of it', async () => {
  for (const wait of [20, 5, 1, 0]) {
    await leaveSpareAgain();
    const { key, pack, settings, basis } = await bringing('refs/heads/first');
    scene.replica.startTaking({ key, pack, settings, basis });
    await delay(wait);
    await scene.replica.abort(key);
    assert.deepEqual([quarantines(), scene.replica.quarantines], [[], []]);
    for (const name of spares()) assert.deepEqual(readdirSync(at('spares', name, 'pack')), []);
  }
});

test('the mark of the push before does not count', async () => {
  await leaveSpare();
  const key = await upload('not-prepared', await scene.commit('second'));
  const [name = ''] = quarantines();
  assert.match(readFileSync(at('quarantine', name, 'prepared'), 'utf8'), /refs\/heads\/first/);
  const again = await scene.reopen();
  await again.dropIfOver(key, async (locks) => {
    assert.equal(locks, undefined);
    return false;
  });
  assert.deepEqual(await again.heldPushes(scene.id), []);
});

test('a mark that was written over in part does not count', async () => {
  await leaveSpare();
  const { key, path } = await prepared('refs/heads/second');
  assert.equal((await scene.replica.heldPushes(scene.id)).length, 1);
  const mark = join(path, 'prepared');
  const text = readFileSync(mark, 'utf8');
  for (const damaged of [
    text.slice(0, 30),
    text.replace('second', 'fecond'),
    text.replace(/,"checksum":"[^"]*"/, ''),
  ]) {
    writeFileSync(mark, damaged);
    assert.deepEqual(await scene.replica.heldPushes(scene.id), [], damaged.trim());
  }
  writeFileSync(mark, text);
  await scene.replica.dropIfOver(key, async (found) => found === undefined);
  assert.equal(quarantines().length, 1);
});

test('the mark of an earlier version, which did not say whose it is, counts', async () => {
  const { key, path } = await prepared('refs/heads/first');
  const mark = { basis: 0, lockRevisions: [{ key: 'lock', createRevision: 9 }] };
  writeFileSync(join(path, 'prepared'), JSON.stringify(mark));
  const again = await scene.reopen();
  await again.dropIfOver(key, async (found) => {
    assert.deepEqual(found, mark);
    return false;
  });
});

for (const place of ['pack/more', 'more']) {
  test(`a quarantine is removed that still holds something (${place})`, async () => {
    const { path } = await prepared('refs/heads/first');
    writeFileSync(join(path, place), '');
    await apply();
    assert.deepEqual([quarantines(), spares()], [[], []]);
    await prepared('refs/heads/second');
    await apply();
    assert.deepEqual([quarantines(), spares().length], [[], 1]);
  });
}

test('a quarantine is not taken twice, spare ones or none', async () => {
  await leaveSpare();
  const tip = await scene.commit('second');
  await upload('taken-twice', tip);
  for (const left of [0, 1]) {
    await assert.rejects(upload('taken-twice', tip), { code: 'storage-failure' });
    assert.deepEqual([quarantines().length, spares().length], [1, left]);
    if (left === 0) {
      const other = await scene.commit('third');
      const key = await upload('an-other', other);
      const commands = [create('refs/heads/third', other)];
      await scene.replica.prepare(scene.request(key, commands));
      scene.log.commit(key.pushId, commands);
      await apply();
      assert.equal(spares().length, 1);
    }
  }
});

test('spare quarantines go at a start, and are missed by nobody', async () => {
  await leaveSpare();
  const again = await scene.reopen();
  assert.deepEqual(spares(), []);
  await prepared('refs/heads/second');
  await again.applied(scene.id);
  rmSync(at('spares'), { recursive: true });
  await apply();
  assert.deepEqual(quarantines(), []);
});

test('what is not known to be as usual, or is too much, is not kept', async () => {
  const kept = new SpareQuarantines(at('spares'));
  assert.equal(kept.placeFor('unknown'), undefined);
  kept.marked('of-a-hook');
  kept.opened('of-a-hook');
  kept.marked('of-a-hook');
  assert.equal(kept.placeFor('of-a-hook'), undefined);
  kept.marked('aborted');
  kept.forget('aborted');
  assert.equal(kept.placeFor('aborted'), undefined);
  for (let count = 0; count < 64; count++) {
    kept.marked('usual');
    kept.add(kept.placeFor('usual') ?? assert.fail('it was not kept'));
  }
  kept.marked('usual');
  assert.equal(kept.placeFor('usual'), undefined);
});

test('a push that has gone on under locks is not marked as one without, however late that is asked', async () => {
  const tip = await scene.commit('contended');
  const key = await upload('contended-push', tip);
  const locked = scene.request(key, [create('refs/heads/main', tip)]);
  const without = { ...locked, lockRevisions: [{ key: 'fe', createRevision: 3 }], headRevision: 5 };
  const asked = async (request: typeof locked): Promise<string> => {
    const answer = await scene.replica.prepare(request).catch(({ code }: { code: string }) => code);
    return typeof answer === 'string' ? answer : 'prepared';
  };
  const marked = async (): Promise<number | undefined> => {
    let headRevision: number | undefined;
    await scene.replica.dropIfOver(key, async (mark) => {
      headRevision = mark?.headRevision;
      return mark === undefined;
    });
    return headRevision;
  };
  assert.equal(await asked(without), 'prepared');
  assert.equal(await marked(), 5);
  const [, second] = await Promise.all([asked(without), asked(locked)]);
  assert.equal(second, 'prepared');
  assert.equal(await marked(), undefined);
  assert.equal(await asked(without), 'aborted');
  assert.equal(await marked(), undefined);
});
