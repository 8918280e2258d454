import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { silentLogger } from '../../coordination/test-environment.js';
import { keys } from '../../contract/keys.js';
import type { Clock } from '../../contract/environment.js';
import type { Repository } from '../../contract/repository.js';
import { until } from '../../contract/testing/until.js';
import {
  packOf,
  pushRequest,
  runGit,
  systemClock,
  zeroOid,
} from '../../local/testing/local-fixture.js';
import { Ring } from '../placement.js';
import { decodeRepository, encodeRepository, type RepositoryRecord } from '../records.js';
import type { ReplicatedBackend } from '../replicated-backend.js';
import type { SetController } from '../set-controller.js';
import type { StepDependencies } from '../set-steps.js';
import { openReplicaSet, type ReplicaSet, type TestStore, unhurried } from './replica-set.js';
import { keeperOf } from './set-keeper.js';

/** Three voters with one push, a store beside them, and a controller of the sets that is started by the test. */
export class ControllerScene {
  readonly set: ReplicaSet;
  readonly controller: SetController;
  /** For steps that a test takes by itself. */
  readonly stepping: StepDependencies;
  /** How often the controller may still look around; unbounded unless a test says otherwise. */
  ticks = Infinity;
  readonly #backend: ReplicatedBackend;
  readonly #first: { readonly repository: Repository; readonly tip: string };

  private constructor(
    set: ReplicaSet,
    { backend, locks, lease }: Awaited<ReturnType<ReplicaSet['frontEnd']>>,
    first: { readonly repository: Repository; readonly tip: string },
  ) {
    this.set = set;
    this.#backend = backend;
    this.#first = first;
    const clock: Clock = {
      ...systemClock,
      // How long a store may take to answer, or to fill a copy, is no look around.
      sleep: (ms, signal) => {
        const waits = ms === 10_000 || ms === 5_000;
        return systemClock.sleep(waits || this.ticks-- > 1 ? ms : 2 ** 31 - 1, signal);
      },
    };
    const around = {
      coordinator: set.coordinator,
      lease,
      replicas: set.replicas,
      locks,
      random: { bytes: (length: number) => randomBytes(length) },
      logger: silentLogger,
    };
    this.stepping = { ...around, clock, ring: () => new Ring([]), target: undefined };
    this.controller = keeperOf(
      set,
      { lease, locks },
      {
        clock,
        settings: {
          downAfterMs: 0,
          repairAfterMs: 1_500,
          readReplicas: { max: 1, ratePerCopy: 10, coolDownMs: 0 },
        },
      },
    );
  }

  static async open(): Promise<ControllerScene> {
    const set = await openReplicaSet(4);
    // A store that is left out of a push still has it in quarantine, which is put aside with a copy.
    const frontEnd = await set.frontEnd({ clock: unhurried });
    const repository = await createIn(frontEnd.backend, 'team/app');
    const tip = await set.commit('one');
    const scene = new ControllerScene(set, frontEnd, { repository, tip });
    await scene.pushTip(zeroOid);
    for (const { replica } of scene.stores(0, 1, 2)) await replica.apply(repository.id, 1);
    return scene;
  }

  get repository(): Repository {
    return this.#first.repository;
  }

  /** The first push of `refs/heads/main`. */
  get tip(): string {
    return this.#first.tip;
  }

  create(name: string): Promise<Repository> {
    return createIn(this.#backend, name);
  }

  async pushTip(oldOid: string, newOid = this.tip): Promise<void> {
    const pack = await packOf(this.set.source, [newOid], oldOid === zeroOid ? [] : [oldOid]);
    const command = { ref: 'refs/heads/main', oldOid, newOid };
    const { refs } = await this.#backend.push(this.repository, pushRequest([command], { pack }));
    assert.equal(refs[0]?.status, 'ok');
  }

  async record({ id } = this.repository): Promise<RepositoryRecord> {
    const kv = await this.set.coordinator.get(keys.repo(id));
    assert.ok(kv !== undefined);
    return decodeRepository(kv);
  }

  async change(patch: Partial<RepositoryRecord>): Promise<void> {
    const value = encodeRepository({ ...(await this.record()), ...patch });
    await this.set.coordinator.transaction({
      compares: [],
      success: [{ type: 'put', key: keys.repo(this.repository.id), value }],
      failure: [],
    });
  }

  votersAre(stores: readonly TestStore[], of?: Repository): () => Promise<boolean> {
    return async () => {
      const { voters, learners } = await this.record(of);
      const ids = stores.map(({ storeId }) => storeId).sort();
      const now = voters.map(({ storeId }) => storeId).sort();
      return learners.length === 0 && now.join() === ids.join();
    };
  }

  async assertSound(stores: readonly TestStore[]): Promise<void> {
    const { id } = this.repository;
    const head = await this.set.coordinator.get(keys.head(id));
    const { generation, digest } = JSON.parse(new TextDecoder().decode(head?.value));
    for (const store of stores) {
      // One that came late gets what was pushed a little later.
      await until(
        'it has the head',
        async () => (await store.replica.state(id))?.generation === generation,
      );
      assert.deepEqual(await store.replica.state(id), { generation, digest });
      await runGit(store.gitDir(id), ['fsck', '--full', '--strict']);
    }
  }

  stores(...indexes: number[]): TestStore[] {
    return indexes.map((index) => {
      const store = this.set.stores[index];
      assert.ok(store !== undefined);
      return store;
    });
  }

  /** Its memory still says that all is well: only a verification finds out. */
  async damagePack({ gitDir, replica }: TestStore): Promise<void> {
    const packs = join(gitDir(this.repository.id), 'objects/pack');
    const name = readdirSync(packs).find((file) => file.endsWith('.pack'));
    assert.ok(name !== undefined);
    const bytes = readFileSync(join(packs, name));
    bytes[bytes.length - 30] = (bytes.at(-30) ?? 0) ^ 0xff;
    rmSync(join(packs, name));
    writeFileSync(join(packs, name), bytes);
    const { signal } = new AbortController();
    const { problems } = await replica.verify(this.repository.id, { signal });
    assert.ok(problems.length > 0);
  }

  async close(): Promise<void> {
    await this.controller.close();
    await this.set.close();
  }
}

function createIn(backend: ReplicatedBackend, name: string): Promise<Repository> {
  return backend.repositories.create({
    name,
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
}
