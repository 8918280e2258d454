import { randomBytes } from 'node:crypto';
import type { LossRecovery, LossReport } from '../../contract/cluster.js';
import type { Coordinator } from '../../contract/coordinator.js';
import type { Clock } from '../../contract/environment.js';
import { silentLogger } from '../../coordination/test-environment.js';
import type { Locks } from '../../coordination/locks.js';
import { systemClock } from '../../local/testing/local-fixture.js';
import { recoverSet } from '../set-recovery.js';
import type { ReplicaSet } from './replica-set.js';

/** A set that has lost copies, as the front-end whose locks they are sees it. */
export interface LostSet {
  readonly set: ReplicaSet;
  readonly locks: Locks;
  readonly repositoryId: string;
  /** Default the set's own. */
  readonly coordinator?: Coordinator;
  readonly clock?: Clock;
}

/** `recoverSet`, where nothing is accepted and no node is gone unless `recovery` says so. */
export function recoverLost(
  { set, locks, repositoryId, coordinator = set.coordinator, clock = systemClock }: LostSet,
  recovery: Partial<LossRecovery>,
): Promise<LossReport> {
  const dependencies = {
    coordinator,
    replicas: set.replicas,
    awayMs: () => 1_000,
    repairAfterMs: 60_000,
    locks,
    clock,
    random: { bytes: (length: number) => randomBytes(length) },
    logger: silentLogger,
  };
  return recoverSet(dependencies, repositoryId, {
    accept: undefined,
    gone: [],
    keepUnacknowledged: false,
    actor: 'admin',
    signal: new AbortController().signal,
    ...recovery,
  });
}
