import { randomBytes } from 'node:crypto';
import type { Random } from '../../../contract/environment.js';
import type { EtcdSettings } from '../member-client.js';
import type { EtcdCluster } from './etcd-cluster.js';

/** Chance for tests that need nothing of it but to differ. */
export const realRandom: Random = { bytes: (length) => randomBytes(length) };

/** Settings for a cluster without TLS and users. */
export function settingsFor(cluster: EtcdCluster, prefix = 'quorate/'): EtcdSettings {
  return { endpoints: cluster.endpoints, prefix };
}
