import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import { allRefs, refsWithout, type VisibleRefs } from '../contract/visible-refs.js';
import type { ReplicaRead } from '../contract/replica.js';
import { observeSyncs } from '../git/testing/observe-syncs.js';
import type { LocalReplica } from './local-replica.js';
import { readState, type RepositoryState } from './state-file.js';
import { comeTo } from './testing/come-to.js';
import { zeroOid } from './testing/local-fixture.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';
import { until } from '../contract/testing/until.js';

const signal = new AbortController().signal;
const main = 'refs/heads/main';

let scene: ReplicaScene;
beforeEach(async () => {
  scene = await openReplica();
});
afterEach(async () => {
  await scene.close();
});

const quarantines = (): string[] => readdirSync(join(scene.root, 'quarantine'));
const keeps = (): string[] =>
  readdirSync(join(scene.gitDir, 'objects', 'pack')).filter((name) => name.endsWith('.keep'));
const state = (): Promise<RepositoryState> => readState(dirname(scene.gitDir));

/** A push from upload to its log entry; not applied. */
async function commitPush(ref = main, content = 'one'): Promise<string> {
  const tip = await scene.commit(content);
  const key = await scene.prepare([create(ref, tip)]);
  scene.log.commit(key.pushId, [create(ref, tip)]);
  return tip;
}

async function seen(replica = scene.replica): Promise<Record<string, string>> {
  const read = await replica.read(scene.id, scene.log.committed.generation);
  read.release();
  return Object.fromEntries(read.snapshot.refs.map(({ name, oid }) => [name, oid]));
}

// Only what is no branch can be an annotated tag, and is peeled.
for (const [step, ref] of [
  ['commitEither', main],
  ['peel', 'refs/tags/one'],
] as const) {
  test(`an apply that fails at ${step} is done again, whole, and leaves nothing behind`, async () => {
    const tip = await commitPush(ref);
    scene.failures.set(step, 1);
    await assert.rejects(scene.replica.apply(scene.id, 1), { code: 'storage-failure' });
    assert.equal(await scene.replica.applied(scene.id), 0);
    assert.deepEqual(await seen(), { [ref]: tip });
    assert.deepEqual([(await state()).generation, (await state()).applying], [1, undefined]);
    await comeTo([[], []], () => [quarantines(), keeps()]);
    assert.deepEqual(scene.replica.quarantines, []);
    const next = await commitPush('refs/heads/next', 'two');
    assert.deepEqual(await seen(), { [ref]: tip, 'refs/heads/next': next });
  });

  test(`a restart finishes an apply that failed at ${step}`, async () => {
    const tip = await commitPush(ref);
    scene.failures.set(step, 1);
    await assert.rejects(scene.replica.apply(scene.id, 1));
    assert.equal(keeps().length, 1, 'nothing may repack what no ref reaches yet');
    const again = await scene.reopen();
    assert.deepEqual(await seen(again), { [ref]: tip });
    assert.deepEqual([quarantines(), keeps()], [[], []]);
    await scene.git('fsck', '--full', '--strict');
  });
}

test('the intent is on disk before anything of the entry is, and the marker after its refs', async () => {
  const tip = await commitPush();
  scene.failures.set('commitEither', 1);
  await assert.rejects(scene.replica.apply(scene.id, 1));
  assert.ok((await state()).applying !== undefined);
  assert.equal((await state()).generation, 0);
  await scene.replica.apply(scene.id, 1);
  assert.equal(await scene.git('rev-parse', main), tip);
});

test('a restart puts on disk what an earlier process had only written, before it builds on it', async () => {
  await commitPush();
  scene.failures.set('commitEither', 1);
  await assert.rejects(scene.replica.apply(scene.id, 1));
  const synced: string[] = [];
  const observe = (path: string): number => synced.push(path);
  await observeSyncs(observe, async () => void (await seen(await scene.reopen())));
  const refs = synced.indexOf(join(scene.gitDir, 'refs', 'heads'));
  assert.ok(refs > 0);
  // The intent, the marker before it, and the names of the promoted pack.
  const directory = dirname(scene.gitDir);
  const before = [join(directory, 'intent'), join(directory, 'state')];
  for (const path of [...before, join(scene.gitDir, 'objects', 'pack')]) {
    assert.ok(synced.slice(0, refs).includes(path), path);
  }
});

test('a restart removes a ref of which a power cut left only an older value in packed-refs', async () => {
  const old = await commitPush();
  await scene.replica.apply(scene.id, 1);
  await scene.git('pack-refs', '--all', '--prune');
  const tip = await scene.commit('next', old);
  const update = [{ ref: main, oldOid: old, newOid: tip }];
  const { pushId } = await scene.prepare(update, [old]);
  scene.log.commit(pushId, update);
  scene.log.commit('deletion', [{ ref: main, oldOid: tip, newOid: zeroOid }]);
  await scene.replica.apply(scene.id, 2);
  scene.failures.set('commitEither', 1);
  await assert.rejects(scene.replica.apply(scene.id, 3));
  await rm(join(scene.gitDir, main));
  assert.equal(await scene.git('rev-parse', main), old);
  assert.deepEqual(await seen(await scene.reopen()), {});
});

test('entries that do not follow are not applied: a gap, a wrong digest, a log cut short', async () => {
  const tip = await commitPush();
  const [entry] = scene.log.kept;
  assert.ok(entry !== undefined);
  for (const wrong of [{ generation: 2 }, { digest: '0'.repeat(128) }]) {
    scene.log.kept.splice(0, 1, { ...entry, ...wrong });
    await assert.rejects(scene.replica.apply(scene.id, 2), { code: 'data-corrupt' });
    assert.equal((await state()).applying, undefined);
  }
  scene.log.kept.splice(0, 1);
  await assert.rejects(scene.replica.apply(scene.id, 1), { code: 'data-corrupt' });
  scene.log.kept.push(entry);
  assert.deepEqual(await seen(), { [main]: tip });
});

test('a push is judged at its basis: what is committed and not applied yet comes first', async () => {
  await commitPush();
  const other = await scene.commit('other');
  const key = { repositoryId: scene.id, pushId: 'judged-late', attempt: 1 };
  const { refused } = await scene.replica.prepare(scene.request(key, [create(main, other)]));
  assert.deepEqual([...refused], [[main, 'reference already exists']]);
  await scene.replica.abort(key);
});

test('refs are known without a read only of the very generation and digest that were asked for', async () => {
  await commitPush();
  const head = scene.log.committed;
  const known = (asked = head): number | undefined =>
    scene.replica.knownSnapshot(scene.id, asked)?.refs.length;
  assert.equal(known(), undefined, 'committed, and not applied yet');
  await scene.replica.apply(scene.id, 1);
  assert.equal(known(), 1);
  assert.equal(known({ ...head, generation: 2 }), undefined);
  assert.equal(known({ ...head, digest: '1'.repeat(128) }), undefined);
  await scene.replica.destroy(scene.id);
  assert.equal(known(), undefined);
});

const nobody = (): Promise<never> => Promise.reject(new Error('a peer is asked'));

test('a coordinator that is behind this disk freezes the repository', async () => {
  const tip = await commitPush();
  const early = { ...scene.log.committed, generation: 0 };
  await scene.replica.apply(scene.id, 1);
  const next = await scene.commit('next', tip);
  const change = { ref: main, oldOid: tip, newOid: next };
  const key = await scene.prepare([change], [tip]);
  scene.log.committed = early;
  const frozen = {
    code: 'data-corrupt',
    message: /the repository is frozen: .* run quorate recover$/,
  };
  const again = await scene.reopen();
  for (const replica of [scene.replica, again]) {
    await assert.rejects(replica.read(scene.id, 0), frozen);
    await assert.rejects(replica.prepare(scene.request(key, [change])), frozen);
    await assert.rejects(replica.apply(scene.id, 0), frozen);
    // What it has may be nowhere else.
    const fill = replica.catchUp(scene.id, { atLeast: 0, fresh: true, source: nobody, signal });
    await assert.rejects(fill);
  }
  assert.equal(await scene.git('rev-parse', main), tip);
});

test('a coordinator with other refs at the same generation freezes the repository', async () => {
  await commitPush();
  await scene.replica.apply(scene.id, 1);
  scene.log.committed = { generation: 1, digest: '1'.repeat(128) };
  const again = await scene.reopen();
  await assert.rejects(again.read(scene.id, 1), {
    code: 'data-corrupt',
    message: /^this disk is at generation 1, and .* at 1, with other refs; .* quorate recover$/,
  });
});

test('refs that somebody else changed freeze the repository, and the message says so', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  await scene.git('update-ref', 'refs/heads/foreign', tip);
  const again = await scene.reopen();
  await assert.rejects(again.read(scene.id, 1), { code: 'data-corrupt', message: /frozen$/ });
});

test('HEAD changes are judged before the commit: names, and the old value', async () => {
  const key = { repositoryId: scene.id, pushId: 'head-change', attempt: 1 };
  const old = { symref: main };
  for (const [head, code] of [
    [{ old, new: { symref: 'refs/heads/a..b' } }, 'invalid-argument'],
    [{ old, new: { oid: '1'.repeat(40) } }, 'invalid-argument'],
    [{ old: { symref: 'refs/heads/x' }, new: old }, 'aborted'],
  ] as const) {
    const request = { ...scene.request(key, []), head };
    await assert.rejects(scene.replica.prepare(request), { code });
    assert.deepEqual(scene.replica.quarantines, []);
  }
  await assert.rejects(
    scene.replica.create('0'.repeat(32), { objectFormat: 'sha1', head: 'refs/heads/a..b' }),
    { code: 'invalid-argument' },
  );
});

test('deletion waits for reads, refuses new ones, then leaves nothing', async () => {
  await commitPush();
  await scene.replica.apply(scene.id, 1);
  const tip = await scene.commit('never');
  await scene.prepare([create('refs/heads/never', tip)]);
  const read = await scene.replica.read(scene.id, 1);
  let gone = false;
  const destroyed = scene.replica.destroy(scene.id).then(() => (gone = true));
  await assert.rejects(scene.replica.read(scene.id, 1), { code: 'not-found' });
  assert.equal((await read.objectSizes([tip])).length, 1);
  assert.equal(gone, false);
  assert.ok(existsSync(scene.gitDir));
  read.release();
  await destroyed;
  assert.ok(!existsSync(scene.gitDir));
  assert.deepEqual([quarantines(), scene.replica.quarantines], [[], []]);
  assert.deepEqual(readdirSync(join(scene.root, 'trash')), []);
  await assert.rejects(scene.prepare([create('refs/heads/late', tip)]), { code: 'not-found' });
  assert.deepEqual([quarantines(), scene.replica.quarantines], [[], []]);
});

for (const remove of ['destroy', 'setAside'] as const) {
  test(`a copy stays when that is found out once nobody reads it any more (${remove})`, async () => {
    await commitPush();
    await scene.replica.apply(scene.id, 1);
    const read = await scene.replica.read(scene.id, 1);
    let asked = 0;
    const confirm = async (): Promise<void> => {
      asked += 1;
      throw new QuorateError('aborted', 'it stays');
    };
    const removed = scene.replica[remove](scene.id, { confirm });
    await assert.rejects(scene.replica.read(scene.id, 1), { code: 'not-found' });
    assert.equal(asked, 0);
    read.release();
    await assert.rejects(removed, { code: 'aborted' });
    assert.equal(asked, 1);
    const again = await scene.replica.read(scene.id, 1);
    again.release();
    assert.deepEqual((await scene.replica.verify(scene.id, { signal })).problems, []);
  });
}

test('a push between judgement and refs holds off pruning; so do the retained generations', async () => {
  const day = 86_400_000;
  const tip = await commitPush();
  const gone = await commitPush('refs/heads/gone', 'gone');
  await scene.replica.maintain(scene.id, { signal });
  const remove = [{ ref: 'refs/heads/gone', oldOid: gone, newOid: zeroOid }];
  const removal = await scene.prepare(remove);
  scene.log.commit(removal.pushId, remove);
  const exists = async (replica: LocalReplica): Promise<boolean> => {
    const read = await replica.read(scene.id, 3);
    const [size] = await read.objectSizes([gone]);
    read.release();
    return size !== undefined;
  };
  for (let i = 0; i < 3; i++) {
    scene.advance(day);
    await scene.replica.maintain(scene.id, { signal });
  }
  assert.ok(await exists(scene.replica), 'a fetch may still want what it was told of');

  const replica = await scene.reopen();
  const pushed = [{ ref: main, oldOid: tip, newOid: tip }];
  const key = { repositoryId: scene.id, pushId: 'being-judged', attempt: 1 };
  await replica.prepare(scene.request(key, pushed));
  await replica.maintain(scene.id, { signal });
  assert.ok(await exists(replica), 'a push may rely on it');
  await replica.abort(key);
  await replica.maintain(scene.id, { signal });
  assert.ok(!(await exists(replica)));
  await scene.git('fsck', '--full', '--strict');
});

test('keep files that a crash left behind its marker go at the next start', async () => {
  const packs = join(scene.gitDir, 'objects', 'pack');
  await commitPush();
  scene.failures.set('commitEither', 1);
  await assert.rejects(scene.replica.apply(scene.id, 1));
  const [ours = ''] = keeps();
  const said = readFileSync(join(packs, ours), 'utf8');
  await scene.replica.apply(scene.id, 1);
  writeFileSync(join(packs, ours), said);
  writeFileSync(join(packs, 'pack-theirs.keep'), 'for good');
  await (await scene.reopen()).applied(scene.id);
  assert.deepEqual(keeps(), ['pack-theirs.keep']);
});

/** Names that git advertises over this read. */
async function advertised(read: ReplicaRead, visible: VisibleRefs): Promise<string[]> {
  const { stdout, exited } = await read.uploadPack({
    protocol: 0,
    stateless: false,
    input: Buffer.from('0000'),
    visible,
    config: {},
    signal,
  });
  const text = Buffer.concat(await stdout.toArray()).toString('latin1');
  assert.equal((await exited).exitCode, 0);
  return [...text.matchAll(/[0-9a-f]{40} (refs\/\S+?)[\0\n]/g)].map((match) => match[1] ?? '');
}

test('a fetch sees its generation and its own visible refs, and leaves no view of an old one', async () => {
  const one = await commitPush();
  const all = allRefs;
  const some = refsWithout([main]);
  const first = await scene.replica.read(scene.id, 1);
  // Two that run at once share a view; the one with other refs does not.
  const [a, b, c] = await Promise.all(
    [all, all, some].map((visible) => advertised(first, visible)),
  );
  assert.deepEqual([a, b, c], [[main], [main], []]);
  await commitPush('refs/heads/next', 'two');
  const second = await scene.replica.read(scene.id, 2);
  assert.deepEqual(await advertised(second, all), [main, 'refs/heads/next']);
  assert.deepEqual(await advertised(second, some), ['refs/heads/next']);
  assert.deepEqual(await advertised(first, all), [main]);
  assert.equal(await first.firstForbiddenWant([one], some), one);
  for (const read of [first, second]) read.release();
  const views = (): number => readdirSync(join(scene.root, 'views')).length;
  // Those of the current generation stay for the next fetch; the one of the old generation that was used last goes.
  await until('it goes', () => views() <= 3);
  assert.equal(views(), 3);
});

test('maintenance first applies what is committed', async () => {
  await commitPush();
  await scene.replica.maintain(scene.id, { signal });
  assert.equal(await scene.replica.applied(scene.id), 1);
});

test('many loose refs are packed, however few objects there are', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const names = Array.from({ length: 500 }, (_, n) => `refs/heads/many/${n}`);
  mkdirSync(join(scene.gitDir, 'refs/heads/many'));
  for (const name of names.slice(1)) writeFileSync(join(scene.gitDir, name), `${tip}\n`);
  assert.equal(await scene.replica.needsMaintenance(scene.id), 'none');
  for (const name of names) writeFileSync(join(scene.gitDir, name), `${tip}\n`);
  const kind = await scene.replica.needsMaintenance(scene.id);
  assert.equal(kind, 'geometric');
  await scene.replica.maintain(scene.id, { signal, kind });
  assert.equal(await scene.replica.needsMaintenance(scene.id), 'none');
  const packed = readFileSync(join(scene.gitDir, 'packed-refs'), 'latin1');
  for (const name of [main, ...names]) assert.ok(packed.includes(`${tip} ${name}\n`), name);
});

test('maintenance that was given up before its turn is cancelled', async () => {
  await assert.rejects(scene.replica.maintain(scene.id, { signal: AbortSignal.abort() }), {
    code: 'cancelled',
  });
});

test('a disk that does not take a quarantine is a storage failure, not a bug', async () => {
  const directory = join(scene.root, 'quarantine');
  await rm(directory, { recursive: true });
  await writeFile(directory, '');
  await assert.rejects(commitPush(), { code: 'storage-failure' });
  assert.deepEqual(scene.replica.quarantines, []);
});

test('a full disk is called that also when a push first waits for what was committed before', async () => {
  await commitPush();
  scene.failures.set('commitEither', 1);
  const key = { repositoryId: scene.id, pushId: 'after-it', attempt: 1 };
  const pack = (async function* (): AsyncGenerator<Uint8Array> {})();
  const options = { settings: {}, basis: 1, signal, progress: () => undefined };
  await assert.rejects(scene.replica.upload(key, pack, options), (error: QuorateError) => {
    assert.deepEqual([error.code, error.details['basis']], ['storage-failure', 1]);
    return true;
  });
});

test('a client whose connection breaks is not taken for a disk that fails', async () => {
  const reset = Object.assign(new Error('read ECONNRESET'), {
    code: 'ECONNRESET',
    syscall: 'read',
  });
  const key = { repositoryId: scene.id, pushId: 'broken-line', attempt: 1 };
  const pack: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(reset) }),
  };
  const options = { settings: {}, signal, progress: () => undefined };
  const error = await scene.replica.upload(key, pack, options).then(
    () => assert.fail('taken'),
    (thrown: unknown) => thrown,
  );
  assert.ok(!(error instanceof QuorateError) || error.code !== 'storage-failure');
  await comeTo([[], []], () => [quarantines(), keeps()]);
  assert.deepEqual(scene.replica.quarantines, []);
});

test('a client that takes its fetch slowly gets all of it', async () => {
  const tip = await commitPush(main, randomBytes(8 * 1024 * 1024).toString('hex'));
  const read = await scene.replica.read(scene.id, 1);
  const lines = ['command=fetch\n', undefined, 'no-progress\n', `want ${tip}\n`, 'done\n'];
  const packets = lines.map((line) =>
    line === undefined ? '0001' : `${(line.length + 4).toString(16).padStart(4, '0')}${line}`,
  );
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const fetched = await read.uploadPack({
      protocol: 2,
      stateless: true,
      visible: allRefs,
      config: {},
      input: Readable.from([Buffer.from(`${packets.join('')}0000`)]),
      signal,
    });
    let bytes = 0;
    for await (const part of fetched.stdout as AsyncIterable<Buffer>) {
      if (bytes === 0) mock.timers.tick(20 * 3_600_000);
      bytes += part.length;
    }
    assert.equal((await fetched.exited).exitCode, 0);
    assert.ok(bytes > 8 * 1024 * 1024);
  } finally {
    mock.timers.reset();
    read.release();
  }
});

test('a pack counts from its index on, so that comes last, and is held by a keep file', async () => {
  const tip = await commitPush();
  const [name = ''] = quarantines();
  const inside = readdirSync(join(scene.root, 'quarantine', name, 'pack'));
  const pack = inside.find((file) => file.endsWith('.pack')) ?? '';
  const target = join(scene.gitDir, 'objects', 'pack', pack);
  mkdirSync(target);
  await assert.rejects(scene.replica.apply(scene.id, 1), { code: 'storage-failure' });
  const there = readdirSync(join(scene.gitDir, 'objects', 'pack'));
  assert.deepEqual([there.filter((file) => file.endsWith('.idx')), keeps().length], [[], 1]);
  rmdirSync(target);
  assert.deepEqual(await seen(), { [main]: tip });
  await scene.git('fsck', '--full', '--strict');
});

test('keep files of other people stay', async () => {
  await commitPush();
  const kept = join(scene.gitDir, 'objects', 'pack', 'pack-theirs.keep');
  writeFileSync(kept, '');
  await scene.replica.apply(scene.id, 1);
  await comeTo(['pack-theirs.keep'], keeps);
});

test('a delete needs no objects, and applies', async () => {
  const tip = await commitPush();
  await scene.replica.apply(scene.id, 1);
  const remove = [{ ref: main, oldOid: tip, newOid: zeroOid }];
  const key = await scene.prepare(remove);
  scene.log.commit(key.pushId, remove);
  assert.deepEqual(await seen(), {});
  await comeTo([[], []], () => [quarantines(), keeps()]);
  assert.deepEqual(scene.replica.quarantines, []);
});
