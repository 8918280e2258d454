import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { readObjectStoreStats } from './repository-files.js';

const every: readonly number[] = Array.from({ length: 256 }, (_, n) => n);

describe('loose objects', () => {
  let root: string;
  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'quorate-loose-'));
  });
  after(() => rm(root, { recursive: true, force: true }));

  /** `perFanout` files of 10 bytes in each of the directories; beside them what is no object. */
  async function storeOf(name: string, fanouts: readonly number[], perFanout: number) {
    const objectsDir = join(root, name);
    await mkdir(join(objectsDir, 'info'), { recursive: true });
    for (const fanout of fanouts) {
      const directory = join(objectsDir, fanout.toString(16).padStart(2, '0'));
      await mkdir(directory);
      for (let n = 0; n < perFanout; n += 1) {
        await writeFile(join(directory, n.toString(16).padStart(38, '0')), 'ten bytes.');
      }
    }
    const { looseObjectCount, sizeBytes } = await readObjectStoreStats(objectsDir);
    return { looseObjectCount, sizeBytes };
  }

  test('few are counted, wherever they lie', async () => {
    assert.deepEqual(await storeOf('none', [], 0), { looseObjectCount: 0, sizeBytes: 0 });
    assert.deepEqual(await storeOf('odd', [1, 3, 0xfe], 1), { looseObjectCount: 3, sizeBytes: 30 });
  });

  test('many in few directories are counted with their size', async () => {
    const stats = await storeOf('full', [7], 40);
    assert.deepEqual(stats, { looseObjectCount: 40, sizeBytes: 400 });
  });

  test('many are estimated by some directories, all of their files', async () => {
    const stats = await storeOf('many', every, 20);
    assert.deepEqual(stats, { looseObjectCount: 5120, sizeBytes: 51_200 });
  });
});
