import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, test } from 'node:test';
import { asQuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { PeerSource } from '../contract/replica.js';
import { Deferred } from '../git/spawner/deferred.js';
import { type CaughtUp, catchUpFrom } from './catch-up.js';
import type { LocalReplica } from './local-replica.js';
import { PruneGate } from './prune-gate.js';
import { comeTo } from './testing/come-to.js';
import { packOf, runGit, zeroOid } from './testing/local-fixture.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';

let scene: ReplicaScene;
let second: LocalReplica;
const source: PeerSource = (have, atLeast, ended) =>
  scene.replica.export(scene.id, { have, atLeast, signal: ended });
const nobody: PeerSource = () => Promise.reject(new Error('no peer is asked'));
beforeEach(async () => {
  scene = await openReplica();
  second = await scene.second();
});
afterEach(async () => {
  await scene.close();
});

/** Uploads to the first store, commits and applies there. */
async function push(
  commands: readonly RefCommand[],
  have: readonly string[] = [],
): Promise<number> {
  const key = await scene.prepare(commands, have);
  const generation = scene.log.commit(key.pushId, commands);
  await scene.replica.apply(scene.id, generation);
  return generation;
}

/** Prepared and committed, by the second store alone. */
async function commitOnSecond(command: RefCommand): Promise<number> {
  const key = { repositoryId: scene.id, pushId: 'on-the-second-only', attempt: 1 };
  const bytes = await packOf(scene.source, [command.newOid], []);
  const pack = (async function* whole() {
    yield bytes;
  })();
  await second.upload(key, pack, { settings: {}, signal, progress: () => undefined, basis: 0 });
  scene.log.prepared = [second.storeId];
  return scene.log.commit(key.pushId, [command]);
}

async function refsOf(replica: LocalReplica): Promise<Record<string, string>> {
  const read = await replica.read(scene.id, scene.log.committed.generation);
  read.release();
  return Object.fromEntries(read.snapshot.refs.map(({ name, oid }) => [name, oid]));
}

async function assertSound(generation: number): Promise<void> {
  assert.deepEqual(await second.state(scene.id), {
    generation,
    digest: scene.log.committed.digest,
  });
  const { problems, digest } = await second.verify(scene.id, { signal });
  assert.deepEqual([problems, digest], [[], scene.log.committed.digest]);
  await runGit(scene.secondGitDir, ['fsck', '--full', '--strict']);
  await comeTo([], () => second.quarantines);
}

test('a store without the repository gets all of it', async () => {
  assert.equal(await second.state(scene.id), undefined);
  const one = await scene.commit('one');
  await push([create(main, one)]);
  await push([create('refs/tags/one', one)]);
  await second.catchUp(scene.id, { atLeast: 1, source, signal });
  assert.deepEqual(await refsOf(second), { [main]: one, 'refs/tags/one': one });
  await assertSound(2);
});

for (const remove of ['destroy', 'setAside'] as const) {
  test(`a copy that is made again where one was takes pushes as that did (${remove})`, async () => {
    const one = await scene.commit('one');
    await push([create(main, one)]);
    const prepareOnSecond = async (pushId: string, content: string): Promise<void> => {
      const key = { repositoryId: scene.id, pushId, attempt: 1 };
      const tip = await scene.commit(content, one);
      const pack = Readable.from([await packOf(scene.source, [tip], [one])]);
      await second.upload(key, pack, { settings: {}, signal, progress: () => undefined, basis: 1 });
      // A new branch: git is asked whether it takes it.
      await second.prepare(scene.request(key, [create('refs/heads/new', tip)]));
      await second.abort(key);
    };
    await second.catchUp(scene.id, { atLeast: 1, source, signal });
    await prepareOnSecond('push-of-the-first-copy', 'two');
    await second[remove](scene.id);
    await second.catchUp(scene.id, { atLeast: 1, source, signal });
    await prepareOnSecond('push-of-the-next-copy', 'three');
    await assertSound(1);
  });
}

test('an empty repository is caught up as well', async () => {
  await second.catchUp(scene.id, { atLeast: 0, source, signal });
  await assertSound(0);
});

test('only what is missing is sent, and names that excluded each other change places', async () => {
  const one = await scene.commit('one');
  await push([create(main, one), create('refs/heads/a', one)]);
  await second.catchUp(scene.id, { atLeast: 1, source, signal });
  const two = await scene.commit('two', one);
  await push([{ ref: 'refs/heads/a', oldOid: one, newOid: zeroOid }]);
  await push([create('refs/heads/a/b', two)], [one]);
  await push([{ ref: main, oldOid: one, newOid: two }], [two]);
  let sentBytes = 0;
  const counted: PeerSource = async (have, atLeast, ended) => {
    assert.deepEqual([...new Set(have)], [one]);
    const exported = await source(have, atLeast, ended);
    const { pack } = exported;
    assert.ok(pack !== undefined);
    const counting = (async function* count() {
      for await (const chunk of pack) {
        sentBytes += chunk.length;
        yield chunk;
      }
    })();
    return { ...exported, pack: counting };
  };
  await second.catchUp(scene.id, { atLeast: 4, source: counted, signal });
  assert.deepEqual(await refsOf(second), { [main]: two, 'refs/heads/a/b': two });
  assert.ok(sentBytes > 0);
  await assertSound(4);
});

test('an entry that was prepared elsewhere is fetched from the peer, not written without objects', async () => {
  await second.catchUp(scene.id, { atLeast: 0, source, signal });
  const one = await scene.commit('one');
  await push([create(main, one)]);
  await second.apply(scene.id, 1);
  assert.deepEqual(await refsOf(second), { [main]: one });
  await assertSound(1);
});

test('of a copy that is long in being filled only so many wait: each is a call that stays open', async () => {
  await second.catchUp(scene.id, { atLeast: 0, source, signal });
  await push([create(main, await scene.commit('one'))]);
  const sent = new Deferred<void>();
  const slow: PeerSource = async (...asked) => {
    await sent.promise;
    return source(...asked);
  };
  const filling = second.catchUp(scene.id, { atLeast: 1, source: slow, signal });
  let refused = 0;
  const applies = Array.from({ length: 100 }, async () => {
    await second.apply(scene.id, 1).catch((error: unknown) => {
      const { code, details } = asQuorateError(error);
      assert.deepEqual(
        [code, details],
        ['unavailable', {}],
        'it is no word that the copy lacks it',
      );
      refused += 1;
    });
  });
  await comeTo(68, () => refused);
  sent.resolve();
  await filling;
  await Promise.all(applies);
  assert.equal(refused, 68);
  await assertSound(1);
});

test('two stores that each prepared what the other lacks come together', async () => {
  await second.catchUp(scene.id, { atLeast: 0, source, signal });
  const one = await scene.commit('one');
  await push([create(main, one)]);
  // The second entry is prepared by the second store alone, which has not even the first.
  const two = await scene.commit('two');
  const generation = await commitOnSecond(create('refs/heads/two', two));
  await assert.rejects(scene.replica.export(scene.id, { have: [], atLeast: generation, signal }));
  await second.apply(scene.id, generation);
  assert.deepEqual(await refsOf(second), { [main]: one, 'refs/heads/two': two });
  await assertSound(generation);
});

test('what was prepared here is applied, although what was committed after it is elsewhere', async () => {
  await second.catchUp(scene.id, { atLeast: 0, source, signal });
  const other = create('refs/heads/other', await scene.commit('other'));
  const key = await scene.prepare([other]);
  await commitOnSecond(create(main, await scene.commit('one')));
  scene.log.prepared = [scene.replica.storeId];
  const generation = scene.log.commit(key.pushId, [other]);
  await assert.rejects(second.apply(scene.id, generation), { code: 'unavailable' });
  assert.equal((await second.state(scene.id))?.generation, 1);
});

test('two stores come together that each prepared one of two pushes, which nobody has applied', async () => {
  await second.catchUp(scene.id, { atLeast: 0, source, signal });
  const first = create(main, await scene.commit('one'));
  const key = await scene.prepare([first]);
  scene.log.commit(key.pushId, [first]);
  const generation = await commitOnSecond(create('refs/heads/two', await scene.commit('two')));
  // Whoever asks the first store for both is no hindrance to who asks it for what it has.
  await Promise.allSettled([
    scene.replica.apply(scene.id, generation),
    second.apply(scene.id, generation),
  ]);
  await assertSound(generation);
});

test('deletions and moves of HEAD are replayed from the log by a store that did not prepare them', async () => {
  const one = await scene.commit('one');
  await push([create(main, one), create('refs/heads/gone', one)]);
  await second.catchUp(scene.id, { atLeast: 1, source, signal });
  await push([{ ref: 'refs/heads/gone', oldOid: one, newOid: zeroOid }]);
  await second.apply(scene.id, 2);
  await second.catchUp(scene.id, { atLeast: 2, source: nobody, signal });
  await assertSound(2);
});

test('a pack that lacks objects, or refs with another digest, changes nothing', async () => {
  const one = await scene.commit('one');
  await push([create(main, one)]);
  await second.catchUp(scene.id, { atLeast: 1, source, signal });
  const two = await scene.commit('two', one);
  await push([{ ref: main, oldOid: one, newOid: two }], [one]);
  const before = await second.state(scene.id);
  for (const lie of [{ pack: undefined }, { digest: '0'.repeat(128) }]) {
    const lying: PeerSource = async (...asked) => ({ ...(await source(...asked)), ...lie });
    await assert.rejects(second.catchUp(scene.id, { atLeast: 2, source: lying, signal }), {
      code: 'data-corrupt',
    });
    assert.deepEqual(await second.state(scene.id), before);
    assert.deepEqual(second.quarantines, []);
  }
  await second.catchUp(scene.id, { atLeast: 2, source, signal });
  await assertSound(2);
});

test('a store that once prepared what its present copy lacks takes it from a peer', async () => {
  await second.create(scene.id, { objectFormat: 'sha1', head: main });
  scene.log.prepared = [scene.replica.storeId, second.storeId];
  const one = await scene.commit('one');
  await push([create(main, one)]);
  await second.apply(scene.id, 1);
  await assertSound(1);
});

test('a jump that is cut short at the refs is finished after a restart', async () => {
  const one = await scene.commit('one');
  await push([create(main, one)]);
  scene.failures.set('commitEither', 1);
  await assert.rejects(second.catchUp(scene.id, { atLeast: 1, source, signal }));
  second = await scene.second();
  assert.deepEqual(await refsOf(second), { [main]: one });
  await assertSound(1);
});

test('a damaged copy is frozen, set aside and filled anew', async () => {
  const one = await scene.commit('one');
  await push([create(main, one)]);
  await second.catchUp(scene.id, { atLeast: 1, source, signal });
  writeFileSync(join(scene.secondGitDir, 'refs/heads/stray'), `${one}\n`);
  second = await scene.second();
  assert.ok((await second.state(scene.id))?.frozen?.includes('frozen'));
  await second.catchUp(scene.id, { atLeast: 1, source, signal });
  await assertSound(1);
  const aside = join(scene.secondGitDir, '../../../../set-aside');
  assert.equal(readdirSync(aside).length, 1, 'people may want to look at it');
});

test('verification names a broken pack; a fresh fill heals it', async () => {
  const one = await scene.commit('one');
  await push([create(main, one)]);
  await second.catchUp(scene.id, { atLeast: 1, source, signal });
  const packs = join(scene.secondGitDir, 'objects/pack');
  const name = readdirSync(packs).find((file) => file.endsWith('.pack'));
  assert.ok(name !== undefined);
  const bytes = readFileSync(join(packs, name));
  bytes[bytes.length - 30] = (bytes.at(-30) ?? 0) ^ 0xff;
  rmSync(join(packs, name));
  writeFileSync(join(packs, name), bytes);
  const { problems } = await second.verify(scene.id, { signal });
  assert.ok(problems.length > 0);
  await second.catchUp(scene.id, { atLeast: 1, fresh: true, source, signal });
  assert.ok(existsSync(packs));
  await assertSound(1);
});

const unused = (): never => assert.fail('nothing is missing');

test('nothing is pruned between what a store found complete and its refs', async () => {
  const one = await scene.commit('one');
  await push([create(main, one)]);
  const first = await scene.replica.read(scene.id, 1);
  const { snapshot } = first;
  first.release();
  const pruneGate = new PruneGate();
  let judging = 0;
  const repository: CaughtUp = {
    id: scene.id,
    gitDirectory: scene.gitDir,
    objectsDirectory: join(scene.gitDir, 'objects'),
    objectFormat: 'sha1',
    snapshot,
    generation: 1,
    finish: async () => undefined,
    needs: () => false,
    pruneGate,
    adopt: async () => {
      judging = pruneGate.judging;
    },
  };
  const exported = { ...(await source([one], 1, signal)), generation: 2 };
  const asked = { atLeast: 2, source: () => Promise.resolve(exported), signal };
  const dependencies = {
    git: {
      version: '',
      running: 0,
      conversations: 0,
      run: unused,
      stream: unused,
      converse: unused,
      program: unused,
      close: unused,
    },
    indexer: { description: '', queued: 0, index: unused, close: unused },
    store: { takeWithRoom: unused, quarantineDirectory: unused },
    abort: unused,
  };
  await catchUpFrom(dependencies, repository, asked);
  assert.deepEqual([judging, pruneGate.judging], [1, 0]);
});

test('what an earlier process prepared is not pruned away, until that push is over', async () => {
  const old = await scene.commit('old');
  const key = await scene.prepare([create('refs/heads/old', old)]);
  scene.log.commit(key.pushId, [create('refs/heads/old', old)]);
  await scene.replica.apply(scene.id, 1);
  const next = await scene.commit('next', old);
  const prepared = await scene.prepare([create('refs/heads/next', next)], [old]);
  const again = await scene.reopen();
  scene.log.commit('deletion', [{ ref: 'refs/heads/old', oldOid: old, newOid: zeroOid }]);
  await again.apply(scene.id, 2);
  const maintain = async (): Promise<void> => {
    // Its generations are forgotten, and each run records what the next may remove.
    for (let i = 0; i < 3; i++) {
      await (await scene.reopen()).maintain(scene.id, { signal, kind: 'full' });
      scene.advance(86_400_000);
    }
  };
  await maintain();
  assert.equal(await scene.git('cat-file', '-t', old), 'commit');
  await again.abort(prepared);
  await maintain();
  await assert.rejects(scene.git('cat-file', '-t', old));
});

test('a request to fill that comes twice, or late, does not begin a copy again that is whole by then', async () => {
  const one = await scene.commit('one');
  await push([create(main, one)]);
  const fill = { atLeast: 1, source, signal };
  const asked = new EventEmitter();
  const slow: PeerSource = async (...question) => {
    const released = once(asked, 'go');
    asked.emit('asked');
    await released;
    return source(...question);
  };
  const begun = once(asked, 'asked');
  const late = second.catchUp(scene.id, { ...fill, source: slow });
  await begun;
  const early = second.catchUp(scene.id, fill);
  const releasing = setInterval(() => asked.emit('go'), 1);
  await Promise.all([late, early]);
  clearInterval(releasing);
  await assertSound(1);
  await second.catchUp(scene.id, { ...fill, fresh: true });
  await assertSound(1);
  assert.ok(!existsSync(join(scene.secondGitDir, '../../../../set-aside')));
});

test('a request for a copy that comes when the copy is to go, or is gone, leaves nothing', async () => {
  const id = 'f'.repeat(32);
  const directory = dirname(dirname(scene.gitDir)).replace(/..$/, 'ff');
  const options = { objectFormat: 'sha1', head: main } as const;
  // git makes directories that are missing: what is being made is not to be removed below its hands.
  for (let times = 0; times < 5; times++) {
    const made = scene.replica.create(id, options);
    await Promise.all([made, scene.replica.destroy(id), scene.replica.destroy(id)]);
    assert.equal(await scene.replica.state(id), undefined);
    assert.deepEqual(existsSync(directory) ? readdirSync(directory) : [], []);
  }
  scene.log.wanted = undefined;
  await assert.rejects(scene.replica.create(id, options), { code: 'aborted' });
  await assert.rejects(second.catchUp(id, { atLeast: 0, source, signal }));
  assert.deepEqual(readdirSync(directory), []);
});
