import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FlippedBits } from './flipped-bits.js';
import { GitStore } from './git-store.js';
import { SeededRandom } from './seeded-random.js';
import { SimulatedDisk } from './simulated-disk.js';

const id = '0123456789abcdef0123456789abcdef';
const gitDir = `store/repos/01/${id}/git`;
const [one, two] = ['1'.repeat(40), '2'.repeat(40)];

function write(disk: SimulatedDisk, path: string, text: string): void {
  disk.makeDirectory(path.slice(0, path.lastIndexOf('/')), true);
  const file = disk.create(path, false);
  disk.write(file, Buffer.from(text));
  disk.sync(file);
}

test('of bits that turn over in packed-refs, those show that git reads, or cannot read', () => {
  const seen = { shown: 0, hidden: 0, unreadable: 0 };
  for (let seed = 0; seed < 400; seed++) {
    const disk = new SimulatedDisk(() => 0);
    const packed = ['a', 'b', 'c'].map((name) => `${one} refs/heads/${name}\n`).join('');
    write(disk, `${gitDir}/packed-refs`, `# pack-refs with: sorted \n${packed}`);
    const store = new GitStore(disk, gitDir);
    const random = new SeededRandom(`flip ${seed}`);
    const flips = new FlippedBits();
    // Twice in one file, and the second may undo the first.
    for (let times = seed % 2; times >= 0; times--) assert.ok(flips.flip(disk, random));
    write(disk, `${gitDir}/refs/heads/b`, `${two}\n`);
    const expected = new Map([
      ['refs/heads/a', one],
      ['refs/heads/b', two],
      ['refs/heads/c', one],
    ]);
    const unreadable = store.isUnreadable;
    const differs = JSON.stringify([...store.refs()]) !== JSON.stringify([...expected]);
    assert.equal(flips.showing(disk).length > 0, unreadable || differs, `seed ${seed}`);
    if (unreadable) seen.unreadable++;
    else if (differs) seen.shown++;
    else seen.hidden++;
  }
  for (const [kind, times] of Object.entries(seen)) assert.ok(times > 10, `${kind}: ${times}`);
});

test('a bit that turns over twice is no damage any more', () => {
  const seen = { undone: 0, damaged: 0 };
  for (let seed = 0; seed < 400; seed++) {
    const disk = new SimulatedDisk(() => 0);
    write(disk, `${gitDir}/HEAD`, 'ab\n');
    const random = new SeededRandom(`flip ${seed}`);
    const flips = new FlippedBits();
    for (let times = 0; times < 2; times++) assert.ok(flips.flip(disk, random));
    const file = disk.find(`${gitDir}/HEAD`);
    const undone = file?.kind === 'file' && file.data.toString() === 'ab\n';
    assert.equal(flips.showing(disk).length, undone ? 0 : 1, `seed ${seed}`);
    assert.equal(flips.left().length, undone ? 0 : 1, `seed ${seed}`);
    seen[undone ? 'undone' : 'damaged']++;
  }
  assert.ok(seen.undone > 5 && seen.damaged > 5, JSON.stringify(seen));
});

test('damage that is written over is no damage any more', () => {
  const disk = new SimulatedDisk(() => 0);
  write(disk, `${gitDir}/HEAD`, 'ref: refs/heads/main\n');
  const flips = new FlippedBits();
  assert.ok(flips.flip(disk, new SeededRandom('HEAD')));
  assert.equal(flips.showing(disk).length, 1);
  write(disk, `${gitDir}/HEAD`, 'ref: refs/heads/main\n');
  assert.deepEqual([flips.showing(disk), flips.left()], [[], []]);
});
