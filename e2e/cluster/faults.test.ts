import assert from 'node:assert/strict';
import { Agent } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkPushes, type Refs } from '../checker/check-pushes.js';
import { Gate } from '../checker/gate.js';
import { createGitClient, createRawClient, type PushClient } from '../checker/push-clients.js';
import { PushJournal } from '../checker/push-journal.js';
import { PushPlanner } from '../checker/push-plan.js';
import { listRefs } from '../checker/raw-git.js';
import { countFrom, Seeded, seedFrom } from '../checker/seeded.js';
import { fsck, repositoriesOnDisk } from '../checker/store-on-disk.js';
import { waitFor } from '../wait.js';
import { createClusterScene, type ClusterScene } from './cluster-scene.js';
import { faults, flipBits, wipe } from './faults.js';

/*
 * Real processes and real signals. Nothing is believed but what the clients were told, the refs that are served when
 * all is well again, and what git says of every store's files.
 */

const app = 'team/app';

describe('faults of a cluster, while clients push', () => {
  const random = new Seeded(seedFrom('FAULT_SEED'));
  const journal = new PushJournal();
  const gate = new Gate();
  const stopping = new AbortController();
  const agent = new Agent({ keepAlive: true });
  let ground: ClusterScene;
  let clients: readonly PushClient[] = [];
  let working: Promise<unknown> = Promise.resolve();
  let seen: Refs = new Map();

  before(async () => {
    ground = await createClusterScene({
      storageNodes: 4,
      frontEndFlags: [
        '--set=repair.downAfter=3s',
        '--set=repair.after=20s',
        '--set=repair.concurrency=8',
      ],
    });
    clients = await makeClients();
    working = Promise.all(
      clients.map(async (client) => {
        while (!stopping.signal.aborted) {
          await gate.run(() => client.push());
          // Where nothing is accepted, pushing on at once only makes noise.
          await sleep(20);
        }
      }),
    );
    working.catch(() => undefined);
  });
  after(async () => {
    stopping.abort();
    gate.open();
    await working;
    for (const client of clients) client.close();
    agent.destroy();
    await ground.close();
  });

  async function makeClients(): Promise<readonly PushClient[]> {
    const options = (name: string, races: boolean) => ({
      name,
      journal,
      planner: new PushPlanner({
        client: name,
        random: new Seeded(random.between(0, 2 ** 31)),
        repository: app,
        races,
        maxNewRepositories: 3,
      }),
      urlOf: (repository: string) => ground.httpUrl(random.between(0, 1), repository),
    });
    return [
      createRawClient(options('raw1', true)),
      createRawClient(options('raw2', true)),
      await createGitClient({ ...options('git1', false), scene: ground.scene }),
      await createGitClient({ ...options('git2', false), scene: ground.scene }),
    ];
  }

  function repositories(): readonly string[] {
    return [...new Set(clients.flatMap(({ planner }) => planner.repositories))];
  }

  async function refsServed(): Promise<Refs> {
    const refs = new Map<string, ReadonlyMap<string, string>>();
    for (const repository of repositories()) {
      const found = await waitFor(
        `${repository} to be served`,
        () =>
          listRefs(ground.httpUrl(1, repository), agent).then(
            (refsOf) => ({ refsOf }),
            () => undefined,
          ),
        60_000,
      );
      if (found.refsOf !== undefined) refs.set(repository, found.refsOf);
    }
    return refs;
  }

  /** Lets the clients push while `happen` does its worst; then everything has to be there, and equal. */
  async function survive(what: string, happen: () => Promise<void>): Promise<void> {
    gate.open();
    const wanted = journal.totals.acknowledged + 10;
    await waitFor('pushes', () => journal.totals.acknowledged >= wanted, 60_000);
    await happen();
    const more = journal.totals.acknowledged + 5;
    await waitFor(`pushes after: ${what}`, () => journal.totals.acknowledged >= more, 60_000);
    gate.close();
    await gate.empty();
    const now = await refsServed();
    assert.deepEqual(checkPushes(seen, journal.take(), now), [], what);
    for (const { planner } of clients) planner.learn(now);
    seen = now;
  }

  /** Every voter of every repository has the served refs. */
  async function converge(): Promise<void> {
    for (const repository of seen.keys()) {
      let last = '';
      await waitFor(
        `the copies of ${repository} to be equal`,
        async () => {
          last = await ground.admin(0, '--json', 'repo', 'replicas', repository).catch(String);
          const copies: readonly { readonly role?: string; readonly sound?: boolean }[] =
            last.startsWith('[') ? JSON.parse(last) : [];
          return (
            copies.length === 3 && copies.every(({ role, sound }) => role === 'voter' && sound)
          );
        },
        120_000,
      ).catch((error: unknown) => {
        throw new Error(last, { cause: error });
      });
    }
  }

  const rounds = countFrom('FAULT_ROUNDS', faults.length);
  for (let round = 0; round < rounds; round++) {
    // Each once, in order; then whatever chance says.
    const fault = faults[round] ?? random.pick(faults);
    test(`${round + 1}: ${fault.name}`, async () => {
      await survive(fault.name, () => fault.happen(ground, random));
    });
  }

  test('all copies become equal', converge);

  test('a wiped disk owns nothing, and is filled again', async () => {
    await survive('a wiped disk', () => wipe(ground.cluster.storageNode(0)));
    await converge();
  });

  test('flipped bits are found, and healed from the other copies', async () => {
    gate.close();
    await gate.empty();
    const shown = JSON.parse(await ground.admin(0, '--json', 'repo', 'replicas', app));
    const [{ nodeId }] = shown;
    const node = ground.cluster.storage.find((one) => one.name === nodeId);
    assert.ok(node !== undefined);
    let flipped = 0;
    for (const { id } of await repositoriesOnDisk(node.dataDirectory, ground.scene.env)) {
      flipped += await flipBits(node, id);
    }
    assert.ok(flipped > 0);
    await assert.rejects(ground.admin(0, 'repo', 'verify', '--all'), /copies are damaged/);
    await waitFor(
      'the copies to be healed',
      () =>
        ground.admin(0, 'repo', 'verify', '--all').then(
          () => true,
          () => false,
        ),
      120_000,
    );
    await survive('flipped bits', () => Promise.resolve());
  });

  test('in the end every store is sound, and has what the clients were told', async () => {
    await converge();
    for (const node of ground.cluster.storage) {
      for (const repository of await repositoriesOnDisk(node.dataDirectory, ground.scene.env)) {
        const [problem] = await fsck(repository, ground.scene.env, 'full');
        assert.equal(problem, undefined, node.name);
      }
    }
    const { pushes, acknowledged, refused, unknown } = journal.totals;
    console.log(
      `${rounds} faults, ${pushes} pushes; refs: ${acknowledged} acknowledged, ${refused} refused, ${unknown} without a verdict`,
    );
  });
});
