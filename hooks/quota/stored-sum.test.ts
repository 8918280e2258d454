/** The sum of what an owner's repositories store is kept with the claims, so that a push does not read all of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';
import { claimsSchema, decode, encode, usageSchema } from './quota.js';
import { Ground, repository } from './quota-ground.fixture.js';

/** The sum that is kept, and what it is to be. */
function sumsOf({ memory }: Ground, owner: string): { kept: number | undefined; real: number } {
  const record = memory.entries.get(keys.quotaClaims(owner));
  const usages = [...memory.entries.values()].filter(({ key }) =>
    key.startsWith(keys.quotaUsages(owner)),
  );
  return {
    kept: record === undefined ? undefined : decode(claimsSchema, record).storedBytes,
    real: usages.reduce((sum, entry) => sum + decode(usageSchema, entry).bytes, 0),
  };
}

test("a push under its owner's quota does not read what each of its repositories stores", async () => {
  const ground = new Ground();
  for (let n = 0; n < 300; n += 1) ground.sizes.set(`team/app${n}`, 1);
  await ground.quotas.set({ owner: 'team' }, 900);
  assert.equal(await ground.judge('team/app1', 5, 'first'), undefined);
  ground.readAll = 0;
  for (const push of ['a', 'b', 'c']) {
    assert.equal(await ground.judge('team/app1', 5, push), undefined);
    await ground.settle('team/app1', push, 10);
  }
  assert.equal(ground.readAll, 0);
  assert.deepEqual(sumsOf(ground, 'team'), { kept: 309, real: 309 });
  assert.match(String(await ground.judge('team/app2', 600)), /owner team has 314 bytes/);
});

test('a sum that is wrong, whatever made it so, is put right by the next count', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 10).set('team/lib', 20);
  await ground.quotas.set({ owner: 'team' }, 500);
  assert.equal(await ground.judge('team/app', 5, 'a'), undefined);
  const key = keys.quotaClaims('team');
  const stored = ground.memory.entries.get(key);
  assert.ok(stored !== undefined);
  ground.memory.put(key, encode({ ...decode(claimsSchema, stored), storedBytes: 480 }));
  ground.nowMs += 6_000;
  assert.equal(await ground.judge('team/app', 300, 'b'), undefined, 'counted before it is refused');
  assert.deepEqual(sumsOf(ground, 'team'), { kept: 30, real: 30 });
});

test('what a later version keeps with the claims stops no push, and goes when the claims are changed here', async () => {
  const ground = new Ground();
  ground.sizes.set('team/app', 10);
  await ground.quotas.set({ owner: 'team' }, 500);
  assert.equal(await ground.judge('team/app', 5, 'a'), undefined);
  const key = keys.quotaClaims('team');
  const stored = ground.memory.entries.get(key);
  assert.ok(stored !== undefined);
  const text = JSON.parse(Buffer.from(stored.value).toString('utf8'));
  ground.memory.put(key, encode({ ...text, laterSum: 1 }));
  assert.equal(await ground.judge('team/app', 5, 'b'), undefined);
  const now = Buffer.from(ground.memory.entries.get(key)?.value ?? []).toString('utf8');
  assert.doesNotMatch(now, /laterSum/);
});

/** Numbers that look like chance, the same ones for a seed. */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const owners = ['one', 'two'];

/** Something that happens to quotas, pushes or repositories, through one of the front-ends. */
async function happen(ground: Ground, below: (n: number) => number, push: string): Promise<void> {
  const owner = owners[below(2)] ?? '';
  const other = owners.find((each) => each !== owner) ?? '';
  const name = `${owner}/app${below(4)}`;
  const exists = ground.sizes.has(name);
  switch (below(8)) {
    case 0:
      await ground.quotas.set(below(3) === 0 ? repository(name) : { owner }, 400);
      break;
    case 1:
      if (below(3) === 0) await ground.quotas.remove(below(2) === 0 ? repository(name) : { owner });
      break;
    case 2:
      ground.sizes.delete(name);
      await ground.quotas.deleted(repository(name));
      break;
    case 3: {
      const to = name.replace(owner, other);
      const size = ground.sizes.get(name);
      if (size === undefined || ground.sizes.has(to)) break;
      ground.sizes.delete(name);
      ground.sizes.set(to, size);
      await ground.quotas.renamed(repository(name), repository(to));
      break;
    }
    case 4:
      ground.nowMs += 400_000;
      break;
    default:
      if (!exists) ground.sizes.set(name, below(50));
      await ground.judge(name, 1 + below(50), push);
      if (below(6) > 0) await ground.settle(name, push, below(100));
  }
}

test('whatever happens, and whichever answers are lost, a sum that is kept is that of the sizes that are kept', async () => {
  let known = 0;
  for (let seed = 1; seed <= 60; seed += 1) {
    const below = chance(seed);
    const here = new Ground();
    here.diskBytes = 1_000_000;
    const there = new Ground({ beside: here });
    there.diskBytes = 1_000_000;
    const check = (when: string): void => {
      for (const owner of owners) {
        const { kept, real } = sumsOf(here, owner);
        if (kept === undefined) continue;
        known += 1;
        assert.equal(kept, real, `seed ${seed}, ${when}, owner ${owner}`);
      }
    };
    for (const ground of [here, there]) {
      ground.late = Promise.resolve();
      ground.before = async (transaction) => {
        check('before a transaction');
        const fate = below(20);
        if (fate > 1) return;
        if (fate === 1) await ground.memory.transaction(transaction);
        throw new QuorateError('outcome-unknown', 'the answer is lost');
      };
    }
    for (let step = 0; step < 40; step += 1) {
      const happening = [here, there].map((ground, n) =>
        // What fails is told, and nothing else is asked of it here.
        happen(ground, below, `${step}-${n}`).catch((error: unknown) => {
          assert.ok(error instanceof QuorateError, String(error));
        }),
      );
      await Promise.all(happening);
      check(`step ${step}`);
    }
  }
  assert.ok(known > 1_000, 'it was kept often');
});
