import { randomBytes } from 'node:crypto';
import type { Coordinator } from '../../../contract/coordinator.js';
import type { Random } from '../../../contract/environment.js';
import { silentLogger } from '../../test-environment.js';
import { openEtcdCoordinator } from '../etcd-coordinator.js';
import type { EtcdSettings } from '../etcd-settings.js';
import { EtcdCluster, type EtcdClusterOptions } from './etcd-cluster.js';

/** Chance for tests that need nothing of it but to differ. */
export const realRandom: Random = { bytes: (length) => randomBytes(length) };

/** Settings for a cluster without TLS and users. */
export function settingsFor(cluster: EtcdCluster, prefix = 'quorate/'): EtcdSettings {
  return { endpoints: cluster.endpoints, prefix };
}

/**
 * For what has to succeed on a machine that has a lot else to do: its disk may keep a member from answering for many
 * seconds, and elections are long then.
 */
export const patient = { patienceMs: 60_000, answerMs: 60_000 };

/** Longer than a busy machine keeps a thread from renewing a lease: none ends that is not to, nor is its process silent. */
export const patientLeaseMs = 60_000;

export interface OpenEtcd {
  readonly cluster: EtcdCluster;
  readonly coordinator: Coordinator;
  /** Ends both, the cluster whatever becomes of the coordinator: members that are left keep a test from ending. */
  readonly close: () => Promise<void>;
}

/** A cluster of its own and a coordinator on it, which is `patient` unless told otherwise. */
export async function openEtcd(
  options: EtcdClusterOptions & Pick<EtcdSettings, 'patienceMs' | 'answerMs'> = {},
): Promise<OpenEtcd> {
  const {
    patienceMs = patient.patienceMs,
    answerMs = patient.answerMs,
    ...clusterOptions
  } = options;
  const cluster = await EtcdCluster.start(clusterOptions);
  try {
    const coordinator = await openEtcdCoordinator({
      settings: { ...settingsFor(cluster), patienceMs, answerMs },
      random: realRandom,
      logger: silentLogger,
    });
    return {
      cluster,
      coordinator,
      close: async () => {
        try {
          await coordinator.close();
        } finally {
          await cluster.stop();
        }
      },
    };
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}
