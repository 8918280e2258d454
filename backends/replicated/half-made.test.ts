import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import type { Transaction } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { NewRepository } from '../contract/repository.js';
import { until } from '../contract/testing/until.js';
import { intercepting, type Step } from './testing/fault-coordinator.js';
import { openReplicaSet, type ReplicaSet } from './testing/replica-set.js';
import { inRounds } from './testing/rounds.js';
import type { ReplicatedBackend } from './replicated-backend.js';

let set: ReplicaSet;
let backend: ReplicatedBackend;
let round: () => Promise<void>;
/** What becomes of transactions now. */
let step: (transaction: Transaction) => Step | undefined;

beforeEach(async () => {
  step = () => undefined;
  set = await openReplicaSet(3);
  const rounds = inRounds();
  ({ round } = rounds);
  ({ backend } = await set.frontEnd({
    clock: rounds.clock,
    wrap: (coordinator) => intercepting(coordinator, (one) => step(one)),
  }));
});
afterEach(() => set.close());

const described: NewRepository = {
  name: 'team/app',
  defaultBranch: 'main',
  objectFormat: 'sha1',
  settings: {},
  access: { public: false, grants: {} },
};

const puts =
  (prefix: string) =>
  ({ success }: Transaction): boolean =>
    success.some(({ type, key }) => type === 'put' && key.startsWith(prefix));

/** Its answer is lost, and it happens or not. */
const lost =
  (happens: boolean): Step =>
  async (run) => {
    if (happens) await run();
    throw new QuorateError('outcome-unknown', 'the answer is lost');
  };

async function records(): Promise<number> {
  const { entries } = await set.coordinator.range(keys.repos, { rangeEnd: prefixEnd(keys.repos) });
  return entries.length;
}

/** The front-end that began it lives on, and nobody else looks after it. */
async function settledInRounds(): Promise<void> {
  for (let rounds = 0; rounds < 4 && (await records()) > 0; rounds++) await round();
  // No round waits for what takes long.
  await until('it is settled', async () => (await records()) === 0);
}

test('a repository of whose making only the answer is lost is made', async () => {
  step = (one) => (puts(keys.names)(one) ? lost(true) : undefined);
  const { id } = await backend.repositories.create(described);
  assert.equal((await backend.repositories.get('team/app'))?.id, id);
  assert.equal(await records(), 1);
});

test('a repository whose making did not come to its end is not made, and leaves nothing', async () => {
  step = (one) => (puts(keys.names)(one) ? lost(false) : undefined);
  const refused = { code: 'unavailable', message: /was not made/ };
  await assert.rejects(backend.repositories.create(described), refused);
  assert.equal(await records(), 0);
  step = () => undefined;
  await backend.repositories.create(described);
});

test('what cannot be settled at once is settled by the process that began it, while it lives', async () => {
  let broken = false;
  step = (one) => {
    broken ||= puts(keys.names)(one);
    return broken && puts(keys.repos)(one) ? lost(false) : undefined;
  };
  await assert.rejects(backend.repositories.create(described), { code: 'outcome-unknown' });
  assert.equal(await records(), 1);
  step = () => undefined;
  await settledInRounds();
  await backend.repositories.create(described);
});

test('so is a record of which nobody knew whether it was put', async () => {
  step = (one) => (puts(keys.repos)(one) ? lost(true) : undefined);
  await assert.rejects(backend.repositories.create(described), { code: 'outcome-unknown' });
  step = () => undefined;
  assert.equal(await records(), 1);
  await settledInRounds();
});

test('a record that was put twice, since its first answer was lost, is made by nobody, and removed', async () => {
  step = (one) => {
    if (!puts(keys.repos)(one) || puts(keys.names)(one)) return undefined;
    step = () => undefined;
    return async (run) => {
      await run();
      return run();
    };
  };
  await assert.rejects(backend.repositories.create(described));
  await settledInRounds();
  await backend.repositories.create(described);
});

test('what is being made by this process stays through its sweeps', async () => {
  let swept = false;
  step = (one) => {
    if (!puts(keys.names)(one)) return undefined;
    return async (run) => {
      for (let rounds = 0; rounds < 3; rounds++) await round();
      swept = true;
      return run();
    };
  };
  await backend.repositories.create(described);
  assert.ok(swept);
  assert.equal(await records(), 1);
});
