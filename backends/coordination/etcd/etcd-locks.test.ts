import { after, before } from 'node:test';
import { defineLocksSuite } from '../locks-suite.js';
import { silentLogger } from '../test-environment.js';
import { openEtcdCoordinator } from './etcd-coordinator.js';
import type { Etcd3 } from 'etcd3';
import { createEtcd3Client } from './etcd3-client.js';
import { EtcdCluster } from './testing/etcd-cluster.js';
import { patient, patientLeaseMs, realRandom, settingsFor } from './testing/etcd-fixture.js';

let cluster: EtcdCluster;
let other: Etcd3;
let spaces = 0;
before(async () => {
  cluster = await EtcdCluster.start();
  other = createEtcd3Client(cluster.member(0).endpoint, {
    ...settingsFor(cluster),
    ...patient,
  });
});
after(async () => {
  other.close();
  await cluster.stop();
});

defineLocksSuite(
  'etcd',
  {
    open: async () => {
      spaces += 1;
      const coordinator = await openEtcdCoordinator({
        settings: { ...settingsFor(cluster, `space-${spaces}/`), ...patient },
        random: realRandom,
        logger: silentLogger,
      });
      return {
        coordinator,
        leaseMs: patientLeaseMs,
        expireLeases: async () => {
          const { leases } = await other.leaseClient.leaseLeases();
          for (const { ID } of leases) await other.leaseClient.leaseRevoke({ ID });
        },
        close: () => coordinator.close(),
      };
    },
  },
  10,
);
