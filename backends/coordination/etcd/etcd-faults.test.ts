import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, afterEach, before, describe, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Coordinator, WatchBatch } from '../../contract/coordinator.js';
import { awaited, until } from '../../contract/testing/until.js';
import { asQuorateError, QuorateError } from '../../contract/errors.js';
import { createManualClock, silentLogger } from '../test-environment.js';
import { openEtcdCoordinator } from './etcd-coordinator.js';
import { defaultAnswerMs } from './etcd-settings.js';
import { EtcdCluster } from './testing/etcd-cluster.js';
import {
  openEtcd,
  type OpenEtcd,
  patientLeaseMs,
  realRandom,
  settingsFor,
} from './testing/etcd-fixture.js';
import { measureWriteGap } from './testing/write-gap.js';

const put = (coordinator: Coordinator, key: string, value: string | Uint8Array) =>
  coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value: Buffer.from(value) }],
    failure: [],
  });

describe('etcd with three members, some of them dead', { timeout: 900_000 }, () => {
  let etcd: OpenEtcd;
  let cluster: EtcdCluster;
  let coordinator: Coordinator;
  /** For what has to succeed: elections on a machine that has a lot else to do fit in. Waiting in vain stays short. */
  let patient: Coordinator;
  before(async () => {
    etcd = await openEtcd({ members: 3, patienceMs: 5_000, answerMs: defaultAnswerMs });
    ({ cluster, coordinator } = etcd);
    const settings = { ...settingsFor(cluster), patienceMs: 60_000 };
    patient = await openEtcdCoordinator({ settings, random: realRandom, logger: silentLogger });
  });
  afterEach(async () => {
    for (const member of cluster.members) {
      member.resume();
      if (!member.running) member.start();
    }
    await cluster.ready();
  });
  after(async () => {
    await patient.close();
    await etcd.close();
  });

  /** Put, whatever becomes of answers. */
  const written = (key: string, value: string): Promise<void> =>
    until('it is written', () =>
      put(patient, key, value).then(
        () => true,
        () => false,
      ),
    );

  test('reads and leases outlive the leader, and writes fail only with an unknown outcome', async () => {
    // An election takes a second or two, on a busy machine some more, and the lease has to be renewed after it.
    const lease = await patient.grantLease(60_000);
    const { errors, elections } = await measureWriteGap(cluster, patient);
    const { 'outcome-unknown': lost = 0, ...others } = errors;
    assert.deepEqual(others, {});
    assert.ok(lost < 20 * (1 + elections), `${lost} answers were lost, in ${elections} elections`);
    assert.equal(lease.lost.aborted, false);
    await lease.revoke();
  });

  test('a watch tells every revision once while members die in turn', async () => {
    const leaving = new AbortController();
    const batches: WatchBatch[] = [];
    const watching = (async () => {
      for await (const batch of coordinator.watch('watched', { signal: leaving.signal })) {
        batches.push(batch);
      }
    })();
    const revisions: number[] = [];
    const write = async (value: string): Promise<void> => {
      // Counted by what is there, not by what was answered.
      const error = await put(patient, 'watched', value).catch((reason: unknown) => reason);
      if (error instanceof Error) return write(value);
      const entry = await patient.get('watched');
      revisions.push(entry?.modRevision ?? 0);
    };
    for (const member of cluster.members) {
      await write(`before ${member.name} dies`);
      await member.kill();
      await write(`without ${member.name}`);
      member.start();
      await cluster.ready();
    }
    await write('last');
    // What is written a second time, since its first answer was lost, has a later revision.
    await until('the last', () => batches.at(-1)?.revision === revisions.at(-1));
    leaving.abort();
    await watching;
    const seen = batches.map(({ revision }) => revision);
    assert.deepEqual(
      seen,
      [...new Set(seen)].sort((a, b) => a - b),
    );
    assert.deepEqual(
      revisions.filter((revision) => !seen.includes(revision)),
      [],
    );
    assert.equal(batches.at(-1)?.events.length, 1);
  });

  test('a member that hangs loses answers, and the others serve', async () => {
    await written('k', '1');
    // Whichever this process talks to is among those that hang in turn.
    for (const member of cluster.members) {
      await member.pause();
      const outcome = await put(patient, 'k', '2').catch((error: unknown) => error);
      if (outcome instanceof Error) {
        assert.ok('code' in outcome && outcome.code === 'outcome-unknown', outcome.message);
      }
      assert.ok(await patient.get('k'));
      member.resume();
      await cluster.ready();
    }
  });

  test('without a quorum nothing is written, and the error says so', async () => {
    await written('k', 'before');
    const [first, second] = cluster.members;
    await first?.kill();
    await second?.kill();
    await assert.rejects(coordinator.get('k'), { code: 'unavailable' });
    await assert.rejects(coordinator.ping(), { code: 'unavailable' });
    // The member that is left takes nothing once it knows that it leads nobody and follows nobody. Until then it
    // takes what it will never acknowledge.
    const code = async (): Promise<unknown> => {
      const error: unknown = await put(coordinator, 'other', '').catch((reason: unknown) => reason);
      assert.ok(error instanceof QuorateError);
      return error.code;
    };
    await until('it to step down', async () => (await code()) === 'unavailable');
    // What need not be the latest is still answered.
    const stale = await patient.get('k', { linearizable: false });
    assert.equal(Buffer.from(stale?.value ?? []).toString(), 'before');
  });

  test('with all members dead nothing was sent', async () => {
    await Promise.all(cluster.members.map((member) => member.kill()));
    // By then it knows of each of its connections that it is lost: what is sent over one may have been done.
    await assert.rejects(coordinator.get('k'), { code: 'unavailable' });
    await assert.rejects(put(coordinator, 'k', 'never'), { code: 'unavailable' });
    for (const member of cluster.members) member.start();
    await cluster.ready();
    const entry = await coordinator.get('k');
    assert.notEqual(Buffer.from(entry?.value ?? []).toString(), 'never');
  });

  test('a lease that etcd does not confirm is lost in time', async () => {
    const lease = await coordinator.grantLease(2_000);
    const lost = lease.lost.aborted ? undefined : once(lease.lost, 'abort');
    // Neither a lease nor a dead connection keeps a process alive.
    const alive = setInterval(() => undefined, 1_000);
    await Promise.all(cluster.members.map((member) => member.kill()));
    await lost;
    clearInterval(alive);
  });
});

// etcd 3.4 forgets such a watcher at times: then it takes a minute longer.
test('a watch that nobody reads holds up nothing else, and ends in the compaction error', async () => {
  const { cluster, coordinator, close } = await openEtcd();
  const leaving = new AbortController();
  try {
    await put(coordinator, 'big', 'begun');
    const { revision } = await coordinator.range('big');
    const batches = coordinator.watch('big', { fromRevision: revision, signal: leaving.signal });
    const watch = batches[Symbol.asyncIterator]();
    assert.equal((await watch.next()).done, false);
    // 64 MB: far more than connections hold. And more revisions than etcd holds for one watch (1,024).
    const megabyte = new Uint8Array(1_000_000);
    for (let i = 0; i < 64; i += 1) await put(coordinator, 'big', megabyte);
    assert.equal((await coordinator.get('big'))?.value.length, megabyte.length);
    // Buffers are freed by a thread of their own, some time after they were collected.
    await until(
      'what nobody reads to be in etcd, not here',
      async () => (await heldBytes()) < 40_000_000,
    );
    const count = 2_000;
    for (let i = 0; i < count / 100; i += 1) {
      await Promise.all(Array.from({ length: 100 }, () => put(coordinator, 'big', 'small')));
    }
    await cluster.compact();
    let expected = revision;
    for (;;) {
      const next = await watch.next().catch(asQuorateError);
      if (next instanceof QuorateError) {
        assert.equal(next.code, 'failed-precondition');
        return;
      }
      expected += 1;
      assert.ok(expected < revision + 64 + count, 'what is gone cannot come');
      assert.equal(next.value?.revision, expected);
    }
  } finally {
    leaving.abort();
    await close();
  }
});

test('who stops waits once for an etcd that says nothing, for all that is asked, and not at all for one that answers', async () => {
  const cluster = await EtcdCluster.start();
  const clock = createManualClock();
  const stopping = new AbortController();
  const pass = async (ms: number): Promise<void> => {
    for (let leftMs = ms; leftMs > 0; leftMs -= 100) {
      clock.advance(100);
      await setImmediate();
    }
  };
  // Whoever waited for it would wait for longer than a test may take.
  const settings = { ...settingsFor(cluster), patienceMs: 3_600_000 };
  const coordinator = await openEtcdCoordinator({
    settings,
    stopping: { signal: stopping.signal, clock },
    random: realRandom,
    logger: silentLogger,
  });
  try {
    await put(coordinator, 'k', '1');
    const before = await coordinator.grantLease(patientLeaseMs);
    await pass(10_000);
    stopping.abort();
    // Nobody asks for anything, and then each is answered.
    await pass(10_000);
    for (let i = 0; i < 20; i += 1) {
      const asking = coordinator.get('k');
      await pass(1_000);
      assert.equal((await awaited('an answer', asking))?.key, 'k');
    }
    await awaited('a lease', coordinator.grantLease(patientLeaseMs));
    await pass(100);
    await cluster.member(0).pause();
    let ended = 0;
    const asked = [
      ...Array.from({ length: 10 }, () => coordinator.get('k')),
      coordinator.grantLease(patientLeaseMs),
      before.revoke(),
    ].map((one) => one.finally(() => (ended += 1)));
    const all = Promise.allSettled(asked);
    await pass(1_400);
    assert.equal(ended, 0);
    await pass(100);
    for (const result of await awaited('all to be refused', all)) {
      assert.equal(result.status, 'rejected');
      assert.equal(asQuorateError(result.reason).code, 'unavailable');
    }
    const refused = { code: 'unavailable' };
    await assert.rejects(awaited('a refusal', coordinator.get('k')), refused);
    await assert.rejects(awaited('a refusal', put(coordinator, 'k', '2')), refused);
  } finally {
    cluster.member(0).resume();
    await coordinator.close();
    await cluster.stop();
  }
});

test('members of two clusters are refused', async () => {
  const one = await EtcdCluster.start();
  const two = await EtcdCluster.start();
  try {
    const settings = { endpoints: [...one.endpoints, ...two.endpoints], prefix: 'quorate/' };
    const opening = openEtcdCoordinator({ settings, random: realRandom, logger: silentLogger });
    await assert.rejects(opening, { code: 'failed-precondition', message: /one cluster/ });
  } finally {
    await one.stop();
    await two.stop();
  }
});

/** Bytes of buffers that something still refers to, and of some that are to be freed. */
async function heldBytes(): Promise<number> {
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  assert.ok(typeof collect === 'function');
  collect();
  await setImmediate();
  return process.memoryUsage().arrayBuffers;
}
