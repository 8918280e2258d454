import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { silentLogger } from '../coordination/test-environment.js';
import type { IndexedPack } from '../git/pack-indexer.js';
import { IncomingPacks } from './incoming-packs.js';
import { LiveQuarantines } from './live-quarantines.js';
import { Store } from './store.js';
import { systemClock } from './testing/local-fixture.js';

const key = { repositoryId: 'a'.repeat(32), pushId: 'brought-with-its-pack', attempt: 1 };
const repository = { objectsDirectory: '/nowhere', objectFormat: 'sha1' } as const;

let root: string;
let store: Store;
beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'quorate-spares-'));
  store = await Store.open(root, { bytes: (length) => Buffer.alloc(length, 1) });
  const spare = join(root, 'spares', '1');
  mkdirSync(join(spare, 'pack'), { recursive: true });
  writeFileSync(join(spare, 'prepared'), '');
  store.spares.add(spare);
});
afterEach(() => rmSync(root, { recursive: true }));

const left = (): readonly string[] => [
  ...readdirSync(join(root, 'quarantine')),
  ...readdirSync(join(root, 'spares')),
];

/** A pack lies in a spare quarantine that has no name yet. */
async function brought(): Promise<{
  incoming: IncomingPacks;
  quarantines: LiveQuarantines;
  live: NonNullable<ReturnType<LiveQuarantines['find']>>;
}> {
  const quarantines = new LiveQuarantines(systemClock, store);
  const indexer = {
    description: 'none',
    queued: 0,
    index: async (request: { readonly quarantinePackDir: string }): Promise<IndexedPack> => {
      const { quarantinePackDir } = request;
      writeFileSync(join(quarantinePackDir, 'pack-1.pack'), 'objects');
      const unsynced = [quarantinePackDir];
      return { name: 'pack-1', objectCount: 1, sizeBytes: 7, engine: 'libgit2', unsynced };
    },
    close: async () => undefined,
  };
  const dependencies = { indexer, clock: systemClock, logger: silentLogger };
  const incoming = new IncomingPacks(dependencies, store, quarantines);
  const { signal } = new AbortController();
  await incoming.takeWith(repository, { key, pack: Buffer.from('pack'), settings: {}, signal });
  const live = quarantines.find(key.repositoryId, key.pushId) ?? assert.fail('it was not taken');
  assert.deepEqual(left(), ['1']);
  return { incoming, quarantines, live };
}

test('a push that is prepared on while it is dropped gets no place any more', async () => {
  const { incoming, quarantines, live } = await brought();
  const dropped = quarantines.remove(key);
  await assert.rejects(incoming.syncPack(live), { code: 'storage-failure' });
  await dropped;
  assert.deepEqual(left(), []);
});

test('a push that is prepared on when it was dropped gets no place either', async () => {
  const { incoming, quarantines, live } = await brought();
  await quarantines.remove(key);
  await assert.rejects(incoming.name(live), { code: 'storage-failure' });
  assert.deepEqual(left(), []);
});

test('what could not be dropped before it had its place goes with the next try', async () => {
  const { quarantines } = await brought();
  rmSync(join(root, 'quarantine'), { recursive: true });
  await assert.rejects(quarantines.remove(key));
  mkdirSync(join(root, 'quarantine'));
  await quarantines.remove(key);
  assert.deepEqual(left(), []);
});
