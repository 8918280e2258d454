import assert from 'node:assert/strict';
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { keys, prefixEnd } from '../contract/keys.js';
import { allRefs, refsWithout } from '../contract/visible-refs.js';
import type { Repository } from '../contract/repository.js';
import { comeTo } from './testing/come-to.js';
import {
  type LocalFixture,
  packOf,
  pushRequest,
  runGit,
  startLocal,
  zeroOid,
} from './testing/local-fixture.js';

const signal = new AbortController().signal;

const blob = async (where: string, text: string): Promise<string> =>
  (await runGit(where, ['hash-object', '-w', '--stdin'], text)).trim();

describe('local backend', () => {
  let local: LocalFixture;
  before(async () => {
    local = await startLocal();
  });
  after(async () => {
    await local.remove();
  });

  const quarantines = () => readdir(join(local.directory, 'store', 'quarantine'));
  const refsOf = async (repository: Repository): Promise<Record<string, string>> => {
    const read = await local.backend.read(repository, signal);
    read.release();
    return Object.fromEntries(read.snapshot.refs.map(({ name, oid }) => [name, oid]));
  };

  test('a push is one generation, seen by the next read and by git on the disk', async () => {
    const repository = await local.create('first');
    const one = await local.commit('one');
    const created = await local.push(repository, [
      { ref: 'refs/heads/main', oldOid: zeroOid, newOid: one },
    ]);
    assert.deepEqual(created, {
      unpack: 'ok',
      refs: [{ ref: 'refs/heads/main', status: 'ok', oldOid: zeroOid, newOid: one }],
      generation: 1,
    });
    const two = await local.commit('two');
    const updated = await local.push(
      repository,
      [{ ref: 'refs/heads/main', oldOid: one, newOid: two }],
      { have: [one] },
    );
    assert.equal(updated.generation, 2);
    assert.deepEqual(await refsOf(repository), { 'refs/heads/main': two });
    await comeTo([], quarantines);
    const gitDir = join(
      local.directory,
      'store',
      'repos',
      repository.id.slice(0, 2),
      repository.id,
      'git',
    );
    await runGit(gitDir, ['fsck', '--full', '--strict']);
    assert.equal((await runGit(gitDir, ['rev-parse', 'refs/heads/main'])).trim(), two);
    await comeTo([], async () => {
      const packs = await readdir(join(gitDir, 'objects', 'pack'));
      return packs.filter((name) => name.endsWith('.keep'));
    });
  });

  test('the one store is shown, its copies are read from the disk, and pushes told', async () => {
    const { stores, cluster } = local.backend;
    assert.ok(stores !== undefined);
    assert.equal(cluster, undefined);
    const repository = await local.create('shown');
    const newOid = await local.commit('shown');
    const commands = [{ ref: 'refs/heads/main', oldOid: zeroOid, newOid }];
    const request = pushRequest(commands, { pack: await packOf(local.source, [newOid], []) });
    await local.backend.push(repository, request);
    const [node] = await stores.nodes();
    assert.ok(node?.alive === true && node.copies > 0 && (node.capacityBytes ?? 0) > 0);
    const [copy, ...others] = await stores.replicas(repository.id);
    assert.deepEqual(others, []);
    assert.deepEqual([copy?.nodeId, copy?.lag, copy?.sound], ['test', 0, true]);
    const verify = () => stores.verify(repository.id, { signal, progress: () => undefined });
    assert.deepEqual((await verify())[0]?.problems, []);
    const story = () => stores.explain(request.pushId);
    const steps = 'received, not locked, uploaded, prepared, judged, committed, applied'.split(
      ', ',
    );
    await comeTo([...steps, 'post-receive'], async () =>
      (await story())?.steps.map(({ step }) => step),
    );
    assert.equal((await story())?.repository, 'shown');

    const { id } = repository;
    const packs = join(local.directory, 'store', 'repos', id.slice(0, 2), id, 'git/objects/pack');
    const pack = join(packs, (await readdir(packs)).find((name) => name.endsWith('.pack')) ?? '');
    const bytes = await readFile(pack);
    bytes[40] = (bytes[40] ?? 0) ^ 1;
    await chmod(pack, 0o600);
    await writeFile(pack, bytes);
    assert.notDeepEqual((await verify())[0]?.problems, []);
    const reports = await local.coordinator.range(keys.damages, {
      rangeEnd: prefixEnd(keys.damages),
    });
    assert.deepEqual(reports.entries, [], 'nobody could heal it');
  });

  test('refusals are per ref, or for all when atomic, and leave nothing', async () => {
    const repository = await local.create('refusals');
    const one = await local.commit('refusals 1');
    const mixed = [
      { ref: 'refs/heads/main', oldOid: zeroOid, newOid: one },
      { ref: 'refs/heads/gone', oldOid: one, newOid: one },
    ];
    const atomic = await local.push(repository, mixed, { atomic: true });
    assert.deepEqual(
      atomic.refs.map((ref) => (ref.status === 'refused' ? ref.reason.split(':')[0] : 'ok')),
      ['atomic push failure', 'stale info'],
    );
    assert.equal(atomic.generation, undefined);
    assert.deepEqual(await refsOf(repository), {});
    const partial = await local.push(repository, mixed);
    assert.deepEqual(
      partial.refs.map(({ status }) => status),
      ['ok', 'refused'],
    );
    assert.deepEqual(await refsOf(repository), { 'refs/heads/main': one });
    await comeTo([], quarantines);
  });

  test('what was refused of a push, and why, is told with its life', async () => {
    const repository = await local.create('refused');
    const newOid = await local.commit('refused');
    const commands = [
      { ref: 'refs/heads/main', oldOid: zeroOid, newOid },
      { ref: 'refs/heads/gone', oldOid: newOid, newOid },
    ];
    const told = async (atomic: boolean): Promise<string | undefined> => {
      const pack = await packOf(local.source, [newOid], []);
      const request = pushRequest(commands, { pack, atomic });
      await local.backend.push(repository, request);
      const story = await local.backend.stores?.explain(request.pushId);
      return story?.steps.find(({ step }) => step === 'refused')?.detail;
    };
    // Not that the others had to go with it.
    assert.match((await told(true)) ?? '', /^stale info/);
    assert.match((await told(false)) ?? '', /^refs\/heads\/gone: stale info/);
  });

  test('a pack that lacks objects is refused and leaves nothing', async () => {
    // Without fsck rules nothing but the walk over the new objects can notice.
    const { id } = await local.create('incomplete');
    const repository = await local.backend.repositories.update(id, () => ({
      settings: { 'receive.fsckObjects': 'false' },
    }));
    const base = await local.commit('base');
    const tip = await local.commit('tip');
    const pack = await packOf(local.source, [tip], [base]);
    const result = await local.backend.push(
      repository,
      pushRequest([{ ref: 'refs/heads/main', oldOid: zeroOid, newOid: tip }], { pack }),
    );
    assert.equal(result.unpack, 'ok');
    assert.deepEqual(result.refs, [
      { ref: 'refs/heads/main', status: 'refused', reason: 'missing necessary objects' },
    ]);
    await comeTo([], quarantines);
    assert.equal((await local.backend.repositories.stats(repository.id)).packCount, 0);
  });

  test('what a push leaves out must be reachable, not just there', async () => {
    const repository = await local.create('reachable');
    const gitDir = join(
      local.directory,
      'store',
      'repos',
      repository.id.slice(0, 2),
      repository.id,
      'git',
    );
    const base = await local.commit('reachable base');
    await local.push(repository, [{ ref: 'refs/heads/main', oldOid: zeroOid, newOid: base }]);
    // A tree without its blob lies in the store, as a refused push or an interrupted prune could leave it.
    const lost = (await runGit(local.source, ['hash-object', '-w', '--stdin'], 'lost')).trim();
    const inner = (await runGit(local.source, ['mktree'], `100644 blob ${lost}\tlost\n`)).trim();
    await runGit(gitDir, ['mktree', '--missing'], `100644 blob ${lost}\tlost\n`);
    const root = (await runGit(local.source, ['mktree'], `040000 tree ${inner}\tinner\n`)).trim();
    const tip = await local.git('commit-tree', root, '-p', base, '-m', 'hangs on the lost blob');
    const pack = await packOf(local.source, [tip], [base, inner]);
    const result = await local.backend.push(
      repository,
      pushRequest([{ ref: 'refs/heads/main', oldOid: base, newOid: tip }], { pack }),
    );
    assert.deepEqual(result.refs, [
      { ref: 'refs/heads/main', status: 'refused', reason: 'missing necessary objects' },
    ]);
  });

  test('a push onto a commit that lies in the store, unreachable and incomplete, is refused', async () => {
    const repository = await local.create('stray');
    const { source } = local;
    const gitDir = join(
      local.directory,
      'store',
      'repos',
      repository.id.slice(0, 2),
      repository.id,
      'git',
    );
    const lost = await blob(source, 'lost below');
    const entry = `100644 blob ${lost}\tlost\n`;
    const inner = (await runGit(source, ['mktree'], entry)).trim();
    const root = (await runGit(source, ['mktree'], `040000 tree ${inner}\tinner\n`)).trim();
    const stray = await local.git('commit-tree', root, '-m', 'stray');
    await runGit(gitDir, ['mktree', '--missing'], entry);
    await runGit(gitDir, ['mktree'], `040000 tree ${inner}\tinner\n`);
    const content = await runGit(source, ['cat-file', 'commit', stray]);
    await runGit(gitDir, ['hash-object', '-t', 'commit', '-w', '--stdin'], content);
    const tip = await local.git('commit-tree', root, '-p', stray, '-m', 'on top');
    const result = await local.push(
      repository,
      [{ ref: 'refs/heads/main', oldOid: zeroOid, newOid: tip }],
      { have: [stray] },
    );
    assert.deepEqual(result.refs, [
      { ref: 'refs/heads/main', status: 'refused', reason: 'missing necessary objects' },
    ]);
  });

  test('bytes that are no pack are refused', async () => {
    const repository = await local.create('garbage');
    const oid = '1'.repeat(40);
    const result = await local.backend.push(
      repository,
      pushRequest([{ ref: 'refs/heads/main', oldOid: zeroOid, newOid: oid }], {
        pack: Buffer.from('PACK but not really'),
      }),
    );
    assert.notEqual(result.unpack, 'ok');
    assert.deepEqual(result.refs, [
      { ref: 'refs/heads/main', status: 'refused', reason: 'unpacker error' },
    ]);
    await comeTo([], quarantines);
  });

  test('pushes to different refs run side by side; of those to one ref, one wins', async () => {
    const repository = await local.create('parallel');
    const base = await local.commit('parallel base');
    await local.push(repository, [{ ref: 'refs/heads/main', oldOid: zeroOid, newOid: base }]);
    const tips: string[] = [];
    for (let i = 0; i < 8; i++) {
      await local.git('update-ref', 'HEAD', base);
      tips.push(await local.commit(`parallel ${i}`));
    }
    const apart = await Promise.all(
      tips.map((newOid, i) =>
        local.push(repository, [{ ref: `refs/heads/b${i}`, oldOid: zeroOid, newOid }], {
          have: [base],
        }),
      ),
    );
    assert.ok(apart.every(({ refs }) => refs[0]?.status === 'ok'));
    assert.deepEqual(
      apart.map(({ generation }) => generation).toSorted((a, b) => (a ?? 0) - (b ?? 0)),
      [2, 3, 4, 5, 6, 7, 8, 9],
    );
    const together = await Promise.all(
      tips.map((newOid) =>
        local.push(repository, [{ ref: 'refs/heads/main', oldOid: base, newOid }], {
          have: [base],
        }),
      ),
    );
    const winners = together.filter(({ refs }) => refs[0]?.status === 'ok');
    assert.equal(winners.length, 1);
    assert.deepEqual(await local.backend.locks(), []);
  });

  test('a read keeps its generation while pushes go on', async () => {
    const repository = await local.create('pinned');
    const one = await local.commit('pinned 1');
    await local.push(repository, [{ ref: 'refs/heads/main', oldOid: zeroOid, newOid: one }]);
    const read = await local.backend.read(repository, signal);
    const two = await local.commit('pinned 2');
    await local.push(repository, [{ ref: 'refs/heads/main', oldOid: one, newOid: two }], {
      have: [one],
    });
    assert.equal(read.snapshot.find('refs/heads/main')?.oid, one);
    const stream = await read.uploadPack({
      protocol: 0,
      stateless: false,
      input: Buffer.from('0000'),
      visible: allRefs,
      config: {},
      signal,
    });
    const advertised = Buffer.concat(await stream.stdout.toArray()).toString('latin1');
    assert.equal((await stream.exited).exitCode, 0);
    assert.ok(advertised.includes(one) && !advertised.includes(two));
    read.release();
  });

  test('wants by id: reachable commits of retained generations, and no others', async () => {
    const repository = await local.create('wants');
    const one = await local.commit('wants 1');
    const two = await local.commit('wants 2');
    await local.push(repository, [{ ref: 'refs/heads/main', oldOid: zeroOid, newOid: two }]);
    const never = await local.commit('wants 3');
    const tree = await local.git('rev-parse', `${one}^{tree}`);
    await local.push(repository, [{ ref: 'refs/heads/main', oldOid: two, newOid: one }]);
    const read = await local.backend.read(repository, signal);
    assert.equal(await read.firstForbiddenWant([one, tree], allRefs), undefined);
    assert.equal(await read.firstForbiddenWant([two], allRefs), undefined, 'one generation ago');
    assert.equal(await read.firstForbiddenWant([one, never], allRefs), never);
    assert.equal(
      await read.firstForbiddenWant([one], refsWithout(['refs'])),
      one,
      'hidden refs reach nothing',
    );
    read.release();
  });

  test('thousands of refs in one push, too many for the log entry', async () => {
    const repository = await local.create('many');
    const tip = await local.commit('many');
    const commands = Array.from({ length: 5000 }, (_, i) => ({
      // Names long enough for the entry to be more than a transaction of the coordinator may carry.
      ref: `refs/tags/${'v'.repeat(200)}${i}`,
      oldOid: zeroOid,
      newOid: tip,
    }));
    const result = await local.push(repository, commands);
    assert.ok(result.refs.every(({ status }) => status === 'ok'));
    assert.equal(Object.keys(await refsOf(repository)).length, 5000);
    await comeTo([], quarantines);
  });

  test('HEAD, rename, delete, and names in each other’s way', async () => {
    const repository = await local.create('team/app');
    await assert.rejects(local.create('team/app'), { code: 'already-exists' });
    await assert.rejects(local.create('team'), { code: 'already-exists' });
    await assert.rejects(local.create('team/app/sub'), { code: 'already-exists' });
    await local.backend.repositories.setHead(repository.id, 'refs/heads/trunk');
    assert.deepEqual((await local.backend.repositories.stats(repository.id)).head, {
      symref: 'refs/heads/trunk',
    });
    const renamed = await local.backend.repositories.rename(repository.id, 'other/app');
    assert.equal(renamed.name, 'other/app');
    assert.equal(await local.backend.repositories.get('team/app'), undefined);
    assert.equal((await local.backend.repositories.get('other/app'))?.id, repository.id);
    await local.backend.repositories.delete(repository.id);
    assert.equal(await local.backend.repositories.get('other/app'), undefined);
    await assert.rejects(
      local.push(repository, [{ ref: 'refs/heads/x', oldOid: zeroOid, newOid: zeroOid }]),
      {
        code: 'not-found',
      },
    );
    await local.create('other/app');
  });

  test('an import brings all refs and HEAD in one entry', async () => {
    await local.commit('imported');
    await local.git('tag', '-f', '-a', '-m', 'x', 'imported-tag');
    await local.git('branch', '-f', 'imported-branch');
    const repository = await local.create('imported');
    const steps: string[] = [];
    const { refs } = await local.backend.importFrom(repository, local.source, {
      actor: 'tester',
      signal,
      progress: ({ step }) => steps.push(step),
    });
    const expected = (await local.git('for-each-ref', '--format=%(objectname) %(refname)')).split(
      '\n',
    );
    assert.equal(refs, expected.length);
    assert.deepEqual(
      Object.entries(await refsOf(repository)).map(([name, oid]) => `${oid} ${name}`),
      expected,
    );
    assert.equal((await local.backend.repositories.stats(repository.id)).generation, 1);
    assert.ok(steps.length > 0);
    await assert.rejects(
      local.backend.importFrom(repository, local.source, {
        actor: 'tester',
        signal,
        progress: () => undefined,
      }),
      { code: 'failed-precondition' },
    );
  });

  test('maintenance merges packs and loses nothing', async () => {
    const repository = await local.create('maintained');
    let previous = zeroOid;
    for (let i = 0; i < 8; i++) {
      const tip = await local.commit(`maintained ${i}`);
      await local.push(repository, [{ ref: 'refs/heads/main', oldOid: previous, newOid: tip }], {
        have: previous === zeroOid ? [] : [previous],
      });
      previous = tip;
    }
    const report = await local.backend.maintain(repository, { signal });
    assert.ok(report.packsBefore > report.packsAfter);
    assert.deepEqual(await refsOf(repository), { 'refs/heads/main': previous });
    const next = await local.commit('after maintenance');
    const after = await local.push(
      repository,
      [{ ref: 'refs/heads/main', oldOid: previous, newOid: next }],
      { have: [previous] },
    );
    assert.equal(after.refs[0]?.status, 'ok');
  });
});

test('a sha256 repository: push, read, maintenance, restart', async () => {
  const first = await startLocal({ objectFormat: 'sha256' });
  try {
    const repository = await first.create('long');
    const zeros = '0'.repeat(64);
    const one = await first.commit('sha256 one');
    const two = await first.commit('sha256 two');
    const ref = 'refs/heads/main';
    for (const [oldOid, newOid, have] of [
      [zeros, one, []],
      [one, two, [one]],
    ] as const) {
      const pushed = await first.push(repository, [{ ref, oldOid, newOid }], { have });
      assert.equal(pushed.refs[0]?.status, 'ok');
    }
    await first.backend.maintain(repository, { signal });
    const removed = await first.push(repository, [{ ref, oldOid: two, newOid: zeros }]);
    assert.equal(removed.generation, 3);
    const again = await first.push(repository, [{ ref, oldOid: zeros, newOid: one }]);
    assert.equal(again.generation, 4);
    await first.stop();
    const second = await startLocal({ directory: first.directory, source: first.source });
    const read = await second.backend.read(repository, signal);
    assert.equal(read.snapshot.find(ref)?.oid, one);
    assert.equal(await read.firstForbiddenWant([one], allRefs), undefined);
    read.release();
    await second.stop();
  } finally {
    await first.remove();
  }
});
