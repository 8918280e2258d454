import { after, before, describe } from 'node:test';
import { defineCoordinatorClosing } from './coordinator-closing.js';
import { type CoordinatorHarness, openSpace, type TestSpace } from './coordinator-harness.js';
import { defineCoordinatorLeases } from './coordinator-leases.js';
import { defineCoordinatorModel } from './coordinator-model.js';
import { defineCoordinatorTransactions } from './coordinator-transactions.js';
import { defineCoordinatorWatches } from './coordinator-watches.js';

export type { CoordinatorHarness } from './coordinator-harness.js';

/**
 * The promises of `Coordinator`, as tests. They run against every implementation, so they ask for nothing that etcd
 * 3.4 does not do.
 */
export function defineCoordinatorSuite(
  name: string,
  make: () => Promise<CoordinatorHarness>,
): void {
  describe(`coordinator: ${name}`, () => {
    let harness: CoordinatorHarness | undefined;
    before(async () => {
      harness = await make();
    });
    after(async () => {
      await harness?.dispose();
    });
    const space = (): TestSpace => {
      if (harness === undefined) throw new Error('the store was not made');
      return openSpace(harness, harness.coordinator);
    };
    defineCoordinatorTransactions(space);
    defineCoordinatorLeases(space);
    defineCoordinatorWatches(space);
    defineCoordinatorModel(space);
  });
  describe(`coordinator: ${name}, closing and opening`, () => {
    defineCoordinatorClosing(make);
  });
}
