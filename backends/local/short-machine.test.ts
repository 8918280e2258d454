import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { RefCommand } from '../contract/objects.js';
import type { PeerSource } from '../contract/replica.js';
import { until } from '../contract/testing/until.js';
import { limitGit, type LimitedGit } from '../git/testing/limited-git.js';
import { createGitRunner } from '../git/runner.js';
import { RECORDS, recordTips } from '../git/retention.js';
import { silentLogger } from '../coordination/test-environment.js';
import { runGit, silentMeter } from './testing/local-fixture.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';

let git: LimitedGit;
let scene: ReplicaScene;
beforeEach(async () => {
  git = limitGit();
  scene = await openReplica();
});
afterEach(async () => {
  await scene.close();
  git.remove();
});

async function push(command: RefCommand, have: readonly string[] = []): Promise<number> {
  const key = await scene.prepare([command], have);
  return scene.log.commit(key.pushId, [command]);
}

async function pushed(content = 'one'): Promise<string> {
  const tip = await scene.commit(content);
  await scene.replica.apply(scene.id, await push(create(main, tip)));
  return tip;
}

const verify = () => scene.replica.verify(scene.id, { signal });
/** More than the git that reads it may have. */
const large = 'x'.repeat(30_000_000);

const shortages: readonly (readonly [desc: string, limit: string, said: RegExp])[] = [
  ['too little memory for an object', 'ulimit -v 30000', /Out of memory, malloc failed/],
  ['too little memory for a pack', 'ulimit -v 20000', /Cannot allocate memory/],
  ['too few files', 'ulimit -n 4', /Too many open files/],
  ['too few files to begin', 'ulimit -n 3', /could not be run/],
  ['too little time on the processor', 'ulimit -t 0', /killed/],
  [
    'a directory that it passed over',
    'echo "error: unable to open ./objects/aa: Too many open files" >&2; exit 0',
    /Too many open files/,
  ],
  [
    'a helper that was killed',
    'echo "error: git died of signal 9" >&2; exit 16',
    /died of signal 9/,
  ],
  [
    'words of it before many others',
    'echo "error: unable to open object pack directory: ./objects/pack: Too many open files" >&2;' +
      ' seq 100000 | sed "s/.*/missing blob &/"; seq 9000 | sed "s/.*/error: & is missing/" >&2; exit 2',
    /Too many open files/,
  ],
];
for (const [desc, limit, said] of shortages) {
  test(`a sound copy is not taken for damaged, nor for verified, when git fsck has ${desc}`, async () => {
    const [whole, loose] = [desc.includes('for a pack'), desc === 'too few files'];
    await pushed(whole ? randomBytes(20_000_000).toString('base64') : large);
    // A file of its own, which git has to open.
    if (loose) await runGit(scene.gitDir, ['hash-object', '-w', '--stdin'], 'loose');
    git.limit('fsck', limit);
    await assert.rejects(verify(), { code: 'unavailable', message: said });
    git.limit('fsck');
    assert.deepEqual((await verify()).problems, []);
  });
}

test('what a helper of git fsck died over is damage', async () => {
  await pushed();
  git.limit('fsck', 'echo "error: commit-graph died of signal 11" >&2; exit 16');
  assert.deepEqual((await verify()).problems, ['error: commit-graph died of signal 11']);
});

function damagePack(): void {
  const directory = join(scene.gitDir, 'objects/pack');
  const name = readdirSync(directory).find((file) => file.endsWith('.pack'));
  assert.ok(name !== undefined);
  const bytes = readFileSync(join(directory, name));
  const at = bytes.length - 30;
  bytes[at] = (bytes[at] ?? 0) ^ 0x10;
  rmSync(join(directory, name));
  writeFileSync(join(directory, name), bytes);
}

test('a bit that turned over is damage, also where git fsck is short of memory, or is killed', async () => {
  await pushed(large);
  damagePack();
  for (const limit of ['ulimit -v 30000', 'kill -9 $$']) {
    git.limit('fsck', limit);
    const { problems } = await verify();
    assert.match(problems.join('\n'), /^\S+\.pack does not hold what its checksum says$/m);
  }
});

/** How often the git fsck of a copy was begun that ends over it, and over no other repository. */
async function endedOver(look: () => Promise<unknown>): Promise<number> {
  const count = join(git.directory, 'begun');
  writeFileSync(count, '');
  const ends = `echo >> ${count}; echo "fatal: it makes no sense" >&2; exit 128`;
  git.limit('fsck', `case "$GIT_DIR" in */probe-*) ;; *) ${ends} ;; esac`);
  await look();
  git.limit('fsck');
  return readFileSync(count, 'utf8').length;
}

test('a copy in which a bit turned over is read by git once, when git ends over it, and once by its checksums', async () => {
  await pushed();
  damagePack();
  const begun = await endedOver(async () => {
    assert.match(
      (await verify()).problems.join('\n'),
      /\.pack does not hold what its checksum says$/,
    );
  });
  assert.equal(begun, 1);
});

test('a copy over which git ends again and again, whatever its checksums say, is damaged after two times two', async () => {
  await pushed();
  const begun = await endedOver(async () => {
    assert.deepEqual((await verify()).problems, [
      'git fsck ended before it had read all: fatal: it makes no sense',
    ]);
  });
  assert.equal(begun, 4);
});

test('a pack that is another than its index says is damage', async () => {
  const one = await pushed();
  const two = await scene.commit('two', one);
  const move = { ref: main, oldOid: one, newOid: two };
  await scene.replica.apply(scene.id, await push(move, [one]));
  const directory = join(scene.gitDir, 'objects/pack');
  const [first = '', second = ''] = readdirSync(directory).filter((name) => name.endsWith('.pack'));
  rmSync(join(directory, first));
  copyFileSync(join(directory, second), join(directory, first));
  const { problems } = await verify();
  assert.deepEqual(problems, [`${first.replace(/pack$/, 'idx')} is not the index of its pack`]);
});

/** Path of a loose object that holds this. */
async function loose(content: string): Promise<string> {
  const made = await runGit(scene.gitDir, ['hash-object', '-w', '--stdin'], content);
  const blob = made.trim();
  return join(scene.gitDir, 'objects', blob.slice(0, 2), blob.slice(2));
}

test('a loose object that is not what it was is damage, also where git fsck is short of files', async () => {
  await pushed();
  const [path, other] = [await loose('loose'), await loose('other')];
  const turned = readFileSync(path);
  git.limit('fsck', 'ulimit -n 4');
  await assert.rejects(verify(), { code: 'unavailable' });
  turned[8] = (turned[8] ?? 0) ^ 0x01;
  for (const bytes of [turned, readFileSync(other)]) {
    rmSync(path);
    writeFileSync(path, bytes);
    assert.equal((await verify()).problems.length, 1);
  }
});

for (const [desc, limit] of [
  ['sees none of them as they are', 'ulimit -n 4'],
  ['has no memory for them', 'echo "fatal: Out of memory, malloc failed" >&2; exit 128'],
] as const) {
  test(`a copy is not frozen, nor damaged, when the git that lists its refs ${desc}`, async () => {
    await pushed();
    git.limit('upload-pack', limit);
    await assert.rejects(verify(), { code: 'unavailable' });
    const again = await scene.reopen();
    await assert.rejects(again.state(scene.id), { code: 'unavailable' });
    git.limit('upload-pack');
    assert.equal((await again.state(scene.id))?.frozen, undefined);
    assert.deepEqual((await verify()).problems, []);
  });
}

test('a copy is not frozen when the gits that write and read its refs are short of files', async () => {
  const one = await pushed();
  const two = await scene.commit('two', one);
  const generation = await push({ ref: main, oldOid: one, newOid: two }, [one]);
  await scene.refs.release(scene.gitDir);
  git.limit('update-ref', 'ulimit -n 4');
  git.limit('for-each-ref', 'ulimit -n 4');
  await assert.rejects(scene.replica.apply(scene.id, generation), { code: 'storage-failure' });
  assert.equal((await scene.replica.state(scene.id))?.frozen, undefined);
  await assert.rejects(verify(), 'however often it fails');
  git.limit('update-ref');
  git.limit('for-each-ref');
  const { problems, generation: verified } = await verify();
  assert.deepEqual([problems, verified], [[], generation]);
});

const nobody: PeerSource = () => assert.fail('a peer is asked');

test('a copy that could not be read for a moment is not set aside for one that is filled anew', async () => {
  await pushed();
  const replica = await scene.reopen();
  git.limit('upload-pack', 'rm "$HERE/before-upload-pack"; ulimit -n 3');
  const fill = { atLeast: 1, fresh: true, source: nobody, signal };
  await replica.catchUp(scene.id, fill).catch((error: unknown) => {
    assert.match(String(error), /git/);
    return replica.catchUp(scene.id, fill);
  });
  assert.ok(!existsSync(join(scene.root, 'set-aside')));
  assert.equal((await replica.state(scene.id))?.generation, 1);
});

for (const [desc, update, list] of [
  ['says so', 'ulimit -n 4', 'ulimit -n 4'],
  // As one does that passes over what it cannot open.
  ['says nothing', 'exit 128', 'exit 0'],
] as const) {
  test(`a push is not called stale when the git that judges it is short of files, and ${desc}`, async () => {
    const one = await pushed();
    const two = await scene.commit('two', one);
    await scene.refs.release(scene.gitDir);
    git.limit('update-ref', update);
    git.limit('for-each-ref', list);
    const move = { ref: main, oldOid: one, newOid: two };
    // In the way of the short cut that reads the files itself.
    const other = create(`${main}-and/more`, two);
    const key = { repositoryId: scene.id, pushId: 'short-of-files', attempt: 1 };
    const prepare = () => scene.replica.prepare(scene.request(key, [move, other]));
    await assert.rejects(prepare(), { code: 'storage-failure' });
  });
}

test('what a store could not pack for want of memory is not called damaged, or lost', async () => {
  await pushed();
  const second = await scene.second();
  const source: PeerSource = (have, atLeast, ended) =>
    scene.replica.export(scene.id, { have, atLeast, signal: ended });
  const fill = () => second.catchUp(scene.id, { atLeast: 1, source, signal });
  for (const limit of ['ulimit -v 1000', 'kill -9 $$', 'ulimit -n 3']) {
    git.limit('pack-objects', limit);
    await assert.rejects(fill(), { code: 'storage-failure' }, limit);
  }
  git.limit('pack-objects');
  await fill();
  assert.equal((await second.state(scene.id))?.generation, 1);
});

test('what a ref reaches is kept when the git that lists the refs cannot open it', async () => {
  const tip = await pushed();
  const runner = await createGitRunner({ logger: silentLogger, meter: silentMeter });
  git.limit('for-each-ref', 'ulimit -n 4');
  try {
    const context = { git: runner, gitDir: scene.gitDir, signal };
    await recordTips(context, { nowMs: Date.now(), graceMs: 1000 });
  } finally {
    await runner.close();
  }
  const records = join(scene.gitDir, RECORDS);
  const [record = ''] = readdirSync(records);
  assert.equal(readFileSync(join(records, record), 'utf8'), `${tip}\n`);
});

for (const command of ['fsck', 'repack'] as const) {
  test(`a copy that is to go does not wait for the git that looks after it (${command})`, async () => {
    await pushed();
    const { directory } = git;
    git.limit(command, ': >"$HERE/looking"; for wait in $(seq 300); do sleep 0.1; done');
    const looking =
      command === 'fsck' ? verify() : scene.replica.maintain(scene.id, { signal, kind: 'full' });
    await until('git is at it', () => existsSync(join(directory, 'looking')));
    await Promise.all([
      scene.replica.destroy(scene.id),
      assert.rejects(looking, { code: 'cancelled' }),
    ]);
    assert.ok(!existsSync(scene.gitDir));
  });
}
