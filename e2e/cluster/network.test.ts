import { after, before, describe, test } from 'node:test';
import { countFrom, Seeded, seedFrom } from '../checker/seeded.js';
import { createClusterScene, type ClusterScene } from './cluster-scene.js';
import { Hosts } from './hosts.js';
import { networkFaults, prepareAttempts } from './network-faults.js';
import { PushLoad } from './push-load.js';

/* Each member on a host of its own: real partitions. Clients reach all front-ends all the time. */

const numbers = [1, 2, 3];
const names = [
  ...numbers.map((number) => `etcd-${number}`),
  ...numbers.map((number) => `storage-${number}`),
  'front-end-1',
  'front-end-2',
];

describe('faults of the network between the members of a cluster, while clients push', () => {
  const random = new Seeded(seedFrom('FAULT_SEED'));
  let hosts: Hosts;
  let ground: ClusterScene | undefined;
  let load: PushLoad | undefined;

  before(async () => {
    hosts = await Hosts.make(names);
    ground = await createClusterScene({ hostOf: (member) => hosts.host(member) });
    await prepareAttempts(ground);
    load = await PushLoad.start(ground, random);
  });
  after(async () => {
    await hosts.heal();
    await load?.close();
    try {
      await ground?.close();
    } finally {
      await hosts.close();
    }
  });

  const rounds = countFrom('FAULT_ROUNDS', networkFaults.length);
  for (let round = 0; round < rounds; round++) {
    // Each once, in order; then whatever chance says.
    const fault = networkFaults[round] ?? random.pick(networkFaults);
    test(`${round + 1}: ${fault.name}`, async () => {
      const [scene, pushing] = [ground, load];
      if (scene === undefined || pushing === undefined) throw new Error('the cluster is not there');
      await pushing.survive(fault.name, async () => {
        try {
          await fault.happen({ scene, hosts, load: pushing, random });
        } finally {
          await hosts.heal();
        }
      });
    });
  }

  test('in the end all copies are equal and sound', async () => {
    await load?.converge();
    await load?.checkDisks();
    console.log(load?.summary(rounds));
  });
});
