import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { LossRecovery, LossReport } from '../../contract/cluster.js';
import type { Coordinator } from '../../contract/coordinator.js';
import type { Clock } from '../../contract/environment.js';
import { keys } from '../../contract/keys.js';
import type { Repository } from '../../contract/repository.js';
import { silentLogger } from '../../coordination/test-environment.js';
import type { Locks } from '../../coordination/locks.js';
import {
  packOf,
  pushRequest,
  runGit,
  systemClock,
  zeroOid,
} from '../../local/testing/local-fixture.js';
import { peerSourceOf } from '../peers.js';
import {
  decodeHead,
  decodeRepository,
  encodeRepository,
  type RepositoryRecord,
  type Voter,
} from '../records.js';
import type { ReplicatedBackend } from '../replicated-backend.js';
import { recoverSet } from '../set-recovery.js';
import { openReplicaSet, type ReplicaSet, type TestStore, unhurried } from './replica-set.js';

/** A set that has lost copies, as the front-end whose locks they are sees it. */
export interface LostSet {
  readonly set: ReplicaSet;
  readonly locks: Locks;
  readonly repositoryId: string;
  /** Default the set's own. */
  readonly coordinator?: Coordinator;
  readonly clock?: Clock;
}

/** `recoverSet`, where nothing is accepted and no node is gone unless `recovery` says so. */
export function recoverLost(
  { set, locks, repositoryId, coordinator = set.coordinator, clock = systemClock }: LostSet,
  recovery: Partial<LossRecovery>,
): Promise<LossReport> {
  const dependencies = {
    coordinator,
    replicas: set.replicas,
    awayMs: () => 1_000,
    repairAfterMs: 60_000,
    replicationFactor: 3,
    locks,
    clock,
    random: { bytes: (length: number) => randomBytes(length) },
    logger: silentLogger,
  };
  return recoverSet(dependencies, repositoryId, {
    accept: undefined,
    gone: [],
    keepUnacknowledged: false,
    actor: 'admin',
    signal: new AbortController().signal,
    ...recovery,
  });
}

/** Three voters with one push, and a store beside them: what they lose is up to the test. */
export class LostScene {
  readonly set: ReplicaSet;
  readonly backend: ReplicatedBackend;
  readonly locks: Locks;
  readonly repository: Repository;
  /** What `refs/heads/main` is at. */
  readonly one: string;

  private constructor(
    set: ReplicaSet,
    { backend, locks }: { readonly backend: ReplicatedBackend; readonly locks: Locks },
    { repository, one }: { readonly repository: Repository; readonly one: string },
  ) {
    this.set = set;
    this.backend = backend;
    this.locks = locks;
    this.repository = repository;
    this.one = one;
  }

  static async open(): Promise<LostScene> {
    const set = await openReplicaSet(4);
    // A store that was left out of a push still has it in quarantine: that would be found here.
    const frontEnd = await set.frontEnd({ clock: unhurried });
    const repository = await frontEnd.backend.repositories.create({
      name: 'team/app',
      defaultBranch: 'main',
      objectFormat: 'sha1',
      settings: {},
      access: { public: false, grants: {} },
    });
    const scene = new LostScene(set, frontEnd, { repository, one: await set.commit('one') });
    await scene.push('refs/heads/main', zeroOid, scene.one);
    return scene;
  }

  async push(
    ref: string,
    oldOid: string,
    newOid: string,
    consistency: 'quorum' | 'eventual' = 'quorum',
  ): Promise<void> {
    const pack = await packOf(this.set.source, [newOid], oldOid === zeroOid ? [] : [oldOid]);
    const { refs } = await this.backend.push(this.repository, {
      ...pushRequest([{ ref, oldOid, newOid }], { pack }),
      pushOptions: [`consistency=${consistency}`],
    });
    assert.deepEqual(
      refs.map(({ status }) => status),
      ['ok'],
    );
  }

  store(index: number): TestStore {
    const found = this.set.stores[index];
    assert.ok(found !== undefined);
    return found;
  }

  async record(): Promise<RepositoryRecord> {
    const kv = await this.set.coordinator.get(keys.repo(this.repository.id));
    assert.ok(kv !== undefined);
    return decodeRepository(kv);
  }

  async head(): Promise<number> {
    const kv = await this.set.coordinator.get(keys.head(this.repository.id));
    assert.ok(kv !== undefined);
    return decodeHead(kv).generation;
  }

  recover(
    recovery: Partial<LossRecovery> = {},
    coordinator = this.set.coordinator,
  ): Promise<LossReport> {
    const { set, locks, repository } = this;
    return recoverLost({ set, locks, repositoryId: repository.id, coordinator }, recovery);
  }

  async everywhere(generation: number, stores: readonly TestStore[]): Promise<void> {
    for (const { replica } of stores) await replica.apply(this.repository.id, generation);
  }

  refsOf(target: TestStore): Promise<string> {
    const args = ['for-each-ref', '--format=%(refname) %(objectname)'];
    return runGit(target.gitDir(this.repository.id), args);
  }

  /** What a store that was lost never says again. */
  lose(...lost: readonly TestStore[]): void {
    for (const target of lost) target.down = true;
  }

  async change(edit: (record: RepositoryRecord) => RepositoryRecord): Promise<void> {
    const value = encodeRepository(edit(await this.record()));
    await this.set.coordinator.transaction({
      compares: [],
      success: [{ type: 'put', key: keys.repo(this.repository.id), value }],
      failure: [],
    });
  }

  /** Filled, like any that is read. */
  async addReaders(...indexes: readonly number[]): Promise<void> {
    const { set, repository } = this;
    const readers = indexes.map((index): Voter => ({
      nodeId: `node-${index}`,
      storeId: this.store(index).storeId,
      joinedEpoch: 2,
    }));
    await this.change((before) => ({ ...before, readers }));
    const { signal } = new AbortController();
    for (const { storeId } of readers) {
      const source = peerSourceOf({ ...set, clock: systemClock }, { id: repository.id, storeId });
      const replica = set.replicas.find(storeId);
      await replica?.catchUp(repository.id, { atLeast: 1, source, signal });
    }
  }

  close(): Promise<void> {
    return this.set.close();
  }
}
