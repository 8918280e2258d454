import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { ClientInput } from './client-input.js';
import { PackStream } from './pack-stream.js';

function packOf(body: Uint8Array, format: 'sha1' | 'sha256' = 'sha1'): Buffer {
  const start = Buffer.concat([Buffer.from('PACK'), body]);
  return Buffer.concat([start, createHash(format).update(start).digest()]);
}

async function readAll(pack: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of pack) parts.push(part);
  return Buffer.concat(parts);
}

test('in a session the pack ends with its trailer, though the client keeps the stream open', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 300 }),
      fc.constantFrom('sha1' as const, 'sha256' as const),
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 5 }),
      async (body, format, sizes) => {
        const bytes = packOf(body, format);
        const stream = new PassThrough();
        const input = new ClientInput(stream, new AbortController().signal);
        const pack = new PackStream(input, { session: { format, idle: () => input.idle } });
        const reading = readAll(pack);
        for (let from = 0, index = 0; from < bytes.length; index += 1) {
          const size = sizes[index % sizes.length] ?? 1;
          stream.write(bytes.subarray(from, from + size));
          from += size;
          await new Promise(setImmediate);
        }
        // Never ended: only the trailer says that it is over.
        assert.deepEqual(await reading, bytes);
        assert.ok(pack.ended);
        stream.destroy();
      },
    ),
    { numRuns: 30 },
  );
});

test('without a session the pack ends with the stream, whatever its bytes', async () => {
  const stream = new PassThrough();
  const input = new ClientInput(stream, new AbortController().signal);
  const bytes = Buffer.concat([packOf(Buffer.from('x')), Buffer.from('more')]);
  stream.end(bytes);
  assert.deepEqual(await readAll(new PackStream(input)), bytes);
});

test('what a reader left is drained to the trailer, also when its pull was waiting', async () => {
  const stream = new PassThrough();
  const input = new ClientInput(stream, new AbortController().signal);
  const pack = new PackStream(input, { session: { format: 'sha1', idle: () => input.idle } });
  const iterator = pack[Symbol.asyncIterator]();
  const waiting = iterator.next();
  await iterator.return?.();
  const draining = pack.drain(1_000_000);
  stream.write(packOf(Buffer.alloc(1000)));
  assert.equal(await draining, true);
  assert.equal((await waiting).done, false);
  stream.destroy();
});

test('a pack that is here is taken whole, and one that is being read is not', async () => {
  const none = (async function* () {})();
  const rest = Buffer.from('PACK');
  const pack = new PackStream(none, { takeRest: () => rest });
  assert.equal(pack.takeWhole()?.toString(), 'PACK');
  assert.ok(pack.ended);
  assert.equal(pack.takeWhole(), undefined);
  assert.equal((await readAll(pack)).length, 0);
  const begun = new PackStream(none, { takeRest: () => rest });
  assert.equal((await begun[Symbol.asyncIterator]().next()).done, true);
  assert.equal(begun.takeWhole(), undefined);
  const later = new PackStream(none, { takeRest: () => undefined });
  assert.equal(later.takeWhole(), undefined);
  assert.equal(later.ended, false);
});

test('an input of which all was read ends without waiting for the stream to say so', async () => {
  const stream = Object.assign(new PassThrough(), { spent: false });
  const abort = new AbortController();
  const input = new ClientInput(stream, abort.signal);
  stream.write('all');
  assert.equal((await input.next()).done, false);
  const waiting = input.next();
  stream.write('more');
  assert.equal((await waiting).done, false);
  stream.spent = true;
  assert.equal(input.spent, true);
  assert.deepEqual(await input.next(), { done: true, value: undefined });
  abort.abort();
  assert.equal(input.spent, false);
  await assert.rejects(input.next(), { code: 'cancelled' });
  stream.destroy();
});

test('draining is bounded', async () => {
  const stream = new PassThrough();
  const input = new ClientInput(stream, new AbortController().signal);
  stream.write(Buffer.alloc(5000));
  assert.equal(await new PackStream(input).drain(100), false);
  stream.destroy();
});

test('an input can be left while it waits, and then be drained by the listener', async () => {
  const stream = new PassThrough();
  const input = new ClientInput(stream, new AbortController().signal);
  const waiting = input.next();
  input.abandon();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  assert.equal(stream.listenerCount('readable'), 0);
  const drained = new Promise((resolve) => stream.on('end', resolve));
  stream.resume();
  stream.end('rest');
  await drained;
});

test('an input fails when the client goes or the signal aborts', async () => {
  const abort = new AbortController();
  const aborted = new ClientInput(new PassThrough(), abort.signal).next();
  abort.abort();
  await assert.rejects(aborted, { code: 'cancelled' });
  const stream = new PassThrough();
  const gone = new ClientInput(stream, new AbortController().signal).next();
  stream.destroy();
  await assert.rejects(gone, { code: 'cancelled' });
});
