import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findInPackIndex } from './pack-index.js';
import { createFixture, type Fixture } from './testing/indexer-fixture.js';

let fixture: Fixture;
let present: string[];
let indexPath: string;

before(async () => {
  fixture = await createFixture();
  // Enough for several names with the same first byte.
  present = Array.from({ length: 600 }, (_, i) => fixture.write('blob', `${i}`));
  const stem = join(fixture.root, 'some');
  const pack = fixture.run(['pack-objects', '-q', stem], present.join('\n')).toString().trim();
  indexPath = `${stem}-${pack}.idx`;
});

after(() => fixture.close());

test('finds every name that the pack holds', async () => {
  assert.deepEqual(await findInPackIndex(indexPath, present), new Set(present));
});

test('finds none that it does not hold, also beyond the first and the last', async () => {
  const near = present.map((oid) => oid.replace(/.$/, (last) => (last === '0' ? '1' : '0')));
  const absent = [...near, '0'.repeat(40), 'f'.repeat(40)].filter((oid) => !present.includes(oid));
  assert.deepEqual(await findInPackIndex(indexPath, absent), new Set());
});

test('an index of another version vouches for nothing', async () => {
  const path = join(fixture.root, 'old.idx');
  writeFileSync(path, Buffer.alloc(4096));
  assert.deepEqual(await findInPackIndex(path, ['0'.repeat(40)]), new Set());
});
