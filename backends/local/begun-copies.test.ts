import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { until } from '../contract/testing/until.js';
import { QuorateError } from '../contract/errors.js';
import type { PeerSource } from '../contract/replica.js';
import { observeSyncs } from '../git/testing/observe-syncs.js';
import type { LocalReplica } from './local-replica.js';
import { runGit } from './testing/local-fixture.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';

let scene: ReplicaScene;
let second: LocalReplica;
const source: PeerSource = (have, atLeast, ended) =>
  scene.replica.export(scene.id, { have, atLeast, signal: ended });

beforeEach(async () => {
  scene = await openReplica();
  second = await scene.second();
});
afterEach(() => scene.close());

async function push(): Promise<string> {
  const tip = await scene.commit('first');
  const key = await scene.prepare([create(main, tip)]);
  await scene.replica.apply(scene.id, scene.log.commit(key.pushId, [create(main, tip)]));
  return tip;
}

/** Begins a copy on the second store; the peer goes away before it has sent anything for it. */
async function begin(): Promise<void> {
  let asked = 0;
  const leaving: PeerSource = (...question) => {
    if (asked++ === 0) return source(...question);
    return Promise.reject(new QuorateError('unavailable', 'the peer is gone'));
  };
  const fill = { atLeast: scene.log.committed.generation, source: leaving, signal };
  await assert.rejects(second.catchUp(scene.id, fill), { message: 'the peer is gone' });
  assert.equal(asked, 2);
}

/** For a reader it is as if there were none, so that it goes to another store. */
async function assertNoCopy(): Promise<void> {
  const refused = { code: 'unavailable', message: /still being made/ };
  for (const eventual of [true, false]) {
    await assert.rejects(second.read(scene.id, 0, { eventual }), refused);
  }
  await assert.rejects(second.export(scene.id, { have: [], atLeast: 0, signal }), refused);
  await assert.rejects(second.stats(scene.id), refused);
  assert.equal(second.knownSnapshot(scene.id, scene.log.committed), undefined);
  assert.equal(await second.state(scene.id), undefined);
}

async function assertReadable(refs: readonly string[]): Promise<void> {
  const read = await second.read(scene.id, 0, { eventual: true });
  assert.deepEqual(
    read.snapshot.refs.map(({ oid }) => oid),
    refs,
  );
  assert.deepEqual(await read.objectSizes(refs).then((sizes) => sizes.includes(undefined)), false);
  read.release();
  assert.equal((await second.state(scene.id))?.generation, scene.log.committed.generation);
}

const fill = (): Promise<unknown> =>
  second.catchUp(scene.id, { atLeast: scene.log.committed.generation, source, signal });

test('a copy that is only begun is not read, also after a restart, until it is filled', async () => {
  const tip = await push();
  await begin();
  await assertNoCopy();
  second = await scene.second();
  await assertNoCopy();
  await fill();
  await assertReadable([tip]);
  second = await scene.second();
  await assertReadable([tip]);
});

test('a copy that was removed and is made again is not read until it is filled', async () => {
  const tip = await push();
  await fill();
  await assertReadable([tip]);
  await second.destroy(scene.id);
  await begin();
  await assertNoCopy();
  await fill();
  await assertReadable([tip]);
});

test('a copy of a repository without refs counts when a peer has said that there are none', async () => {
  await begin();
  await assertNoCopy();
  await fill();
  await assertReadable([]);
  second = await scene.second();
  await assertReadable([]);
});

test('a copy that was begun by a store which was killed is on the disk, with its name, before it counts', async () => {
  await push();
  await begin();
  second = await scene.second();
  const synced: string[] = [];
  await observeSyncs(
    (path) => synced.push(path),
    async () => void (await fill()),
  );
  const directory = dirname(scene.secondGitDir);
  const names = [directory, join(directory, 'state'), join(directory, 'intent')];
  for (const path of names) assert.ok(synced.includes(path), path);
});

test('a jump that is cut short at the refs of a copy makes it readable when it is finished', async () => {
  const tip = await push();
  scene.failures.set('commitEither', 1);
  await assert.rejects(fill());
  await assertNoCopy();
  second = await scene.second();
  await assertReadable([tip]);
});

/** A bit turns over in an object of the second store's only pack, which is a commit. */
function damagePack(): void {
  const directory = join(scene.secondGitDir, 'objects/pack');
  const name = readdirSync(directory).find((file) => file.endsWith('.pack'));
  assert.ok(name !== undefined);
  const bytes = readFileSync(join(directory, name));
  bytes[20] = (bytes[20] ?? 0) ^ 0x10;
  rmSync(join(directory, name));
  writeFileSync(join(directory, name), bytes);
}

const inVain: PeerSource = () => assert.fail('what would be in vain is sent');

const quarantinesOfSecond = (): string[] => readdirSync(join(scene.secondRoot, 'quarantine'));

for (const restarts of [false, true]) {
  test(`a jump that what lies here cannot finish is damage, and begun anew${restarts ? ', after a restart' : ''}`, async () => {
    const tip = await push();
    scene.failures.set('commitEither', 1);
    await assert.rejects(fill(), { code: 'storage-failure' });
    assert.deepEqual(scene.suspected, [scene.id]);
    damagePack();
    if (restarts) second = await scene.second();
    for (let times = 0; times < 3; times++) {
      const { generation: atLeast } = scene.log.committed;
      const again = second.catchUp(scene.id, { atLeast, source: inVain, signal });
      await assert.rejects(again, { code: 'storage-failure' });
      assert.deepEqual(quarantinesOfSecond().length, 1, 'the one of the jump');
    }
    assert.ok(scene.suspected.length > 1);
    assert.equal((await second.verify(scene.id, { signal })).problems.length, 1);
    const { generation: atLeast } = scene.log.committed;
    await second.catchUp(scene.id, { atLeast, fresh: true, source, signal });
    await assertReadable([tip]);
    assert.deepEqual((await second.verify(scene.id, { signal })).problems, []);
    // It goes behind the answer.
    await until('the quarantine to go', () => quarantinesOfSecond().length === 0);
  });
}

test('a jump that stops at a ref which is neither old nor new freezes what is begun', async () => {
  const tip = await push();
  scene.failures.set('commitEither', 1);
  await assert.rejects(fill(), { code: 'storage-failure' });
  const other = (
    await runGit(scene.secondGitDir, ['commit-tree', '-m', 'x', await emptyTree()])
  ).trim();
  await runGit(scene.secondGitDir, ['update-ref', main, other]);
  await assert.rejects(fill(), { code: 'data-corrupt' });
  assert.match((await second.state(scene.id))?.frozen ?? '', /frozen/);
  const { generation: atLeast } = scene.log.committed;
  await second.catchUp(scene.id, { atLeast, fresh: true, source, signal });
  await assertReadable([tip]);
  assert.equal((await second.state(scene.id))?.frozen, undefined);
});

const emptyTree = async (): Promise<string> =>
  (await runGit(scene.secondGitDir, ['hash-object', '-w', '-t', 'tree', '--stdin'], '')).trim();

test('a new repository, and what an earlier version made, is readable at once', async () => {
  await second.create(scene.id, { objectFormat: 'sha1', head: main });
  await assertReadable([]);
  const directory = dirname(scene.secondGitDir);
  const { digest } = scene.log.committed;
  writeFileSync(
    join(directory, 'state'),
    JSON.stringify({ objectFormat: 'sha1', generation: 0, digest }),
  );
  second = await scene.second();
  await assertReadable([]);
});

test('a request to make the first copy that comes when the repository lives makes none', async () => {
  await push();
  scene.log.wanted = 'living';
  const first = { objectFormat: 'sha1', head: main } as const;
  await assert.rejects(second.create(scene.id, first), { code: 'aborted' });
  assert.equal(await second.state(scene.id), undefined);
  await begin();
  await assert.rejects(second.create(scene.id, first), { code: 'aborted' });
  await assertNoCopy();
});

test('what an earlier version has to read, should it come back, says nothing of how a copy began', async () => {
  await push();
  await begin();
  await fill();
  for (const name of ['state', 'intent']) {
    const line = JSON.parse(readFileSync(join(dirname(scene.secondGitDir), name), 'utf8'));
    assert.deepEqual(
      Object.keys(line).filter((key) => key !== 'applying'),
      ['objectFormat', 'generation', 'digest', 'checksum'],
    );
  }
});

test('a copy that is on its way out is not made anew under those who still read it', async () => {
  const tip = await push();
  await fill();
  const read = await second.read(scene.id, 1);
  const stays = new QuorateError('aborted', 'the copy is to stay after all');
  const going = second.destroy(scene.id, { confirm: () => Promise.reject(stays) });
  going.catch(() => undefined);
  assert.equal(await second.state(scene.id), undefined);
  await assert.rejects(fill(), { code: 'unavailable' });
  assert.deepEqual(await read.objectSizes([tip]).then((sizes) => sizes.includes(undefined)), false);
  read.release();
  await assert.rejects(going, stays);
  await assertReadable([tip]);
});

for (const remove of ['destroy', 'setAside'] as const) {
  test(`a copy that was wanted when it was begun goes when it is made, if it is not wanted by then (${remove})`, async () => {
    await push();
    let isAnswered = false;
    const steps = new EventEmitter();
    // As with a disk that hangs: what comes next comes late.
    scene.log.wantsCopy = async () => {
      steps.emit('asked');
      await once(steps, 'answered');
      isAnswered = true;
      return 'living';
    };
    const asked = once(steps, 'asked');
    const filling = assert.rejects(fill(), { code: 'not-found' });
    await asked;
    const confirm = async (): Promise<void> => {
      assert.ok(isAnswered, 'it would be made when it is gone');
    };
    const going = second[remove](scene.id, { confirm });
    setImmediate(() => steps.emit('answered'));
    await going;
    await filling;
    assert.ok(!existsSync(dirname(scene.secondGitDir)));
    assert.deepEqual(quarantinesOfSecond(), []);
  });
}
