import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Coordinator } from '../../backends/contract/coordinator.js';
import { asQuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';
import {
  asCoordinator,
  MemoryCoordinator,
  unused,
} from '../../server/auth/memory-coordinator.fixture.js';
import { type ClaimChange, ClaimsQueue } from './claims.js';
import { claimsSchema, decode, encode } from './quota.js';
import { Usage } from './usage.js';

/** A queue on a coordinator that does not answer before it is let go. */
class Ground {
  readonly memory = new MemoryCoordinator();
  readonly queue: ClaimsQueue;
  go: () => void = () => undefined;
  readonly #gone = new Promise<void>((resolve) => (this.go = resolve));

  constructor(owners: readonly string[]) {
    for (const owner of owners) {
      this.memory.put(keys.ownerQuota(owner), encode({ bytes: 1_000_000, setAtMs: 0 }));
    }
    const coordinator: Coordinator = {
      ...asCoordinator(this.memory),
      transaction: async (transaction) => {
        await this.#gone;
        return this.memory.transaction(transaction);
      },
    };
    const clock = { nowMs: () => 0, monotonicMs: () => 0, sleep: unused };
    this.queue = new ClaimsQueue(new Usage({ coordinator, clock, repositories: unused }));
  }

  claim(name: string, claimId: string): Promise<string> {
    return this.queue.change({ id: name, name }, claiming(name, claimId));
  }

  giveBack(name: string, claimId: string): Promise<string> {
    return this.queue.change({ id: name, name }, { ...claiming(name, claimId), givesBack: true });
  }

  claimsOf(owner: string): readonly string[] {
    const stored = this.memory.entries.get(keys.quotaClaims(owner));
    return stored === undefined ? [] : Object.keys(decode(claimsSchema, stored).claims);
  }
}

function claiming(repositoryId: string, claimId: string): ClaimChange<string> {
  return {
    stored: 'unused',
    decide: (account) => {
      assert.ok(account !== undefined);
      const claim = { repositoryId, bytes: 1, untilMs: 1 };
      const claims = { ...account.claims.claims, [claimId]: claim };
      return { answer: claimId, claims: { ...account.claims, claims } };
    },
  };
}

interface Outcome {
  readonly claimed: number;
  readonly refusals: ReadonlySet<string>;
}

async function outcomeOf(changes: readonly Promise<string>[]): Promise<Outcome> {
  const settled = await Promise.allSettled(changes);
  const refusals = settled.flatMap((one) => {
    if (one.status === 'fulfilled') return [];
    const { code, message, details } = asQuorateError(one.reason);
    assert.equal(details['retryAfterSeconds'], 10);
    return [`${code}: ${message}`];
  });
  return { claimed: changes.length - refusals.length, refusals: new Set(refusals) };
}

test('beyond so many that wait for the claims of an owner others are refused, and told what to do', async () => {
  const ground = new Ground(['team', 'other']);
  const claims = Array.from({ length: 1_100 }, (_, n) => ground.claim('team/app', `claim${n}`));
  const others = ground.claim('other/app', 'of another');
  const returns = Array.from({ length: 900 }, (_, n) => ground.giveBack('team/app', `back${n}`));
  ground.go();
  const { claimed, refusals } = await outcomeOf(claims);
  // The first is being made, and does not wait.
  assert.equal(claimed, 1_001);
  assert.deepEqual(
    [...refusals],
    [
      'resource-exhausted: too many pushes wait for the quota of owner team; nothing changed, push again in a moment',
    ],
  );
  assert.equal(await others, 'of another');
  assert.equal((await outcomeOf(returns)).claimed, 900, 'what gives back finds room');
  assert.equal(ground.claimsOf('team').length, 1_901);
  assert.equal(await ground.claim('team/app', 'later'), 'later', 'there is room again');
});

test('nor do too many wait for the claims of all owners together', async () => {
  const owners = Array.from({ length: 10 }, (_, n) => `owner${n}`);
  const ground = new Ground(owners);
  const claims = owners.flatMap((owner) =>
    Array.from({ length: 600 }, (_, n) => ground.claim(`${owner}/app`, `claim${n}`)),
  );
  ground.go();
  const { claimed, refusals } = await outcomeOf(claims);
  assert.ok(claimed >= 5_000 && claimed < 5_100, `${claimed}`);
  assert.match([...refusals].join(), /wait for the quota on this server; nothing changed/);
});
