import { after, before, describe } from 'node:test';
import { type BackendHarness, type BackendSpace } from './backend-harness.js';
import { defineBackendForks } from './backend-forks.js';
import { defineBackendPushes } from './backend-pushes.js';
import { defineBackendReads } from './backend-reads.js';
import { defineBackendRegistry } from './backend-registry.js';
import { defineBackendClosing, defineBackendUpkeep } from './backend-upkeep.js';
import { createSourceRepository, type SourceRepository } from './source-repository.js';

export type { BackendHarness } from './backend-harness.js';

/** The promises of `Backend`, as tests. They run against every implementation. */
export function defineBackendSuite(
  name: string,
  make: () => Promise<BackendHarness>,
  { forks = true }: { readonly forks?: boolean } = {},
): void {
  describe(`backend: ${name}`, () => {
    let harness: BackendHarness | undefined;
    let source: SourceRepository | undefined;
    before(async () => {
      harness = await make();
      source = await createSourceRepository();
    });
    after(async () => {
      await source?.remove();
      await harness?.dispose();
    });
    const space = (): BackendSpace => {
      if (harness === undefined || source === undefined)
        throw new Error('the backend was not made');
      return { backend: harness.backend, source };
    };
    defineBackendRegistry(space);
    defineBackendPushes(space);
    defineBackendReads(space);
    defineBackendUpkeep(space);
    defineBackendForks(space, forks);
  });
  describe(`backend: ${name}, closing and opening`, () => {
    defineBackendClosing(make);
  });
}
