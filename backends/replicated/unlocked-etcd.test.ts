import { after, before } from 'node:test';
import { openEtcdCoordinator } from '../coordination/etcd/etcd-coordinator.js';
import { EtcdCluster } from '../coordination/etcd/testing/etcd-cluster.js';
import { patient, realRandom, settingsFor } from '../coordination/etcd/testing/etcd-fixture.js';
import { silentLogger } from '../coordination/test-environment.js';
import { defineUnlockedSuite } from './testing/unlocked-suite.js';

let cluster: EtcdCluster;
let spaces = 0;
before(async () => {
  cluster = await EtcdCluster.start();
});
after(() => cluster.stop());

defineUnlockedSuite('etcd', async () => {
  spaces += 1;
  const coordinator = await openEtcdCoordinator({
    settings: { ...settingsFor(cluster, `space-${spaces}/`), ...patient },
    random: realRandom,
    logger: silentLogger,
  });
  return { coordinator, close: () => coordinator.close() };
});
