import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { ReplicaState } from '../contract/replica.js';
import { allRefs } from '../contract/visible-refs.js';
import type { GitResult } from '../git/git-runner.js';
import type { LocalReplica } from './local-replica.js';
import { verifyCopy } from './verify-copy.js';
import { packOf, runGit } from './testing/local-fixture.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';

let scene: ReplicaScene;
beforeEach(async () => {
  scene = await openReplica();
});
afterEach(async () => {
  await scene.close();
});

/** Committed, and not applied. */
async function commitPush(command: RefCommand, have: readonly string[] = []): Promise<number> {
  const key = await scene.prepare([command], have);
  return scene.log.commit(key.pushId, [command]);
}

/** What a bit that turned over makes of a ref. */
function damage(ref: string, text: string): void {
  writeFileSync(join(scene.gitDir, ref), `${text}\n`);
}

test('a ref that is neither old nor new is trouble of the store, not of the push that waits for it', async () => {
  const [one, other] = [await scene.commit('one'), await scene.commit('other')];
  await scene.replica.apply(scene.id, await commitPush(create(main, one)));
  await scene.replica.apply(scene.id, await commitPush(create('refs/heads/other', other)));
  const two = await scene.commit('two', one);
  const generation = await commitPush({ ref: main, oldOid: one, newOid: two }, [one]);
  damage(main, other);

  const next = { repositoryId: scene.id, pushId: 'the-next-push', attempt: 1 };
  const request = scene.request(next, [create('refs/heads/next', one)], generation);
  await assert.rejects(scene.replica.prepare(request), { code: 'data-corrupt' });
  assert.match((await scene.replica.state(scene.id))?.frozen ?? '', /frozen/);

  const again = await scene.reopen();
  await assert.rejects(again.prepare(request), { code: 'data-corrupt' });
  assert.match((await again.state(scene.id))?.frozen ?? '', /frozen/);

  damage(main, one);
  await scene.replica.apply(scene.id, generation);
  const { frozen, generation: applied } = (await scene.replica.state(scene.id)) ?? {};
  assert.deepEqual([frozen, applied], [undefined, generation]);
});

test('refs that changed behind its back are found by a verification, although all their objects are there', async () => {
  const [one, other] = [await scene.commit('one'), await scene.commit('other')];
  await scene.replica.apply(scene.id, await commitPush(create(main, one)));
  await scene.replica.apply(scene.id, await commitPush(create('refs/heads/other', other)));
  assert.deepEqual((await scene.replica.verify(scene.id, { signal })).problems, []);
  damage(main, other);
  const { problems } = await scene.replica.verify(scene.id, { signal });
  assert.deepEqual(problems, ['the refs are not those of the generation']);
});

for (const head of [
  'ref: refs/heads/mai~',
  'ref: refs/heads/mai.',
  'ref:`refs/heads/main',
  'ref: refs/heads/main\v',
]) {
  test(`a bit that turned over in HEAD is found by a verification: ${head}`, async () => {
    const one = await scene.commit('one');
    await scene.replica.apply(scene.id, await commitPush(create(main, one)));
    damage('HEAD', head);
    const { problems } = await scene.replica.verify(scene.id, { signal });
    assert.notDeepEqual(problems, []);
  });
}

test('a bit that turned over in what a packed tag points at is found by a verification', async () => {
  const [one, other] = [await scene.commit('one'), await scene.commit('other')];
  await runGit(scene.source, ['tag', '-a', '-m', 'first', 'v1', one]);
  const tag = (await runGit(scene.source, ['rev-parse', 'v1'])).trim();
  await scene.replica.apply(scene.id, await commitPush(create('refs/tags/v1', tag)));
  await scene.replica.apply(scene.id, await commitPush(create(main, other)));
  await scene.git('pack-refs', '--all');
  assert.deepEqual((await scene.replica.verify(scene.id, { signal })).problems, []);
  const path = join(scene.gitDir, 'packed-refs');
  const packed = readFileSync(path, 'utf8');
  assert.ok(packed.includes(`^${one}`));
  for (const wrong of [other, '1'.repeat(40)]) {
    writeFileSync(path, packed.replace(`^${one}`, `^${wrong}`));
    const { problems } = await (await scene.reopen()).verify(scene.id, { signal });
    assert.deepEqual(problems, ['refs/tags/v1 is said to point at another object than it does']);
  }
});

test('an object that is odd, and was let in by the settings, is no damage', async () => {
  const tree = (await runGit(scene.source, ['mktree'], '')).trim();
  const text = `tree ${tree}\nauthor A <a@example.org 1 +0000\ncommitter A <a@example.org> 1 +0000\n\nx\n`;
  const oddly = ['hash-object', '-t', 'commit', '-w', '--stdin', '--literally'];
  const odd = (await runGit(scene.source, oddly, text)).trim();
  const settings = { 'receive.fsck.ignore': 'badEmail' };
  const key = { repositoryId: scene.id, pushId: 'a'.repeat(24), attempt: 1 };
  const pack = Readable.from([await packOf(scene.source, [odd], [])]);
  await scene.replica.upload(key, pack, { settings, signal, progress: () => undefined });
  const commands = [create(main, odd)];
  await scene.replica.prepare({ ...scene.request(key, commands), settings });
  await scene.replica.apply(scene.id, scene.log.commit(key.pushId, commands));
  await assert.rejects(scene.git('fsck'), 'git itself finds it odd');
  assert.deepEqual((await scene.replica.verify(scene.id, { signal })).problems, []);
});

const nobody = (): Promise<never> => Promise.reject(new Error('a peer is asked'));

test('a bit that turned over in what a copy says of itself is damage, whatever it says then', async () => {
  const one = await scene.commit('one');
  await scene.replica.apply(scene.id, await commitPush(create(main, one)));
  const path = join(scene.gitDir, '../state');
  const intent = join(scene.gitDir, '../intent');
  const text = readFileSync(path, 'utf8');
  assert.match(text, /"generation":1,/);
  const state = async (): Promise<ReplicaState | undefined> =>
    (await scene.reopen()).state(scene.id);
  for (const damaged of [text.replace('"generation":1,', '"generation":3,'), text.slice(0, 9)]) {
    writeFileSync(path, damaged);
    const whole = await state();
    assert.deepEqual([whole?.generation, whole?.frozen], [1, undefined], 'the intent is run again');
    const kept = readFileSync(intent);
    writeFileSync(path, damaged);
    writeFileSync(intent, 'damaged');
    assert.equal((await state())?.frozen, 'the state of a repository is damaged');
    writeFileSync(intent, kept);
  }
  // As earlier versions wrote it, which had one file for both.
  writeFileSync(path, (text.split('\n')[0] ?? '').replace(/,"checksum":"[0-9a-f]+"/, ''));
  rmSync(intent);
  assert.equal((await state())?.generation, 1);
});

async function unfinished(): Promise<LocalReplica> {
  const one = await scene.commit('one');
  const generation = await commitPush(create(main, one));
  scene.failures.set('commitEither', 1);
  await assert.rejects(scene.replica.apply(scene.id, generation), { code: 'storage-failure' });
  // In the way of the branch that is to be written, and nothing that git lists.
  const directory = join(scene.gitDir, main);
  await scene.git('update-ref', `${main}/below`, one);
  writeFileSync(join(directory, 'below'), 'damaged\n');
  return scene.reopen();
}

test('a copy that cannot be opened on a disk that works is damaged, and can be filled anew', async () => {
  const replica = await unfinished();
  await assert.rejects(replica.applied(scene.id), { code: 'storage-failure' });
  assert.ok(scene.suspected.length > 0, 'it is read soon');
  const { problems } = await replica.verify(scene.id, { signal });
  assert.equal(problems.length, 1);
  // No peer here: it has to come to the point at which one is asked.
  const fill = replica.catchUp(scene.id, { atLeast: 0, fresh: true, source: nobody, signal });
  await assert.rejects(fill, /a peer is asked/);
  assert.equal(await replica.state(scene.id), undefined, 'it was set aside');
});

test('a copy that cannot be opened on a disk that fails is left alone', async () => {
  const replica = await unfinished();
  // Nothing can be written beside it.
  mkdirSync(join(scene.gitDir, '../probe/taken'), { recursive: true });
  await assert.rejects(replica.verify(scene.id, { signal }), { code: 'storage-failure' });
});

/** An apply stopped half-way on a disk that was full for a moment, and what it has promoted is damaged then. */
async function damagedWhileApplied(): Promise<number> {
  const generation = await commitPush(create(main, await scene.commit('one')));
  scene.failures.set('commitEither', 1);
  await assert.rejects(scene.replica.apply(scene.id, generation), { code: 'storage-failure' });
  assert.deepEqual(scene.suspected, [scene.id]);
  damagePack();
  await assert.rejects(scene.replica.apply(scene.id, generation), { code: 'storage-failure' });
  assert.ok(scene.suspected.length > 1, 'it is suspected as often as it fails');
  return generation;
}

test('a copy that cannot apply an entry on a disk that works is damaged', async () => {
  await damagedWhileApplied();
  assert.equal((await scene.replica.verify(scene.id, { signal })).problems.length, 1);
});

test('a copy that cannot apply an entry on a disk that fails is left alone', async () => {
  await damagedWhileApplied();
  mkdirSync(join(scene.gitDir, '../probe/taken'), { recursive: true });
  await assert.rejects(scene.replica.verify(scene.id, { signal }), { code: 'storage-failure' });
});

const ends: readonly (readonly [desc: string, () => Promise<GitResult>])[] = [
  [
    'is killed',
    () => Promise.resolve({ exitCode: null, signal: 'SIGKILL', stdout: Buffer.of(), stderr: '' }),
  ],
  [
    'cannot be run',
    () => Promise.reject(new QuorateError('unavailable', 'the process that runs git died')),
  ],
];
for (const [desc, end] of ends) {
  for (const command of ['upload-pack', 'fsck']) {
    test(`a sound copy is not taken for damaged when the git ${command} that reads it ${desc}`, async () => {
      await scene.replica.apply(
        scene.id,
        await commitPush(create(main, await scene.commit('one'))),
      );
      scene.gitEnds.set(command, end);
      await assert.rejects(scene.replica.verify(scene.id, { signal }), { code: 'unavailable' });
      assert.deepEqual((await scene.replica.verify(scene.id, { signal })).problems, []);
    });
  }
}

test('a sound copy whose packs a repack takes away while git fsck reads them is not taken for damaged', async () => {
  const one = await scene.commit('one');
  await scene.replica.apply(scene.id, await commitPush(create(main, one)));
  const two = await scene.commit('two', one);
  const move = { ref: main, oldOid: one, newOid: two };
  await scene.replica.apply(scene.id, await commitPush(move, [one]));
  scene.gitEnds.set('fsck', async () => {
    await scene.replica.maintain(scene.id, { signal, kind: 'full' });
    // What it says of a pack that it has listed and that goes before it reads it.
    const stderr = 'error: packfile ./objects/pack/pack-1.pack index not opened\n';
    return { exitCode: 4, signal: null, stdout: Buffer.of(), stderr };
  });
  assert.deepEqual((await scene.replica.verify(scene.id, { signal })).problems, []);
});

const unused = (): never => assert.fail('nothing is left to ask');

test('a copy that cannot be opened while git does not run is left alone', async () => {
  const views = await mkdtemp(join(tmpdir(), 'quorate-views-'));
  const failed = new QuorateError('storage-failure', 'the refs could not be written');
  let runs = 0;
  const git = {
    version: '',
    running: 0,
    conversations: 0,
    run: () => {
      runs++;
      return Promise.resolve({ exitCode: 127, signal: null, stdout: Buffer.of(), stderr: '' });
    },
    stream: unused,
    converse: unused,
    program: unused,
    close: unused,
  };
  const dependencies = {
    git,
    objects: scene.objects,
    store: { works: () => Promise.resolve(true), viewsDirectory: views },
    open: { with: () => Promise.reject(failed) },
    pools: { still: unused },
  };
  await assert.rejects(verifyCopy(dependencies, scene.id, signal), failed);
  assert.equal(runs, 1);
  assert.deepEqual(await readdir(views), []);
  await rm(views, { recursive: true });
});

test('a copy that could not apply an entry for a moment has applied it when it is verified', async () => {
  const generation = await commitPush(create(main, await scene.commit('one')));
  scene.failures.set('commitEither', 1);
  await assert.rejects(scene.replica.apply(scene.id, generation), { code: 'storage-failure' });
  const { problems, generation: verified } = await scene.replica.verify(scene.id, { signal });
  assert.deepEqual([problems, verified], [[], generation]);
});

test('a copy whose refs a git has locked that was lost a moment ago is not taken for damaged', async () => {
  const generation = await commitPush(create(main, await scene.commit('one')));
  scene.failures.set('commitEither', 1);
  await assert.rejects(scene.replica.apply(scene.id, generation), { code: 'storage-failure' });
  writeFileSync(join(scene.gitDir, `${main}.lock`), '');
  await assert.rejects(scene.replica.verify(scene.id, { signal }), { code: 'unavailable' });
  scene.advance(61_000);
  assert.deepEqual((await scene.replica.verify(scene.id, { signal })).problems, []);
});

test('a copy that is put aside for good takes with it what it has prepared; one that is made anew finds it', async () => {
  const tip = await scene.commit('one');
  const key = await scene.prepare([create(main, tip)]);
  await scene.replica.setAside(scene.id);
  assert.deepEqual(scene.replica.quarantines, [key]);
  await scene.replica.setAside(scene.id, { prepared: true });
  assert.deepEqual(scene.replica.quarantines, []);
  const again = await scene.reopen();
  assert.deepEqual(again.quarantines, []);
  const aside = readdirSync(join(scene.gitDir, '../../../../set-aside'));
  assert.ok(aside.some((name) => name.startsWith(`${scene.id}.${key.pushId}.`)));
});

test('a copy that is to be put aside where there is none is none', async () => {
  await scene.replica.setAside('f'.repeat(32), { prepared: true });
});

/** Turns a bit over in the first object of the only pack, which is a commit. */
function damagePack(): void {
  const directory = join(scene.gitDir, 'objects/pack');
  const name = readdirSync(directory).find((file) => file.endsWith('.pack'));
  assert.ok(name !== undefined);
  const bytes = readFileSync(join(directory, name));
  bytes[20] = (bytes[20] ?? 0) ^ 0x10;
  rmSync(join(directory, name));
  writeFileSync(join(directory, name), bytes);
}

test('a copy over which maintenance fails is suspected', async () => {
  await scene.replica.apply(scene.id, await commitPush(create(main, await scene.commit('one'))));
  const maintain = () => scene.replica.maintain(scene.id, { signal, kind: 'full' });
  await maintain();
  assert.deepEqual(scene.suspected, []);
  damagePack();
  await assert.rejects(maintain(), { code: 'storage-failure' });
  assert.deepEqual(scene.suspected, [scene.id]);
});

test('a copy over which a fetch fails is suspected, and not one whose client left', async () => {
  const tip = await scene.commit('one');
  await scene.replica.apply(scene.id, await commitPush(create(main, tip)));
  damagePack();
  for (const leaves of [true, false]) {
    const client = new AbortController();
    const read = await scene.replica.read(scene.id, 1);
    const stream = await read.uploadPack({
      protocol: 0,
      stateless: true,
      input: Buffer.from(`0032want ${tip}\n00000009done\n`),
      visible: allRefs,
      config: {},
      signal: client.signal,
    });
    if (leaves) client.abort();
    await stream.stdout.toArray().catch(() => undefined);
    await stream.exited;
    read.release();
    assert.deepEqual(scene.suspected, leaves ? [] : [scene.id]);
  }
});
