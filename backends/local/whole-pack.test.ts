import assert from 'node:assert/strict';
import {
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { StoredPack } from '../contract/backend.js';
import { silentLogger } from '../coordination/test-environment.js';
import type { LocalReplica } from './local-replica.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';
import type { RefsIdentity, WholePack } from './whole-pack-record.js';
import { repackRecorded } from './whole-pack.js';

const { signal } = new AbortController();

let scene: ReplicaScene;
beforeEach(async () => {
  scene = await openReplica();
});
afterEach(async () => {
  await scene.close();
});

const record = (): string => join(scene.gitDir, '..', 'whole-pack');
const packDirectory = (): string => join(scene.gitDir, 'objects', 'pack');
const packFile = (): string => {
  const { pack }: WholePack = JSON.parse(readFileSync(record(), 'utf8'));
  return join(packDirectory(), `pack-${pack}.pack`);
};

async function push(ref: string, content: string): Promise<void> {
  const tip = await scene.commit(content);
  const key = await scene.prepare([create(ref, tip)]);
  scene.log.commit(key.pushId, [create(ref, tip)]);
}

async function wholePack(replica: LocalReplica): Promise<StoredPack | undefined> {
  const read = await replica.read(scene.id, scene.log.committed.generation);
  try {
    return await read.wholePack();
  } finally {
    read.release();
  }
}

async function isWhole(replica = scene.replica): Promise<boolean> {
  const pack = await wholePack(replica);
  await pack?.close();
  return pack !== undefined;
}

async function repacked(): Promise<void> {
  await push('refs/heads/main', 'one');
  await scene.replica.maintain(scene.id, { signal });
}

test('a full repack is recorded, and the record outlives a restart', async () => {
  await push('refs/heads/main', 'one');
  assert.equal(await isWhole(), false);
  await scene.replica.maintain(scene.id, { signal });
  assert.equal(await isWhole(), true);
  assert.equal(await isWhole(await scene.reopen()), true);
});

test('other refs are not those of the record; a read of the recorded ones still has it', async () => {
  await repacked();
  const read = await scene.replica.read(scene.id, 1);
  await push('refs/heads/next', 'two');
  assert.equal(await isWhole(), false);
  assert.equal(await isWhole(await scene.reopen()), false);
  const pack = await read.wholePack();
  assert.equal(pack?.objectCount, 3);
  await pack.close();
  read.release();
});

test('an open pack is readable when its file is gone, and a removed one is not found', async () => {
  await repacked();
  const pack = await wholePack(scene.replica);
  assert.ok(pack !== undefined);
  const bytes = readFileSync(packFile());
  rmSync(packFile());
  const parts = [new Uint8Array(5), new Uint8Array(0), new Uint8Array(pack.sizeBytes - 5)];
  await pack.read(parts, 0);
  assert.deepEqual(Buffer.concat(parts), bytes);
  await assert.rejects(pack.read([new Uint8Array(2)], pack.sizeBytes - 1), {
    code: 'data-corrupt',
  });
  await pack.close();
  assert.equal(await isWhole(), false);
});

test('a damaged pack or record, or none after a crash, is as if there were none', async () => {
  await repacked();
  const whole = readFileSync(record(), 'utf8');
  for (const text of ['', '{}', whole.replace('"generation":1', '"generation":2'), '[']) {
    writeFileSync(record(), text);
    assert.equal(await isWhole(await scene.reopen()), false, text);
  }
  rmSync(record());
  assert.equal(await isWhole(await scene.reopen()), false);
  writeFileSync(record(), whole);
  assert.equal(await isWhole(await scene.reopen()), true);
  const pack = packFile();
  const bytes = readFileSync(pack);
  rmSync(pack);
  writeFileSync(pack, bytes);
  truncateSync(pack, bytes.length - 1);
  assert.equal(await isWhole(), false);
});

test('refs that moved during the repack, several packs and kept ones are not recorded', async () => {
  await repacked();
  const recorded: WholePack[] = [];
  const run = async (
    identities: readonly (RefsIdentity | undefined)[],
    kind: 'full' | 'geometric' = 'full',
  ): Promise<number> => {
    const left = [...identities];
    recorded.length = 0;
    await repackRecorded(
      {
        id: scene.id,
        gitDirectory: scene.gitDir,
        objectsDirectory: join(scene.gitDir, 'objects'),
        settled: () => Promise.resolve(left.shift()),
        recordWholePack: (wholePack) => {
          recorded.push(wholePack);
          return Promise.resolve();
        },
      },
      { kind, repack: () => Promise.resolve(), logger: silentLogger },
    );
    return recorded.length;
  };
  const one = { generation: 1, digest: 'a' };
  assert.equal(await run([one, one]), 1);
  assert.equal(await run([one, one], 'geometric'), 0);
  assert.equal(await run([one, { generation: 3, digest: 'a' }]), 0);
  assert.equal(await run([one, undefined]), 0);
  assert.equal(await run([undefined, one]), 0);
  const [name = ''] = readdirSync(packDirectory()).filter((file) => file.endsWith('.pack'));
  const base = join(packDirectory(), name.slice(0, -'.pack'.length));
  for (const other of [`${base}.keep`, join(packDirectory(), 'pack-other.pack')]) {
    writeFileSync(other, '');
    assert.equal(await run([one, one]), 0);
    rmSync(other);
  }
  writeFileSync(join(scene.gitDir, 'shallow'), '');
  assert.equal(await run([one, one]), 0);
  rmSync(join(scene.gitDir, 'shallow'));
  renameSync(`${base}.idx`, `${base}.away`);
  assert.equal(await run([one, one]), 0);
});
