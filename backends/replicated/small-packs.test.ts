import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Deferred } from '../git/spawner/deferred.js';
import { type Incoming, SmallPacks } from './small-packs.js';

/** Time passes when the test says so. */
function newPacks(): { readonly packs: SmallPacks; readonly pass: () => void } {
  const sleeping: (() => void)[] = [];
  const sleep = (): Promise<void> => new Promise((resolve) => void sleeping.push(resolve));
  const pass = (): void => {
    for (const wake of sleeping) wake();
  };
  return { packs: new SmallPacks({ sleep }), pass };
}

async function* chunksOf(...chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

async function* breaking(): AsyncGenerator<Uint8Array> {
  yield Buffer.from('begins');
  throw new Error('the client left');
}

async function bytesOf(incoming: Incoming): Promise<readonly ['whole' | 'stream', string]> {
  if ('whole' in incoming) return ['whole', incoming.whole.toString('latin1')];
  const parts: Uint8Array[] = [];
  for await (const part of incoming.stream) parts.push(part);
  return ['stream', Buffer.concat(parts).toString('latin1')];
}

test('a small pack that is here at once is taken whole', async () => {
  const { packs } = newPacks();
  const incoming = await packs.receive(chunksOf(Buffer.from('PA'), Buffer.from('CK')));
  assert.deepEqual(await bytesOf(incoming), ['whole', 'PACK']);
});

/** A pack that is here as a whole. */
function here(bytes: Buffer): Parameters<SmallPacks['receive']>[0] {
  return { takeWhole: () => bytes, [Symbol.asyncIterator]: () => chunksOf() };
}

test('one that its client has sent is taken without waiting, if it is small', async () => {
  const { packs } = newPacks();
  const nothingSleeps = new SmallPacks({ sleep: () => assert.fail('no time is to pass') });
  assert.deepEqual(await bytesOf(await nothingSleeps.receive(here(Buffer.from('PACK')))), [
    'whole',
    'PACK',
  ]);
  const large = Buffer.alloc(256 * 1024 + 1, 'x');
  assert.deepEqual(await bytesOf(await packs.receive(here(large))), [
    'stream',
    large.toString('latin1'),
  ]);
  const notYet = { takeWhole: () => undefined, [Symbol.asyncIterator]: () => chunksOf(large) };
  assert.equal((await bytesOf(await packs.receive(notYet)))[0], 'stream');
});

test('one that comes later, or is large, is a stream of all of it', async () => {
  const { packs, pass } = newPacks();
  const rest = new Deferred<void>();
  const slow = (async function* slow() {
    yield Buffer.from('begins');
    pass();
    await rest.promise;
    yield Buffer.from(', and ends');
  })();
  const incoming = await packs.receive(slow);
  rest.resolve();
  assert.deepEqual(await bytesOf(incoming), ['stream', 'begins, and ends']);
  const large = [Buffer.alloc(200_000, 'a'), Buffer.alloc(200_000, 'b'), Buffer.from('c')];
  const [way, text] = await bytesOf(await packs.receive(chunksOf(...large)));
  assert.deepEqual([way, text], ['stream', Buffer.concat(large).toString('latin1')]);
});

test('a pack that breaks off at once is not begun with', async () => {
  const { packs } = newPacks();
  await assert.rejects(packs.receive(breaking()), { code: 'cancelled' });
});

test('what is kept of all pushes has a bound, and room again when they are over', async () => {
  const { packs } = newPacks();
  const pack = Buffer.alloc(256 * 1024, 'x');
  const kept: Incoming[] = [];
  for (;;) {
    const incoming = await packs.receive(chunksOf(pack));
    if ('stream' in incoming) {
      assert.equal((await bytesOf(incoming))[1].length, pack.length);
      break;
    }
    kept.push(incoming);
    assert.ok(kept.length <= 256);
  }
  assert.equal(kept.length, 256);
  const [first] = kept;
  assert.ok(first !== undefined && 'whole' in first);
  first.release();
  first.release();
  assert.ok('whole' in (await packs.receive(chunksOf(pack))));
  assert.ok('stream' in (await packs.receive(chunksOf(pack))));
});
