import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { writingBeginner } from './begin-writing.js';

const open = (): number => (process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0);

test('files whose writing is begun stay as they are, and are closed', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-begin-writing-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const paths = ['a', 'b'].map((name) => join(directory, name));
  for (const path of paths) writeFileSync(path, path, { mode: 0o444 });
  const begin = writingBeginner();
  begin(paths);
  const before = open();
  for (let round = 0; round < 20; round++) begin(paths);
  assert.equal(open(), before);
  for (const path of paths) assert.equal(readFileSync(path, 'utf8'), path);
});
