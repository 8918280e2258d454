import { after, before, describe } from 'node:test';
import { defineReplicaPushes } from './replica-pushes.js';
import { defineReplicaReads } from './replica-reads.js';
import { defineReplicaUpkeep } from './replica-upkeep.js';
import type { ReplicaHarness, ReplicaSpace } from './replica-harness.js';
import { createSourceRepository, type SourceRepository } from './source-repository.js';

export type { ReplicaHarness } from './replica-harness.js';

/** The promises of `Replica`, as tests. They run against the store on this machine and against its remote twin. */
export function defineReplicaSuite(name: string, make: () => Promise<ReplicaHarness>): void {
  describe(`replica: ${name}`, () => {
    let harness: ReplicaHarness | undefined;
    let source: SourceRepository | undefined;
    before(async () => {
      harness = await make();
      source = await createSourceRepository();
    });
    after(async () => {
      await source?.remove();
      await harness?.dispose();
    });
    const space = (): ReplicaSpace => {
      if (harness === undefined || source === undefined)
        throw new Error('the replica was not made');
      return { ...harness, source };
    };
    defineReplicaPushes(space);
    defineReplicaReads(space);
    defineReplicaUpkeep(space);
  });
}
