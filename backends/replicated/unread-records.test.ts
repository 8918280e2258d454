/** A record that cannot be read is one repository's trouble. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, test } from 'node:test';
import { keys } from '../contract/keys.js';
import type { Repository } from '../contract/repository.js';
import { until } from '../contract/testing/until.js';
import { silentLogger } from '../coordination/test-environment.js';
import { systemClock } from '../local/testing/local-fixture.js';
import { markNode } from './node-marks.js';
import { decodeRepository } from './records.js';
import { Scrub } from './scrub.js';
import { SetController } from './set-controller.js';
import { openReplicaSet, type ReplicaSet, unhurried } from './testing/replica-set.js';
import { keeperOf } from './testing/set-keeper.js';

let set: ReplicaSet;
let controller: SetController;
let repository: Repository;
const random = { bytes: (length: number) => randomBytes(length) };

beforeEach(async () => {
  set = await openReplicaSet(4);
  const { backend, locks, lease } = await set.frontEnd({ clock: unhurried });
  repository = await backend.repositories.create({
    name: 'team/app',
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  });
  // Before all others.
  const key = keys.repo('0'.repeat(32));
  const value = Buffer.from(JSON.stringify({ name: 'team/later', state: 'archived' }));
  await set.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value }],
    failure: [],
  });
  controller = keeperOf(
    set,
    { lease, locks },
    { settings: { downAfterMs: 0, repairAfterMs: 1_500, compareEveryMs: 500 } },
  );
});
afterEach(async () => {
  await controller.close();
  await set.close();
});

test('a record that cannot be read keeps no other repository from being moved off a node', async () => {
  controller.start();
  await markNode(set.coordinator, 'node-0', 'draining');
  await until('it is drained', async () => {
    const kv = await set.coordinator.get(keys.repo(repository.id));
    assert.ok(kv !== undefined);
    const { voters, learners } = decodeRepository(kv);
    return learners.length === 0 && voters.every(({ nodeId }) => nodeId !== 'node-0');
  });
});

test('nor from being compared with its other copies', async () => {
  const [store] = set.stores;
  assert.ok(store !== undefined);
  await store.replica.destroy(repository.id);
  controller.start();
  const made = async (): Promise<boolean> =>
    (await store.replica.state(repository.id)) !== undefined;
  await until('its copy is made again', made);
});

test('nor from being read by the scrub', async () => {
  const [store] = set.stores;
  assert.ok(store !== undefined);
  const verified: string[] = [];
  const scrub = new Scrub({
    coordinator: set.coordinator,
    clock: systemClock,
    random,
    logger: silentLogger,
    intervalMs: 1,
    replica: {
      storeId: store.storeId,
      verify: (id) => {
        verified.push(id);
        return Promise.resolve({ generation: 0, digest: '', problems: [] });
      },
    },
  });
  scrub.start();
  await until('it is read', () => verified.includes(repository.id));
  await scrub.close();
});
