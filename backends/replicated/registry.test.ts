import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import type { Transaction } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { NewRepository } from '../contract/repository.js';
import type { ReplicatedBackend } from './replicated-backend.js';
import { intercepting } from './testing/fault-coordinator.js';
import { openReplicaSet, type ReplicaSet } from './testing/replica-set.js';

let set: ReplicaSet;
let backend: ReplicatedBackend;
/** What others do between the two reads of a list: that of the names, and that of the records. */
let meanwhile: (() => Promise<unknown>) | undefined;

const readsRecords = ({ success }: Transaction): boolean =>
  success.length > 0 &&
  success.every(({ type, key }) => type === 'get' && key.startsWith(keys.repos));

beforeEach(async () => {
  meanwhile = undefined;
  set = await openReplicaSet(1);
  ({ backend } = await set.frontEnd({
    replicationFactor: 1,
    wrap: (coordinator) =>
      intercepting(coordinator, (one) => {
        if (meanwhile === undefined || !readsRecords(one)) return undefined;
        const happens = meanwhile;
        meanwhile = undefined;
        return async (run) => {
          await happens();
          return run();
        };
      }),
  }));
});
afterEach(() => set.close());

function described(name: string): NewRepository {
  return {
    name,
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
  };
}

async function listed(page: { readonly after?: string; readonly limit: number }) {
  return (await backend.repositories.list(page)).map(({ name }) => name);
}

test('a page is short only where the list ends, whatever is deleted while it is made', async () => {
  const { repositories } = backend;
  const made = [];
  for (const name of ['a', 'b', 'c', 'd']) made.push(await repositories.create(described(name)));
  const [a, b] = made.map(({ id }) => id);
  meanwhile = () => repositories.delete(String(a));
  assert.deepEqual(await listed({ limit: 2 }), ['b', 'c']);
  meanwhile = () => repositories.delete(String(b));
  assert.deepEqual(await listed({ limit: 1 }), ['c']);
});

test('what is renamed while a page is made is not in it by another name: pages go by names', async () => {
  const { repositories } = backend;
  const made = [];
  for (const name of ['a', 'b', 'c', 'd']) made.push(await repositories.create(described(name)));
  const [, b] = made.map(({ id }) => id);
  meanwhile = () => repositories.rename(String(b), 'z');
  assert.deepEqual(await listed({ limit: 2 }), ['a', 'c']);
  assert.deepEqual(await listed({ limit: 2, after: 'c' }), ['d', 'z']);
});
