import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { GatheredChunks } from './gathered-chunks.js';

function gather(): { readonly got: string[]; readonly gathered: GatheredChunks } {
  const got: string[] = [];
  return { got, gathered: new GatheredChunks((chunk) => got.push(chunk.toString('latin1'))) };
}

test('what comes in one turn is delivered together, at its end', async () => {
  const { got, gathered } = gather();
  gathered.add(Buffer.from('a'));
  gathered.add(Buffer.from('b'));
  assert.deepEqual(got, []);
  await turn();
  gathered.add(Buffer.from('c'));
  await turn();
  assert.deepEqual(got, ['ab', 'c']);
});

test('much is delivered at once, so that little is held', () => {
  const { got, gathered } = gather();
  const piece = Buffer.alloc(32 * 1024);
  for (let i = 0; i < 9; i += 1) gathered.add(piece);
  assert.deepEqual(
    got.map(({ length }) => length),
    [128 * 1024, 128 * 1024],
  );
});

test('flushed: all of it, once; dropped: none of it', async () => {
  const { got, gathered } = gather();
  gathered.add(Buffer.from('a'));
  gathered.flush();
  gathered.flush();
  gathered.add(Buffer.from('b'));
  gathered.drop();
  await turn();
  assert.deepEqual(got, ['a']);
});
