/** What a pusher may do to a copy, and a server to itself, and it is sound all the same. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, test } from 'node:test';
import type { RefCommand } from '../contract/objects.js';
import type { QuarantineKey } from '../contract/replica.js';
import { runGit } from './testing/local-fixture.js';
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

const unchecked = { 'receive.fsckObjects': 'false' };

/** Uploads objects that nobody looks into, and has the commands judged. */
async function judged(
  oids: readonly string[],
  commands: readonly RefCommand[],
): Promise<{ readonly key: QuarantineKey; readonly refused: ReadonlyMap<string, string> }> {
  const pushId = randomBytes(12).toString('hex');
  const key = { repositoryId: scene.id, pushId, attempt: 1 };
  const pack = Readable.from([packedAsTheyAre(oids)]);
  await scene.replica.upload(key, pack, {
    settings: unchecked,
    signal,
    progress: () => undefined,
  });
  const request = { ...scene.request(key, commands), settings: unchecked };
  return { key, refused: (await scene.replica.prepare(request)).refused };
}

/** These objects, and none that they name. */
function packedAsTheyAre(oids: readonly string[]): Buffer {
  const args = ['pack-objects', '-q', '--stdout'];
  return execFileSync('git', args, { cwd: scene.source, input: `${oids.join('\n')}\n` });
}

async function object(type: string, text: string): Promise<string> {
  const args = ['hash-object', '-t', type, '-w', '--stdin', '--literally'];
  return (await runGit(scene.source, args, text)).trim();
}

const tagOf = (oid: string): Promise<string> =>
  object('tag', `object ${oid}\ntype commit\ntag v1\ntagger A <a@example.org> 1 +0000\n\nx\n`);

async function pushed(...commands: readonly RefCommand[]): Promise<void> {
  const key = await scene.prepare(commands);
  await scene.replica.apply(scene.id, scene.log.commit(key.pushId, commands));
}

const verify = async (replica = scene.replica): Promise<readonly string[]> =>
  (await replica.verify(scene.id, { signal })).problems;

test('a tag that a pusher has replaced is what it is, here and to clients', async () => {
  const [one, other] = [await scene.commit('one'), await scene.commit('other')];
  const [tag, stand] = [await tagOf(one), await tagOf(other)];
  await pushed(create(main, one), create(`refs/replace/${tag}`, stand));
  await pushed(create('refs/tags/v1', tag));
  const peeled = async (replica = scene.replica): Promise<string | undefined> => {
    const read = await replica.read(scene.id, 2);
    read.release();
    return read.snapshot.find('refs/tags/v1')?.peeled;
  };
  assert.equal(await peeled(), one);
  assert.deepEqual(await verify(), []);
  await scene.replica.maintain(scene.id, { signal, kind: 'full' });
  assert.deepEqual(await verify(), []);
  assert.equal(await peeled(await scene.reopen()), one);
});

test('what a pusher has replaced by something whole is not whole for that', async () => {
  const one = await scene.commit('one');
  const nowhere = '1234567890'.repeat(4);
  const who = 'A <a@example.org> 1 +0000';
  const broken = await object('commit', `tree ${nowhere}\nauthor ${who}\ncommitter ${who}\n\nx\n`);
  await pushed(create(main, one), create(`refs/replace/${broken}`, one));
  const { refused } = await judged([broken], [create('refs/heads/broken', broken)]);
  assert.deepEqual([...refused], [['refs/heads/broken', 'missing necessary objects']]);
});

test('an object that no git would make, and that nobody looked into, is no damage', async () => {
  const tree = (await runGit(scene.source, ['mktree'], '')).trim();
  const who = 'A <a@example.org> 1 +0000';
  const odd = await object(
    'commit',
    `tree ${tree}\nauthor ${who}\ncommitter A\0 <a@example.org> 1 +0000\n\nx\n`,
  );
  // So that git also has something to say of HEAD, which names nothing.
  const commands = [create('refs/heads/odd', odd)];
  const { key, refused } = await judged([odd, tree], commands);
  assert.equal(refused.size, 0);
  await scene.replica.apply(scene.id, scene.log.commit(key.pushId, commands));
  await assert.rejects(scene.git('fsck'), 'git itself finds it odd');
  assert.deepEqual(await verify(), []);
});

test('names in a tree are not words of the machine', async () => {
  const blob = (await runGit(scene.source, ['hash-object', '-w', '--stdin'], 'x')).trim();
  const name = 'x\nfatal: cannot open x: Too many open files\ny';
  const entries = [`100644 a\0`, `40000 ${name}\0`];
  const entry = Buffer.concat(
    entries.flatMap((start) => [Buffer.from(start), Buffer.from(blob, 'hex')]),
  );
  const args = ['hash-object', '-t', 'tree', '-w', '--stdin', '--literally'];
  const tree = execFileSync('git', args, { cwd: scene.source, input: entry }).toString().trim();
  const who = 'A <a@example.org> 1 +0000';
  const tip = await object('commit', `tree ${tree}\nauthor ${who}\ncommitter ${who}\n\nx\n`);
  const { refused } = await judged([blob, tree, tip], [create(main, tip)]);
  assert.equal(refused.get(main), 'missing necessary objects');
});

test('what a pack brings beside what was pushed, and is nothing, is no damage', async () => {
  const one = await scene.commit('one');
  const tree = (await runGit(scene.source, ['rev-parse', `${one}^{tree}`])).trim();
  const blob = (await runGit(scene.source, ['rev-parse', `${one}:file`])).trim();
  const nothing = await Promise.all(
    (['tree', 'commit', 'tag'] as const).map((type) => object(type, 'nothing')),
  );
  const commands = [create(main, one)];
  const { key, refused } = await judged([one, tree, blob, ...nothing], commands);
  assert.equal(refused.size, 0);
  await scene.replica.apply(scene.id, scene.log.commit(key.pushId, commands));
  assert.deepEqual(await verify(), []);
});
