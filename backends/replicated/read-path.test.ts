import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createManualClock, silentLogger } from '../coordination/test-environment.js';
import { QuorateError } from '../contract/errors.js';
import type { HeadRecord } from '../contract/repository.js';
import { createRefSnapshot } from '../git/ref-snapshot.js';
import { ReadPath } from './read-path.js';
import type { RepositoryRecord } from './records.js';
import { plainRecord } from './testing/plain-record.js';

const record: RepositoryRecord = {
  id: 'one',
  name: 'team/app',
  ...plainRecord,
};

/** A repository at generation 7, of which all refs are known; and how often its head is asked for. */
function scene(recalledId = 'one'): { readonly reads: ReadPath; readonly asked: () => number } {
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
    registry: { get: async () => record, recalledId: () => recalledId },
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

test('with the repository the head is asked for, where the refs are read next', async () => {
  const { reads, asked } = scene();
  const { signal } = new AbortController();
  for (const [found, before, after] of [
    [await reads.find('team/app', { refs: true }), 1, 1],
    [await reads.find('team/app'), 1, 2],
  ] as const) {
    assert.ok(found !== undefined);
    assert.equal(asked(), before);
    const read = await reads.read(found, signal, { refsOnly: true });
    assert.equal(read.snapshot.generation, 7);
    assert.equal(asked(), after);
  }
});

test('the head of a repository that had the name before is nobodys', async () => {
  const { reads, asked } = scene('another');
  const found = await reads.find('team/app', { refs: true });
  assert.equal(found, record);
  await reads.read(found, new AbortController().signal, { refsOnly: true });
  assert.equal(asked(), 2);
});
