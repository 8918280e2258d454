import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { allRefs } from '../contract/visible-refs.js';
import {
  type FixtureOptions,
  type LocalFixture,
  packOf,
  judging,
  pushRequest,
  startLocal,
  zeroOid,
} from '../local/testing/local-fixture.js';
import { encodeRecord } from './records.js';
import { intercepting, isCommit } from './testing/fault-coordinator.js';
import { until } from '../contract/testing/until.js';

const signal = new AbortController().signal;
const main = 'refs/heads/main';

let fixtures: LocalFixture[] = [];
afterEach(async () => {
  for (const fixture of fixtures.toReversed()) await fixture.remove();
  fixtures = [];
});

async function start(options: FixtureOptions = {}): Promise<LocalFixture> {
  const fixture = await startLocal(options);
  if (options.directory === undefined) fixtures.push(fixture);
  return fixture;
}

async function pushMain(local: LocalFixture, repository: Repository): Promise<string> {
  const newOid = await local.commit(`for ${repository.name}`);
  const { refs } = await local.push(repository, [{ ref: main, oldOid: zeroOid, newOid }]);
  assert.equal(refs[0]?.status, 'ok');
  return newOid;
}

function filesOf({ directory }: LocalFixture, { id }: Repository): string {
  return join(directory, 'store', 'repos', id.slice(0, 2), id);
}

test('a read of a caller that is gone is cancelled', async () => {
  const local = await start();
  const repository = await local.create('gone');
  await assert.rejects(local.backend.read(repository, AbortSignal.abort()), { code: 'cancelled' });
});

test('a push whose client leaves before the commit is cancelled and leaves nothing', async () => {
  const leaving = new AbortController();
  const local = await start({
    pipeline: judging({
      update: async () => {
        leaving.abort();
        return new Map();
      },
    }),
  });
  const repository = await local.create('left');
  const newOid = await local.commit('left');
  const pack = await packOf(local.source, [newOid], []);
  const commands = [{ ref: main, oldOid: zeroOid, newOid }];
  await assert.rejects(
    local.backend.push(repository, pushRequest(commands, { pack, signal: leaving.signal })),
    { code: 'cancelled' },
  );
  assert.equal((await local.backend.status()).quarantines, 0);
  assert.deepEqual(readdirSync(join(local.directory, 'store', 'quarantine')), []);
  assert.deepEqual(await local.backend.locks(), []);
});

test('a change of HEAD that fails leaves nothing', async () => {
  let failing = false;
  const local = await start({
    wrap: (coordinator) =>
      intercepting(coordinator, (transaction) =>
        failing && isCommit(transaction)
          ? () => Promise.reject(new QuorateError('unavailable', 'away'))
          : undefined,
      ),
  });
  const { id } = await local.create('head');
  failing = true;
  await assert.rejects(local.backend.repositories.setHead(id, 'refs/heads/other'), {
    code: 'unavailable',
  });
  failing = false;
  assert.equal((await local.backend.status()).quarantines, 0);
  assert.deepEqual(await local.backend.locks(), []);
  for (const branch of ['refs/heads/a..b', 'refs/heads/x.lock', 'refs/tags/v1', 'main']) {
    await assert.rejects(local.backend.repositories.setHead(id, branch), {
      code: 'invalid-argument',
    });
  }
  await local.backend.repositories.setHead(id, 'refs/heads/other');
  assert.deepEqual((await local.backend.repositories.stats(id)).head, {
    symref: 'refs/heads/other',
  });
});

test('a read that runs outlives the deletion of its repository; the name is free at once', async () => {
  const local = await start();
  const repository = await local.create('doomed');
  const tip = await pushMain(local, repository);
  const read = await local.backend.read(repository, signal);
  await local.backend.repositories.delete(repository.id);
  // Its files go in the background; until then a request that had found it may be answered.
  await until('it is gone', () =>
    local.backend.read(repository, signal).then(
      (still) => (still.release(), false),
      (error: unknown) => {
        assert.equal(asQuorateError(error).code, 'not-found');
        return true;
      },
    ),
  );
  await assert.rejects(
    local.push(repository, [{ ref: 'refs/heads/x', oldOid: zeroOid, newOid: tip }]),
    { code: 'not-found' },
  );
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
  assert.ok(advertised.includes(tip));
  await local.create('doomed');
  assert.ok(existsSync(filesOf(local, repository)));
  read.release();
  await local.stop();
  assert.ok(!existsSync(filesOf(local, repository)));
});

test('a push whose repository is deleted while it is judged fails and leaves nothing', async () => {
  let fixture: LocalFixture | undefined;
  const local = await start({
    pipeline: judging({
      update: async ({ repository: { id } }) => {
        await fixture?.backend.repositories.delete(id);
        return new Map();
      },
    }),
  });
  fixture = local;
  const repository = await local.create('pulled');
  const newOid = await local.commit('pulled');
  await assert.rejects(local.push(repository, [{ ref: main, oldOid: zeroOid, newOid }]), {
    code: 'not-found',
  });
  assert.equal((await local.backend.status()).quarantines, 0);
  assert.deepEqual(readdirSync(join(local.directory, 'store', 'quarantine')), []);
  assert.deepEqual(await local.backend.locks(), []);
});

test('a committed push that cannot be applied is acknowledged, and applied as soon as it can be', async () => {
  let packs = '';
  const local = await start({
    pipeline: judging({
      update: async () => {
        await rename(packs, `${packs}.aside`);
        await writeFile(packs, '');
        return new Map();
      },
    }),
  });
  const repository = await local.create('full');
  packs = join(filesOf(local, repository), 'git', 'objects', 'pack');
  const tip = await pushMain(local, repository);
  await assert.rejects(local.backend.read(repository, signal), { code: 'storage-failure' });
  await rm(packs);
  await rename(`${packs}.aside`, packs);
  const log = { rangeEnd: prefixEnd(keys.allLogs) };
  // Nobody reads: the outbox finishes it.
  await until('the log is empty', async () => {
    const { entries } = await local.coordinator.range(keys.allLogs, log);
    return entries.length === 0;
  });
  const read = await local.backend.read(repository, signal);
  assert.equal(read.snapshot.find(main)?.oid, tip);
  read.release();
  await until('its quarantine is gone', async () => {
    return (await local.backend.status()).quarantines === 0;
  });
});

test('that nobody is to be told is known of the push that was judged so, and not of a later try', async () => {
  const told: (boolean | undefined)[] = [];
  let nobodyToTell = true;
  const local = await start({
    pipeline: {
      ...judging({ nobodyToTell: async () => nobodyToTell }),
      postReceive: async (push) => {
        told.push(push.nobodyToTell);
        if (told.length === 1) throw new QuorateError('unavailable', 'not now');
      },
    },
  });
  await pushMain(local, await local.create('quiet'));
  await until('it is tried again', async () => told.length === 2);
  assert.deepEqual(told, [true, false]);
  nobodyToTell = false;
  await pushMain(local, await local.create('heard'));
  await until('it is told', async () => told.length === 3);
  assert.deepEqual(told, [true, false, false]);
});

test('a repository may move below its own name, and back; others are still in the way', async () => {
  const local = await start();
  const { repositories } = local.backend;
  const { id } = await local.create('app');
  await assert.rejects(repositories.rename(id, 'app'), { code: 'already-exists' });
  assert.equal((await repositories.rename(id, 'app/web')).name, 'app/web');
  assert.equal((await repositories.get('app/web'))?.id, id);
  assert.equal(await repositories.get('app'), undefined);
  const other = await local.create('app/api');
  await assert.rejects(repositories.rename(id, 'app'), { code: 'already-exists' });
  await repositories.delete(other.id);
  assert.equal((await repositories.rename(id, 'app')).name, 'app');
  await assert.rejects(local.create('app/web'), { code: 'already-exists' });
});

test('a name that is taken while a rename is on its way is refused, also above and below', async () => {
  let rival: (() => Promise<unknown>) | undefined;
  const local = await start({
    wrap: (coordinator) =>
      intercepting(coordinator, ({ success }) => {
        const renames = success.some(({ type, key }) => type === 'delete' && key === 'names/old');
        if (!renames || rival === undefined) return undefined;
        const first = rival;
        rival = undefined;
        return async (run) => {
          await first();
          return run();
        };
      }),
  });
  const { id } = await local.create('old');
  for (const [taken, wanted] of [
    ['a', 'a'],
    ['b', 'b/c'],
    ['d/e', 'd'],
  ] as const) {
    rival = () => local.create(taken);
    await assert.rejects(local.backend.repositories.rename(id, wanted), { code: 'already-exists' });
  }
});

test('a damaged record and a repository of another disk do not stop the start', async () => {
  const local = await start();
  const repository = await local.create('sound');
  const tip = await pushMain(local, repository);
  const kv = await local.coordinator.get(keys.repo(repository.id));
  const stored: unknown = JSON.parse(new TextDecoder().decode(kv?.value));
  assert.ok(typeof stored === 'object' && stored !== null);
  const voters = [{ nodeId: 'n', storeId: 'f'.repeat(32), joinedEpoch: 1 }];
  await local.coordinator.transaction({
    compares: [],
    success: [
      { type: 'put', key: keys.repo('0'.repeat(32)), value: encodeRecord({ broken: true }) },
      {
        type: 'put',
        key: keys.repo('1'.repeat(32)),
        value: encodeRecord({ ...stored, state: 'deleted', voters }),
      },
    ],
    failure: [],
  });
  await local.stop();
  const again = await start({ directory: local.directory, source: local.source });
  const read = await again.backend.read(repository, signal);
  assert.equal(read.snapshot.find(main)?.oid, tip);
  read.release();
  assert.ok((await again.coordinator.get(keys.repo('1'.repeat(32)))) !== undefined);
  await again.stop();
});

test('a half-made repository is buried by the next start', async () => {
  let crash: boolean | undefined;
  const local = await start({
    wrap: (coordinator) =>
      intercepting(coordinator, ({ success }) => {
        crash ??= success.some(({ type, key }) => type === 'put' && key.startsWith(keys.names))
          ? true
          : undefined;
        // From then on this process decides nothing any more.
        return crash === true
          ? () => Promise.reject(new QuorateError('outcome-unknown', 'crash'))
          : undefined;
      }),
  });
  await assert.rejects(local.create('half'), { code: 'outcome-unknown' });
  crash = false;
  const records = await local.coordinator.range(keys.repos, { rangeEnd: 'repos0' });
  assert.equal(records.entries.length, 1);
  await local.stop();
  const again = await start({ directory: local.directory, source: local.source });
  const after = await again.coordinator.range(keys.repos, { rangeEnd: 'repos0' });
  assert.deepEqual(after.entries, []);
  await again.create('half');
  await again.stop();
});

test('closing twice is closing once, and nothing is served after it', async () => {
  const local = await start();
  const repository = await local.create('closing');
  await Promise.all([local.backend.close(1000), local.backend.close(0)]);
  await assert.rejects(local.backend.read(repository, signal), { code: 'unavailable' });
  await assert.rejects(local.backend.repositories.setHead(repository.id, 'refs/heads/x'), {
    code: 'unavailable',
  });
});

test('an old copy of the coordinator is noticed: the repository is frozen, the others serve', async () => {
  const local = await start();
  const [ahead, other] = [await local.create('ahead'), await local.create('other')];
  const old = await local.coordinator.get(keys.head(ahead.id));
  assert.ok(old !== undefined);
  await pushMain(local, ahead);
  await local.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.head(ahead.id), value: old.value }],
    failure: [],
  });
  const tip = await local.commit('late');
  const push = local.push(ahead, [{ ref: 'refs/heads/late', oldOid: zeroOid, newOid: tip }]);
  await assert.rejects(push, { code: 'data-corrupt' });
  await assert.rejects(local.backend.read(ahead, signal), { code: 'data-corrupt' });
  assert.equal((await local.backend.status()).quarantines, 0);
  await pushMain(local, other);
});
