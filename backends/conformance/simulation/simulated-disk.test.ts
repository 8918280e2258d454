import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from './seeded-random.js';
import { nodeAt, present, SimulatedDisk } from './simulated-disk.js';

const names = ['a', 'b', 'c'];

function pathOf(random: SeededRandom): string {
  return Array.from({ length: 1 + random.below(4) }, () => random.pick(names)).join('/');
}

/** Most are refused, since something is in the way or is not there. */
function attempt<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    assert.match(code, /^E[A-Z]+$/);
    return undefined;
  }
}

test('what is found by its path is what lies there, whatever was moved, removed or lost', () => {
  for (let seed = 1; seed <= 50; seed++) {
    const random = new SeededRandom(`disk ${seed}`);
    const disk = new SimulatedDisk(() => 0);
    for (let step = 0; step < 200; step++) {
      const path = pathOf(random);
      const dice = random.below(20);
      attempt(() => {
        if (dice < 6) disk.makeDirectory(path, random.chance(0.5));
        else if (dice < 10) disk.create(path, false);
        else if (dice < 14) disk.rename(path, pathOf(random));
        else if (dice < 16) disk.removeDirectory(path);
        else if (dice < 17) disk.unlink(path);
        else if (dice < 19) disk.sync(disk.directory(random.chance(0.5) ? '' : path));
        else if (random.chance(0.2)) disk.cutPower(random, random.pick(['everything', 'any part']));
      });
      for (const some of [path, pathOf(random), `./${path}/`]) {
        const lies = nodeAt(disk.root, some, present);
        assert.equal(
          attempt(() => disk.find(some)),
          lies,
        );
        if (lies?.kind === 'directory') assert.equal(disk.directory(some), lies);
      }
    }
  }
});
