import { randomBytes } from 'node:crypto';
import { silentLogger } from '../../coordination/test-environment.js';
import { silentMeter, systemClock } from '../../local/testing/local-fixture.js';
import {
  type ControllerDependencies,
  type ControllerSettings,
  SetController,
} from '../set-controller.js';
import type { ReplicaSet } from './replica-set.js';

interface Others extends Partial<Omit<ControllerDependencies, 'settings'>> {
  readonly settings?: Partial<ControllerSettings>;
}

/** Keeps the replica sets of `set` once it is started; within a minute it misses nobody and compares nothing. */
export function keeperOf(
  set: ReplicaSet,
  { lease, locks }: Pick<ControllerDependencies, 'lease' | 'locks'>,
  { settings, ...others }: Others = {},
): SetController {
  return new SetController({
    coordinator: set.coordinator,
    replicas: set.replicas,
    lease,
    locks,
    nodeId: 'controller',
    clock: systemClock,
    random: { bytes: (length) => randomBytes(length) },
    logger: silentLogger,
    meter: silentMeter,
    ...others,
    settings: {
      replicationFactor: 3,
      downAfterMs: 60_000,
      repairAfterMs: 60_000,
      maxLog: 5,
      compareEveryMs: 60_000,
      maxFills: 2,
      readReplicas: { max: 0, ratePerCopy: 10, coolDownMs: 0 },
      ...settings,
    },
  });
}
