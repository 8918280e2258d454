import {
  type CoordinatorHarness,
  defineCoordinatorSuite,
} from '../../conformance/coordinator-suite.js';
import { silentLogger } from '../test-environment.js';
import { openEtcdCoordinator } from './etcd-coordinator.js';
import { createEtcd3Client } from './etcd3-client.js';
import { EtcdCluster } from './testing/etcd-cluster.js';
import { patient, realRandom, settingsFor } from './testing/etcd-fixture.js';

/** A leader who does not come to his turn on a busy machine stays leader: no test here is of elections. */
const electionMs = 3_000;

function makeWith(members: number): () => Promise<CoordinatorHarness> {
  return async () => {
    const cluster = await EtcdCluster.start({ members, electionMs });
    const settings = { ...settingsFor(cluster), ...patient };
    const open = () => openEtcdCoordinator({ settings, random: realRandom, logger: silentLogger });
    let coordinator = await open().catch(async (error: unknown) => {
      await cluster.stop();
      throw error;
    });
    // Somebody else's connection, for accidents.
    const other = createEtcd3Client(cluster.member(0).endpoint, settings);
    return {
      coordinator,
      // Every plan waits for a watch, which etcd lets begin in the past ten times a second.
      modelRuns: members === 1 ? 100 : 20,
      expireLease: async (lease) => {
        await other.leaseClient.leaseRevoke({ ID: lease.id });
      },
      compact: async () => {
        const { header } = await other.kv.put({ key: Buffer.from('filler') });
        await other.kv.compact({ revision: header.revision });
      },
      reopen: async () => {
        await coordinator.close();
        coordinator = await open();
        return coordinator;
      },
      dispose: async () => {
        other.close();
        try {
          await coordinator.close();
        } finally {
          await cluster.stop();
        }
      },
    };
  };
}

defineCoordinatorSuite('etcd, one member', makeWith(1));
defineCoordinatorSuite('etcd, three members', makeWith(3));
