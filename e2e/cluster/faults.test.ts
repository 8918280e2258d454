import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { countFrom, Seeded, seedFrom } from '../checker/seeded.js';
import { waitFor } from '../wait.js';
import { createClusterScene, type ClusterScene } from './cluster-scene.js';
import { faults, flipBits, wipe } from './faults.js';
import { foughtOver, PushLoad, wholeCopies } from './push-load.js';

/* Real processes and real signals. */

describe('faults of a cluster, while clients push', () => {
  const random = new Seeded(seedFrom('FAULT_SEED'));
  let ground: ClusterScene;
  let load: PushLoad;

  before(async () => {
    ground = await createClusterScene({
      storageNodes: 4,
      frontEndFlags: [
        '--set=repair.downAfter=3s',
        '--set=repair.after=20s',
        '--set=repair.concurrency=8',
      ],
    });
    load = await PushLoad.start(ground, random);
  });
  after(async () => {
    await load.close();
    await ground.close();
  });

  const rounds = countFrom('FAULT_ROUNDS', faults.length);
  for (let round = 0; round < rounds; round++) {
    // Each once, in order; then whatever chance says.
    const fault = faults[round] ?? random.pick(faults);
    test(`${round + 1}: ${fault.name}`, async () => {
      await load.survive(fault.name, () => fault.happen(ground, random));
    });
  }

  test('all copies become equal', () => load.converge());

  test('a wiped disk owns nothing, and is filled again', async () => {
    await load.survive('a wiped disk', () => wipe(ground.cluster.storageNode(0)));
    await load.converge();
  });

  test('flipped bits are found, and healed from the other copies', async () => {
    await load.quiet();
    const shown = JSON.parse(await ground.admin(0, '--json', 'repo', 'replicas', foughtOver));
    const [{ nodeId }] = shown;
    const node = ground.cluster.storage.find((one) => one.name === nodeId);
    assert.ok(node !== undefined);
    const logged = node.log.length;
    let flipped = 0;
    for (const { id } of await wholeCopies(node, ground.scene.env)) {
      flipped += await flipBits(node, id);
    }
    assert.ok(flipped > 0);
    // By this verification; or by the node itself just before, when a git of its own came upon it.
    const verified = await ground.admin(0, 'repo', 'verify', '--all').catch(String);
    assert.match(verified + node.log.slice(logged), /copies are damaged|"a copy is damaged"/);
    await waitFor('the copies to be healed', () =>
      ground.admin(0, 'repo', 'verify', '--all').then(
        () => true,
        () => false,
      ),
    );
    await load.survive('flipped bits', () => Promise.resolve());
  });

  test('in the end every store is sound, and has what the clients were told', async () => {
    await load.converge();
    await load.checkDisks();
    console.log(load.summary(rounds));
  });
});
