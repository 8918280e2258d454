import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, lstatSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { keys, prefixEnd } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { allRefs } from '../contract/visible-refs.js';
import { limitGit, type LimitedGit } from '../git/testing/limited-git.js';
import { comeTo } from './testing/come-to.js';
import {
  type LocalFixture,
  runGit,
  startLocal,
  systemClock,
  zeroOid,
} from './testing/local-fixture.js';
import { create, openReplica } from './testing/replica-scene.js';
import { until } from '../contract/testing/until.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';

let local: LocalFixture;
let git: LimitedGit;
/** Of the backend's clocks: of both, and of the one on the wall alone. */
let aheadMs: number;
let steppedMs: number;
beforeEach(async () => {
  git = limitGit();
  [aheadMs, steppedMs] = [0, 0];
  local = await startLocal({
    clock: {
      nowMs: () => systemClock.nowMs() + aheadMs + steppedMs,
      monotonicMs: () => systemClock.monotonicMs() + aheadMs,
      sleep: (ms, ended) => systemClock.sleep(ms, ended),
    },
  });
});
afterEach(async () => {
  await local.remove();
  git.remove();
});

const repositoryDirectory = ({ id }: Repository): string =>
  join(local.directory, 'store', 'repos', id.slice(0, 2), id);
const gitDirectory = (repository: Repository): string =>
  join(repositoryDirectory(repository), 'git');
const packDirectory = (repository: Repository): string =>
  join(gitDirectory(repository), 'objects', 'pack');
const alternates = (repository: Repository): string =>
  join(gitDirectory(repository), 'objects', 'info', 'alternates');

/** Object directories of all pools. */
function pools(): readonly string[] {
  const root = join(local.directory, 'store', 'pools');
  return readdirSync(root).flatMap((shard) =>
    readdirSync(join(root, shard)).map((id) => join(root, shard, id, 'git', 'objects')),
  );
}

const bitmaps = (directory: string): number =>
  readdirSync(directory).filter((name) => name.endsWith('.bitmap')).length;
const packs = (directory: string): readonly string[] =>
  readdirSync(directory).filter((name) => name.endsWith('.pack'));

async function fork(source: Repository, name: string): Promise<Repository> {
  const access = { public: false, grants: {} };
  return local.backend.repositories.fork(source, { name, access, visible: allRefs });
}

/** Pushes a commit on top of main. */
async function pushOn(repository: Repository, content: string): Promise<string> {
  const read = await local.backend.read(repository, signal);
  const oldOid = read.snapshot.find(main)?.oid ?? zeroOid;
  read.release();
  if (oldOid !== zeroOid) await local.git('update-ref', 'HEAD', oldOid);
  const newOid = await local.commit(content);
  const have = oldOid === zeroOid ? [] : [oldOid];
  const { refs } = await local.push(repository, [{ ref: main, oldOid, newOid }], { have });
  assert.equal(refs[0]?.status, 'ok');
  return newOid;
}

async function maintain(repository: Repository): Promise<void> {
  await local.backend.maintain(repository, { signal });
}

/** As if all had borrowed for longer than any git runs. */
function longAgo(): void {
  aheadMs += 3_700_000;
}

async function assertSound(...repositories: readonly Repository[]): Promise<void> {
  for (const repository of repositories) {
    const said = await runGit(gitDirectory(repository), ['fsck', '--full', '--no-dangling']);
    assert.equal(said, '', repository.name);
  }
}

/** Names of files below a directory, and bytes of those that have no other name. */
function weigh(directory: string): { names: number; sizeBytes: number; files: Set<number> } {
  const files = new Set<number>();
  let [names, sizeBytes] = [0, 0];
  for (const name of readdirSync(directory, { recursive: true })) {
    // What is on its way out may go at any time.
    if (/^(?:trash|spares)\//.test(String(name))) continue;
    const stat = lstatSync(join(directory, String(name)));
    if (!stat.isFile()) continue;
    names++;
    if (files.has(stat.ino)) continue;
    files.add(stat.ino);
    sizeBytes += stat.size;
  }
  return { names, sizeBytes, files };
}

test('a fork costs the same, however much it shares', async () => {
  const costs: { names: number; sizeBytes: number }[] = [];
  const store = join(local.directory, 'store');
  for (const sizeBytes of [10_000, 8_000_000]) {
    const source = await local.create(`size-${sizeBytes}`);
    await pushOn(source, randomBytes(sizeBytes / 2).toString('hex'));
    // What the push leaves goes after its answer.
    await comeTo([], () => readdirSync(join(store, 'quarantine')));
    assert.ok(weigh(gitDirectory(source)).sizeBytes > sizeBytes / 2);
    for (const name of ['first', 'second']) {
      const before = weigh(store);
      await fork(source, `${name}-${sizeBytes}`);
      const after = weigh(store);
      costs.push({
        names: after.names - before.names,
        sizeBytes: after.sizeBytes - before.sizeBytes,
      });
    }
  }
  const [small, , large] = costs;
  for (const [index, cost] of costs.slice(2).entries()) {
    const lesser = costs[index];
    assert.equal(cost.names, lesser?.names);
    // Numbers have more or fewer digits.
    assert.ok(Math.abs(cost.sizeBytes - (lesser?.sizeBytes ?? 0)) < 100, JSON.stringify(costs));
  }
  assert.ok(
    small !== undefined && small.sizeBytes < 6000,
    `${small?.sizeBytes} bytes were written`,
  );
  assert.ok(large !== undefined && large.names < 50, `${large?.names} files were made`);
});

test('the source gives up its copies once no git of before can run; nothing is copied back', async () => {
  const source = await local.create('source');
  await pushOn(source, randomBytes(100_000).toString('hex'));
  await maintain(source);
  const [whole] = packs(packDirectory(source));
  const forked = await fork(source, 'forked');
  await pushOn(source, 'two');
  await maintain(source);
  assert.ok(packs(packDirectory(source)).includes(whole ?? ''), 'a git that runs finds its packs');
  const shared = await local.backend.repositories.stats(source.id);
  assert.ok(shared.sizeBytes < 20_000, `${shared.sizeBytes} bytes of its own`);
  longAgo();
  await maintain(source);
  assert.ok(!packs(packDirectory(source)).includes(whole ?? ''));
  await pushOn(forked, 'three');
  await maintain(forked);
  for (const repository of [source, forked]) {
    const { sizeBytes, sharedBytes } = await local.backend.repositories.stats(repository.id);
    assert.ok(sizeBytes < 20_000 && sharedBytes > 100_000, `${sizeBytes}, ${sharedBytes}`);
  }
  await assertSound(source, forked);
});

test('a clock on the wall that is put forward takes nothing from a git that runs', async () => {
  const source = await local.create('source');
  await pushOn(source, randomBytes(100_000).toString('hex'));
  await maintain(source);
  const whole = packs(packDirectory(source));
  await fork(source, 'forked');
  steppedMs += 365 * 86_400_000;
  await maintain(source);
  for (const name of whole) assert.ok(packs(packDirectory(source)).includes(name));
});

test('a clone of a fork right away is the stored pack of its source, and later a whole one', async () => {
  const source = await local.create('source');
  const tip = await pushOn(source, 'one');
  await maintain(source);
  const forked = await fork(source, 'forked');
  const wholePack = async (repository: Repository): Promise<number | undefined> => {
    const read = await local.backend.read(repository, signal);
    const pack = await read.wholePack();
    await pack?.close();
    read.release();
    return pack?.objectCount;
  };
  assert.deepEqual([await wholePack(source), await wholePack(forked)], [3, 3]);
  longAgo();
  await maintain(source);
  assert.deepEqual(packs(packDirectory(source)), []);
  assert.equal(await wholePack(source), 3, 'it is in the pool');
  await pushOn(forked, 'two');
  assert.equal(await wholePack(forked), undefined);
  longAgo();
  await maintain(forked);
  assert.equal(packs(packDirectory(forked)).length, 1);
  assert.equal(await wholePack(forked), undefined, 'its pack lacks what it borrows');
  assert.equal(await wholePack(source), 3);
  assert.notEqual(tip, '');
});

test('a pool goes with its last but one member, which has its objects back by then', async () => {
  for (const deleted of ['source', 'fork'] as const) {
    const source = await local.create(`source-${deleted}`);
    await pushOn(source, 'one');
    const forked = await fork(source, `fork-${deleted}`);
    await pushOn(source, 'source two');
    await pushOn(forked, 'fork two');
    for (const repository of [source, forked]) {
      longAgo();
      await maintain(repository);
    }
    assert.equal(pools().length, 1);
    const [gone, last] = deleted === 'source' ? [source, forked] : [forked, source];
    await local.backend.repositories.delete(gone.id);
    await untilNoPools();
    assert.ok(!existsSync(alternates(last)));
    await assertSound(last);
    const { sharedBytes, sharedBy } = await local.backend.repositories.stats(last.id);
    assert.deepEqual([sharedBytes, sharedBy], [0, undefined]);
    await pushOn(last, 'three');
    await maintain(last);
    await assertSound(last);
    // It can be forked anew, from a new pool.
    const again = await fork(last, `again-${deleted}`);
    await assertSound(last, again);
    await local.backend.repositories.delete(last.id);
    await local.backend.repositories.delete(again.id);
    await untilNoPools();
  }
});

/** Deletion goes on in the background; closing waits for it, but so does this. */
function untilNoPools(): Promise<void> {
  return until('the pool is gone', async () => {
    const { entries } = await local.coordinator.range('pool', { rangeEnd: prefixEnd('pool') });
    return entries.length === 0 && pools().length === 0;
  });
}

test('a fork of a fork shares one pool, and gets what came since', async () => {
  const source = await local.create('source');
  await pushOn(source, 'one');
  const first = await fork(source, 'first');
  const tip = await pushOn(first, 'two');
  const second = await fork(first, 'second');
  assert.equal(pools().length, 1);
  assert.equal((await local.backend.repositories.stats(second.id)).sharedBy, 3);
  assert.equal((await runGit(gitDirectory(second), ['rev-parse', main])).trim(), tip);
  await assertSound(source, first, second);
});

test('the packs of a pool are merged when forks have brought many', async () => {
  const source = await local.create('source');
  const forks: Repository[] = [];
  for (let count = 0; count < 14; count++) {
    await pushOn(source, `commit ${count}`);
    forks.push(await fork(source, `fork-${count}`));
  }
  const [pool = ''] = pools();
  assert.ok(packs(join(pool, 'pack')).length > 12);
  longAgo();
  await maintain(source);
  assert.ok(packs(join(pool, 'pack')).length <= 4);
  await assertSound(source, ...forks);
});

/**
 * A git fsck that meets a repack of the pool at both of its looks: at the first one it is always there, and the second
 * one waits for it, for three seconds. What it says is what git fsck says of packs that it has listed and that go.
 */
const fsckBesideRepack = `
if [ ! -e "$HERE/looked" ]; then
  : >"$HERE/looked"
  echo 'error: packfile ./objects/pack/pack-1.pack index not opened' >&2
  exit 4
fi
: >"$HERE/looking"
for wait in $(seq 30); do
  if [ -e "$HERE/repacked" ]; then
    echo 'error: 1111111111111111111111111111111111111111: object corrupt or missing' >&2
    exit 1
  fi
  sleep 0.1
done
rm "$HERE/looking"
`;
const repackOfPool = `
case "$GIT_DIR" in
*/pools/*) [ ! -e "$HERE/looking" ] || : >"$HERE/repacked" ;;
esac
`;

test('a fork is not taken for damaged when the packs of its pool go while it is verified', async () => {
  const source = await local.create('source');
  const forks: Repository[] = [];
  for (let count = 0; count < 14; count++) {
    await pushOn(source, `commit ${count}`);
    forks.push(await fork(source, `fork-${count}`));
  }
  const [forked] = forks;
  const { stores } = local.backend;
  assert.ok(forked !== undefined && stores !== undefined);
  longAgo();
  git.limit('fsck', fsckBesideRepack);
  git.limit('repack', repackOfPool);
  const verifying = stores.verify(forked.id, { signal, progress: () => undefined });
  await until('git fsck looks again', () => existsSync(join(git.directory, 'looking')));
  await maintain(source);
  const [copy] = await verifying;
  assert.deepEqual([copy?.problems, copy?.unread], [[], undefined]);
  const [pool = ''] = pools();
  assert.ok(packs(join(pool, 'pack')).length <= 4, 'it was only put off');
});

test('one bitmap is in sight, also after the fork: git tells clients of a second one', async () => {
  const source = await local.create('source');
  for (let count = 0; count < 3; count++) await pushOn(source, `commit ${count}`);
  await maintain(source);
  assert.equal(bitmaps(packDirectory(source)), 1);
  const forked = await fork(source, 'forked');
  const [pool = ''] = pools();
  for (const repository of [source, forked]) assert.equal(bitmaps(packDirectory(repository)), 0);
  assert.equal(bitmaps(join(pool, 'pack')), 1);
  longAgo();
  await pushOn(source, 'more');
  await maintain(source);
  assert.equal(bitmaps(packDirectory(source)), 0);
});

test('what a crash left half-made in a pool is made anew', async () => {
  const source = await local.create('source');
  await pushOn(source, 'one');
  await fork(source, 'first');
  await pushOn(source, 'two');
  const [pool = ''] = pools();
  const fresh = packs(packDirectory(source)).find((name) => !existsSync(join(pool, 'pack', name)));
  assert.ok(fresh !== undefined);
  // Another pack of the same objects may have had this name: it has no index yet, and is replaced.
  writeFileSync(join(pool, 'pack', fresh), 'half');
  const second = await fork(source, 'second');
  assert.equal(
    statSync(join(pool, 'pack', fresh)).ino,
    statSync(join(packDirectory(source), fresh)).ino,
  );
  await assertSound(source, second);
});

test('what an administrator lets a repository borrow is left alone, and it is not forked', async () => {
  const source = await local.create('source');
  await pushOn(source, 'one');
  const elsewhere = join(local.directory, 'elsewhere');
  await runGit(local.directory, ['clone', '-q', '--bare', gitDirectory(source), elsewhere]);
  for (let count = 0; count < 20; count++) {
    const added = ['hash-object', '-w', '--stdin'];
    const blob = (await runGit(elsewhere, added, `blob ${count}`)).trim();
    await runGit(elsewhere, ['pack-objects', '-q', 'objects/pack/pack'], `${blob}\n`);
  }
  const theirs = packs(join(elsewhere, 'objects/pack')).toSorted();
  writeFileSync(alternates(source), `${join(elsewhere, 'objects')}\n`);
  await assert.rejects(fork(source, 'forked'), { code: 'failed-precondition' });
  await maintain(source);
  assert.deepEqual(packs(join(elsewhere, 'objects/pack')).toSorted(), theirs);
  const { sharedBytes } = await local.backend.repositories.stats(source.id);
  assert.equal(sharedBytes, 0);
});

test('a repository that borrows from a pool of which nobody knows is forked from a new one', async () => {
  const source = await local.create('source');
  await pushOn(source, 'one');
  const first = await fork(source, 'first');
  longAgo();
  await maintain(source);
  // An older copy of the coordinator was put back: the source is in no pool.
  const kv = await local.coordinator.get(keys.repo(source.id));
  const record = JSON.parse(new TextDecoder().decode(kv?.value));
  delete record.pool;
  await local.coordinator.transaction({
    compares: [],
    success: [
      {
        type: 'put',
        key: keys.repo(source.id),
        value: new TextEncoder().encode(JSON.stringify(record)),
      },
    ],
    failure: [],
  });
  const second = await fork(source, 'second');
  assert.equal(pools().length, 2);
  await assertSound(source, first, second);
});

test('a fork that cannot be made leaves no member behind', async () => {
  const source = await local.create('source');
  await pushOn(source, 'one');
  await local.create('taken');
  await assert.rejects(fork(source, 'taken'), { code: 'already-exists' });
  const racing = await Promise.allSettled([fork(source, 'one'), fork(source, 'one')]);
  assert.equal(racing.filter(({ status }) => status === 'fulfilled').length, 1);
  const { entries } = await local.coordinator.range('pool-members/', {
    rangeEnd: prefixEnd('pool-members/'),
  });
  assert.equal(entries.length, 2);
  const repositories = await local.coordinator.range(keys.repos, {
    rangeEnd: prefixEnd(keys.repos),
  });
  assert.equal(repositories.entries.length, 3);
});

test('refs are forked only of a generation that the store holds together', async () => {
  const scene = await openReplica();
  try {
    const [one, two] = [await scene.commit('one'), await scene.commit('two')];
    const key = await scene.prepare([create(main, one)]);
    const sourceGeneration = scene.log.commit(key.pushId, [create(main, one)]);
    const request = (oid: string) => ({
      repositoryId: randomBytes(16).toString('hex'),
      sourceId: scene.id,
      poolId: randomBytes(16).toString('hex'),
      objectFormat: 'sha1' as const,
      sourceGeneration,
      head: main,
      refs: [{ name: main, oid }],
    });
    await assert.rejects(scene.replica.fork(request(two)), { code: 'aborted' });
    const old = { ...request(one), sourceGeneration: sourceGeneration - 1 };
    await assert.rejects(scene.replica.fork(old), { code: 'aborted' });
    const whole = request(one);
    await scene.replica.fork(whole);
    // The answer was lost: asked for again, it is there.
    await scene.replica.fork(whole);
    const { repositoryId } = whole;
    const gitDir = join(scene.root, 'repos', repositoryId.slice(0, 2), repositoryId, 'git');
    assert.equal((await runGit(gitDir, ['rev-parse', main])).trim(), one);
  } finally {
    await scene.close();
  }
});
