import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createManualClock, silentLogger } from '../coordination/test-environment.js';
import { QuorateError } from '../contract/errors.js';
import type { HeadRecord } from '../contract/repository.js';
import { createRefSnapshot } from '../git/ref-snapshot.js';
import { ReadPath } from './read-path.js';
import type { RepositoryRecord } from './records.js';

const record: RepositoryRecord = {
  id: 'one',
  name: 'team/app',
  objectFormat: 'sha1',
  settings: {},
  access: { public: false, grants: {} },
  epoch: 1,
  createdAtMs: 0,
  state: 'active',
  voters: [],
  learners: [],
};

/** A repository at generation 7, of which all refs are known; and how often its head is asked for. */
function scene(): { readonly reads: ReadPath; readonly asked: () => number } {
  let asked = 0;
  const reads = new ReadPath({
    log: {
      head: async () => {
        asked += 1;
        return { generation: 7, digest: '' };
      },
      entries: async () => [],
      wantsCopy: async () => 'new',
    },
    registry: { get: async () => record },
    record: async () => record,
    readConsistency: 'strong',
    knownSnapshot: (_id, { generation }) =>
      createRefSnapshot({ generation, head: { symref: 'refs/heads/main' }, refs: [] }),
    rates: undefined,
    replicas: {
      nodes: () => [],
      find: () => undefined,
      load: () => 0,
      place: () => [],
    },
    clock: createManualClock(),
    logger: silentLogger,
  });
  return { reads, asked: () => asked };
}

async function generationOf(reads: ReadPath, head?: Promise<HeadRecord>): Promise<number> {
  const { signal } = new AbortController();
  const options = { refsOnly: true, strong: true, head };
  return (await reads.read(record, signal, options)).snapshot.generation;
}

test('a head that was asked for with the repository is not asked for again', async () => {
  const { reads, asked } = scene();
  assert.equal(await generationOf(reads, Promise.resolve({ generation: 8, digest: '' })), 8);
  assert.equal(asked(), 0);
  assert.equal(await generationOf(reads), 7);
  assert.equal(asked(), 1);
});

test('one that could not be read is asked for again', async () => {
  const { reads, asked } = scene();
  const failed = Promise.reject<HeadRecord>(new QuorateError('unavailable', 'no answer'));
  assert.equal(await generationOf(reads, failed), 7);
  assert.equal(asked(), 1);
});
