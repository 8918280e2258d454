import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { type ClusterIdentity, openClusterIdentity } from './cluster-identity.js';
import { openEmbeddedCoordinator } from './embedded/embedded-coordinator.js';
import { realRandom } from './etcd/testing/etcd-fixture.js';
import { guardCoordinator } from './guarded-coordinator.js';
import { createManualClock, silentLogger } from './test-environment.js';

/** A cluster of one process, whose coordinator can be put back to an older copy. */
class ClusterScene {
  readonly clock = createManualClock();
  readonly directory: string;
  readonly #open: { close(): Promise<void> }[] = [];

  constructor(directory: string) {
    this.directory = directory;
  }

  static async make(t: TestContext): Promise<ClusterScene> {
    const scene = new ClusterScene(await mkdtemp(join(tmpdir(), 'quorate-identity-')));
    t.after(async () => {
      await scene.close();
      await rm(scene.directory, { recursive: true });
    });
    return scene;
  }

  async coordinator(name = 'coordinator'): Promise<Coordinator> {
    const directory = join(this.directory, name);
    const { clock } = this;
    const opened = await openEmbeddedCoordinator({ directory, clock, logger: silentLogger });
    this.#open.push(opened);
    return opened;
  }

  async identity(
    coordinator: Coordinator,
    name = 'cluster.json',
    owner?: string,
  ): Promise<ClusterIdentity> {
    const file = join(this.directory, name);
    const { clock } = this;
    const logger = silentLogger;
    const opened = await openClusterIdentity({
      coordinator,
      file,
      owner,
      clock,
      random: realRandom,
      logger,
    });
    this.#open.push(opened);
    return opened;
  }

  /** Ends everything, as a server that stops. */
  async close(): Promise<void> {
    for (const one of this.#open.splice(0).reverse()) await one.close();
  }

  /** Copies the store, which nobody has open. */
  async copy(from: string, to: string): Promise<void> {
    await rm(join(this.directory, to), { recursive: true, force: true });
    await cp(join(this.directory, from), join(this.directory, to), { recursive: true });
  }
}

const put = (coordinator: Coordinator, key: string) =>
  coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value: new Uint8Array() }],
    failure: [],
  });

test('every process of a cluster learns the same id, and keeps it', async (t) => {
  const scene = await ClusterScene.make(t);
  const first = await scene.coordinator();
  const [one, two] = await Promise.all([
    scene.identity(first, 'one.json'),
    scene.identity(first, 'two.json'),
  ]);
  assert.equal(one.id, two.id);
  assert.equal(one.incarnation, 1);
  assert.equal(one.frozen, undefined);
  await scene.close();
  const again = await scene.identity(await scene.coordinator(), 'one.json');
  assert.equal(again.id, one.id);
  assert.equal(again.frozen, undefined);
});

test('an older copy of the coordinator freezes commits, and reads go on', async (t) => {
  const scene = await ClusterScene.make(t);
  const before = await scene.coordinator();
  await scene.identity(before);
  await put(before, 'kept');
  await scene.close();
  await scene.copy('coordinator', 'backup');
  const later = await scene.coordinator();
  await scene.identity(later);
  await put(later, 'lost');
  const guarded = guardCoordinator(later, await scene.identity(later));
  await put(guarded, 'lost too');
  await scene.close();

  await scene.copy('backup', 'coordinator');
  const restored = await scene.coordinator();
  const identity = await scene.identity(restored);
  assert.equal(identity.frozen?.reason, 'went-back');
  assert.match(identity.frozen.message, /quorate recover/);
  const guard = guardCoordinator(restored, identity);
  await assert.rejects(put(guard, 'k'), { code: 'unavailable', message: /older copy/ });
  await assert.rejects(guard.transaction({ compares: [], success: [], failure: [] }), {
    code: 'unavailable',
  });
  assert.ok(await guard.get('kept'));
  assert.equal(await restored.get('k'), undefined);

  // Neither a restart nor time heals it; a decision does, for every process.
  await scene.close();
  const reopened = await scene.coordinator();
  const still = await scene.identity(reopened);
  assert.equal(still.frozen?.reason, 'went-back');
  await still.accept();
  await assert.rejects(put(guardCoordinator(reopened, still), 'k'), { code: 'unavailable' });
  await scene.close();
  const healed = await scene.coordinator();
  const accepted = await scene.identity(healed);
  assert.equal(accepted.frozen, undefined);
  assert.equal(accepted.incarnation, 2);
  await put(guardCoordinator(healed, accepted), 'k');
});

test('one process that notices freezes all, however little the others remember', async (t) => {
  const scene = await ClusterScene.make(t);
  const coordinator = await scene.coordinator();
  await scene.identity(coordinator, 'knows.json');
  await scene.identity(coordinator, 'hardly.json');
  await scene.close();
  await scene.copy('coordinator', 'backup');
  const later = await scene.coordinator();
  await put(later, 'lost');
  await scene.identity(later, 'knows.json');
  await scene.close();
  await scene.copy('backup', 'coordinator');
  const restored = await scene.coordinator();
  assert.equal((await scene.identity(restored, 'knows.json')).frozen?.reason, 'went-back');
  // Records of processes that are alive, say: now nobody's memory of the revision tells any more.
  for (let i = 0; i < 20; i += 1) await put(restored, 'alive');
  for (const name of ['hardly.json', 'new.json', 'knows.json']) {
    assert.equal((await scene.identity(restored, name)).frozen?.reason, 'went-back', name);
  }
  await (await scene.identity(restored, 'hardly.json')).accept();
  for (const name of ['hardly.json', 'new.json', 'knows.json']) {
    assert.equal((await scene.identity(restored, name)).frozen, undefined, name);
  }
});

test('a process that was down during the recovery takes it over', async (t) => {
  const scene = await ClusterScene.make(t);
  const coordinator = await scene.coordinator();
  await scene.identity(coordinator, 'a.json');
  await scene.identity(coordinator, 'b.json');
  await scene.close();
  await scene.copy('coordinator', 'backup');
  const later = await scene.coordinator();
  await put(later, 'lost');
  await scene.identity(later, 'a.json');
  await scene.identity(later, 'b.json');
  await scene.close();
  await scene.copy('backup', 'coordinator');
  const restored = await scene.coordinator();
  await (await scene.identity(restored, 'a.json')).accept();
  const other = await scene.identity(restored, 'b.json');
  assert.equal(other.frozen, undefined);
  assert.equal(other.incarnation, 2);
});

test('what is frozen still looks after the recovery, and tells of nothing that was decided since', async (t) => {
  const scene = await ClusterScene.make(t);
  const coordinator = await scene.coordinator();
  const names = ['decides.json', 'frozen.json'];
  for (const name of names) await scene.identity(coordinator, name);
  await scene.close();
  await scene.copy('coordinator', 'backup');
  const later = await scene.coordinator();
  await put(later, 'lost');
  for (const name of names) await scene.identity(later, name);
  await scene.close();
  await scene.copy('backup', 'coordinator');
  const restored = await scene.coordinator();
  const decides = await scene.identity(restored, 'decides.json');
  const frozen = await scene.identity(restored, 'frozen.json');
  await decides.accept();
  assert.deepEqual([decides.recoveredAs, frozen.recoveredAs], [2, undefined]);
  for (const one of [decides, frozen]) {
    await one.check();
    // Nothing is committed by it still; but what is to be done is another thing.
    assert.equal(one.frozen?.reason, 'recovered');
    assert.match(one.frozen.message, /applied since: start this process again/);
    assert.equal(one.recoveredAs, 2);
    await assert.rejects(put(guardCoordinator(restored, one), 'k'), { code: 'unavailable' });
  }
  for (const name of names) {
    assert.equal((await scene.identity(restored, name)).frozen, undefined, name);
  }
});

/** Two processes and a copy of their coordinator; then a recovery from that which only `one` knows of. */
async function recoverOnce(t: TestContext): Promise<ClusterScene> {
  const scene = await ClusterScene.make(t);
  const coordinator = await scene.coordinator();
  const names = ['one.json', 'other.json'];
  for (const name of names) await scene.identity(coordinator, name);
  await scene.close();
  await scene.copy('coordinator', 'backup');
  const later = await scene.coordinator();
  await put(later, 'lost');
  for (const name of names) await scene.identity(later, name);
  await scene.close();
  await scene.copy('backup', 'coordinator');
  const restored = await scene.coordinator();
  await (await scene.identity(restored, 'one.json')).accept();
  await scene.close();
  const recovered = await scene.coordinator();
  assert.equal((await scene.identity(recovered, 'one.json')).incarnation, 2);
  await scene.close();
  await scene.copy('backup', 'coordinator');
  return scene;
}

test('a second recovery, by who knows nothing of the first, goes on from what any process that lives has seen', async (t) => {
  const scene = await recoverOnce(t);
  const restored = await scene.coordinator();
  const other = await scene.identity(restored, 'other.json');
  await scene.identity(restored, 'one.json');
  await other.accept();
  for (const name of ['one.json', 'other.json']) {
    const { incarnation, frozen } = await scene.identity(restored, name);
    assert.deepEqual([incarnation, frozen], [3, undefined], name);
  }
});

test('two recoveries that know nothing of each other are told apart, until one more has been made', async (t) => {
  const scene = await recoverOnce(t);
  const restored = await scene.coordinator();
  await (await scene.identity(restored, 'other.json')).accept();
  assert.equal((await scene.identity(restored, 'other.json')).incarnation, 2);
  // No revision tells it any more.
  for (let i = 0; i < 20; i += 1) await put(restored, 'alive');
  const one = await scene.identity(restored, 'one.json');
  assert.equal(one.frozen?.reason, 'went-back');
  assert.match(one.frozen.message, /another recovery .* quorate recover/);
  await one.accept();
  for (const name of ['one.json', 'other.json']) {
    const { incarnation, frozen } = await scene.identity(restored, name);
    assert.deepEqual([incarnation, frozen], [3, undefined], name);
  }
});

test('what has not been started again since a recovery can recover from the next older copy', async (t) => {
  const scene = await ClusterScene.make(t);
  const coordinator = await scene.coordinator();
  const early = await scene.identity(coordinator, 'early.json');
  early.missing(1_000);
  await early.check();
  await (await scene.identity(coordinator, 'decides.json')).accept();
  await early.check();
  assert.equal(early.recoveredAs, 2);
  const later = await scene.identity(coordinator, 'later.json');
  later.missing(2_000);
  await later.check();
  await early.check();
  assert.deepEqual([early.recoveredAs, early.frozen?.reason], [undefined, 'went-back']);
  await early.accept();
  await later.check();
  assert.deepEqual([early.recoveredAs, later.recoveredAs], [3, 3]);
});

test('a recovery is taken over with what was found since', async (t) => {
  const scene = await ClusterScene.make(t);
  const coordinator = await scene.coordinator();
  const one = await scene.identity(coordinator, 'one.json');
  await scene.identity(coordinator, 'away.json');
  await one.accept();
  const again = await scene.identity(coordinator, 'one.json');
  again.observe(1, again.revision);
  await again.check();
  assert.equal((await scene.identity(coordinator, 'away.json')).frozen?.reason, 'went-back');
});

test('going back while the process runs is noticed at the next look, or answer', async (t) => {
  for (const how of ['look', 'range', 'put', 'reading', 'binding'] as const) {
    const scene = await ClusterScene.make(t);
    const real = await scene.coordinator();
    let rewoundBy = 0;
    const rewinding: Coordinator = {
      ...guardCoordinator(real, await scene.identity(real, 'unused.json')),
      identity: async () => {
        const { clusterId, revision } = await real.identity();
        return { clusterId, revision: revision - rewoundBy };
      },
      range: async (key, options) => {
        const result = await real.range(key, options);
        return { ...result, revision: result.revision - rewoundBy };
      },
      transaction: async (transaction) => {
        const result = await real.transaction(transaction);
        return { ...result, revision: result.revision - 2 * rewoundBy };
      },
    };
    const identity = await scene.identity(rewinding);
    const guarded = guardCoordinator(rewinding, identity);
    await put(guarded, 'k');
    rewoundBy = 1;
    if (how === 'range') await guarded.range('k', { linearizable: true });
    else if (how === 'look') await identity.check();
    else if (how === 'put') await put(guarded, 'k');
    else if (how === 'reading') {
      // It would be the word by which something is dropped.
      const success = [{ type: 'get', key: 'k' } as const];
      const asked = guarded.transaction({ compares: [], success, failure: [] });
      await assert.rejects(asked, { code: 'unavailable' });
    } else {
      const success = [{ type: 'put', key: 'k', value: new Uint8Array() } as const];
      const asked = guarded.transaction({ compares: [], success, failure: [], binding: true });
      await assert.rejects(asked, { code: 'outcome-unknown' });
    }
    assert.equal(identity.frozen?.reason, 'went-back');
    await assert.rejects(put(guarded, 'k'), { code: 'unavailable' });
  }
});

test('a stale read is no reason to freeze', async (t) => {
  const scene = await ClusterScene.make(t);
  const real = await scene.coordinator();
  const identity = await scene.identity(real);
  const lagging: Coordinator = {
    ...guardCoordinator(real, identity),
    range: async (key, options) => ({ ...(await real.range(key, options)), revision: 1 }),
  };
  await put(guardCoordinator(real, identity), 'k');
  await guardCoordinator(lagging, identity).range('k', { linearizable: false });
  assert.equal(identity.frozen, undefined);
});

test('the periodic look remembers what it saw, for after a kill', async (t) => {
  const scene = await ClusterScene.make(t);
  const coordinator = await scene.coordinator();
  const file = join(scene.directory, 'killed.json');
  const killed = await scene.identity(coordinator, 'killed.json');
  await put(coordinator, 'k');
  const { revision } = await coordinator.identity();
  await until('the look', () => {
    if (killed.revision >= revision) return true;
    scene.clock.advance(10_000);
    return false;
  });
  await killed.close();
  assert.equal((await scene.identity(coordinator, 'killed.json')).revision, revision);
  await writeFile(file, 'not this');
  await assert.rejects(scene.identity(coordinator, 'killed.json'), { code: 'data-corrupt' });
});

test('a look asks for each key once, however much is known of it', async (t) => {
  const scene = await ClusterScene.make(t);
  const real = await scene.coordinator();
  const asked: string[] = [];
  const counting: Coordinator = {
    ...real,
    get: (key, options) => {
      asked.push(key);
      return real.get(key, options);
    },
    identity: () => real.identity(),
    transaction: (transaction) => real.transaction(transaction),
  };
  const identity = await scene.identity(counting);
  const guarded = guardCoordinator(counting, identity);
  const head = keys.head('r');
  const push = () =>
    guarded.transaction({
      compares: [],
      success: [{ type: 'put', key: head, value: new Uint8Array() }],
      failure: [],
      binding: true,
    });
  await push();
  await identity.check();
  await push();
  await guarded.get(head);
  // There at the last look, read since, and put.
  assert.deepEqual(
    identity.witnesses.all.map(({ key }) => key),
    [head, head, head],
  );
  asked.length = 0;
  await identity.check();
  assert.deepEqual(asked.toSorted(), [keys.cluster, head].toSorted());
});

test('a disk that takes nothing is no reason not to start', async (t) => {
  const scene = await ClusterScene.make(t);
  const coordinator = await scene.coordinator();
  const identity = await scene.identity(coordinator, 'no-such-directory/cluster.json');
  assert.equal(identity.frozen, undefined);
  await identity.close();
});

test('data of another cluster stops the start, as does a coordinator that knows of none', async (t) => {
  const scene = await ClusterScene.make(t);
  const ours = await scene.coordinator('ours');
  await scene.identity(ours);
  await scene.close();
  const theirs = await scene.coordinator('theirs');
  await assert.rejects(scene.identity(theirs), {
    code: 'failed-precondition',
    message: /knows of no cluster/,
  });
  assert.equal(await theirs.get(keys.cluster), undefined, 'nothing was written there');
  await scene.identity(theirs, 'their.json');
  await assert.rejects(scene.identity(theirs), {
    code: 'failed-precondition',
    message: /choose another data directory/,
  });
});

test('a store of another cluster whose memory is lost stops the start, and nothing is written', async (t) => {
  const scene = await ClusterScene.make(t);
  const ours = await scene.coordinator('ours');
  const { id } = await scene.identity(ours, 'ours.json');
  const theirs = await scene.coordinator('theirs');
  const lost = 'lost.json';
  await assert.rejects(scene.identity(theirs, lost, id), {
    code: 'failed-precondition',
    message: /knows of no cluster/,
  });
  assert.equal(await theirs.get(keys.cluster), undefined);
  await scene.identity(theirs, 'their.json');
  await assert.rejects(scene.identity(theirs, lost, id), {
    code: 'failed-precondition',
    message: /choose another data directory/,
  });
  assert.equal((await scene.identity(ours, lost, id)).id, id, 'it is taken where it belongs');
});
