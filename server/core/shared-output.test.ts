import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, before, test } from 'node:test';
import * as fc from 'fast-check';
import { until } from '../../backends/contract/testing/until.js';
import { SharedOutput, type SharedReader } from './shared-output.js';
import { type OpenSpool, Spools } from './spool.js';

const KIB = 1024;
const nobody = (): void => {};

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-shared-'));
});
after(() => rm(directory, { recursive: true, force: true }));

let spools = 0;
function spoolsOf(sizeBytes: number, most = 8): Spools {
  return new Spools(join(directory, String(spools++)), { most, sizeBytes });
}

/** Bytes that tell where in the stream they are. */
function content(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = 0; at + 4 <= sizeBytes; at += 4) bytes.writeUInt32BE(at, at);
  return bytes;
}

function* cut(bytes: Buffer, sizes: readonly number[]): Generator<Buffer> {
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length] ?? 1;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

async function readAll(reader: SharedReader, afterEach: () => unknown = nobody): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const bytes of reader) {
    parts.push(bytes);
    await afterEach();
  }
  return Buffer.concat(parts);
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

/** Opens as many spools as there are words, each of which it fails to do or does. */
const noSpool: OpenSpool = () => Promise.resolve(undefined);

test('readers of any pace, who come at any time while the beginning is there, read all of it', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        sizeBytes: fc.integer({ min: 0, max: 3 * 1024 * KIB }),
        chunks: fc.array(fc.integer({ min: 20_001, max: 300 * KIB }), {
          minLength: 1,
          maxLength: 8,
        }),
        memoryBytes: fc.constantFrom(0, 64 * KIB, 2048 * KIB),
        spoolBytes: fc.constantFrom(512 * KIB, 8192 * KIB),
        wanted: fc.boolean(),
        hasSpool: fc.boolean(),
        paces: fc.array(fc.record({ late: fc.nat(20), slow: fc.nat(6) }), { maxLength: 5 }),
      }),
      async ({ sizeBytes, chunks, memoryBytes, spoolBytes, wanted, hasSpool, paces }) => {
        const bytes = content(sizeBytes);
        const owner = spoolsOf(spoolBytes);
        const openSpool = hasSpool ? (): ReturnType<OpenSpool> => owner.open() : noSpool;
        const output = new SharedOutput({ memoryBytes, wanted, openSpool });
        const first = readAll(output.open(nobody));
        const taken = output.take(slowly(cut(bytes, chunks)));
        const others = paces.map(async ({ late, slow }) => {
          await turns(late);
          return output.joinable ? readAll(output.open(nobody), () => turns(slow)) : bytes;
        });
        for (const read of await Promise.all([first, ...others])) assert.ok(read.equals(bytes));
        await taken;
        output.release();
      },
    ),
    { numRuns: 40 },
  );
});

async function* slowly(chunks: Iterable<Buffer>): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) {
    await turn();
    yield chunk;
  }
}

test('one who does not read holds up nobody, and takes no memory', async () => {
  const bytes = content(6 * 1024 * KIB);
  const owner = spoolsOf(64 * 1024 * KIB);
  const output = new SharedOutput({
    memoryBytes: 2048 * KIB,
    wanted: false,
    openSpool: () => owner.open(),
  });
  const idle = output.open(nobody);
  const busy = readAll(output.open(nobody));
  await output.take(slowly(cut(bytes, [64 * KIB])));
  assert.ok((await busy).equals(bytes));
  assert.ok(output.memoryBytes <= 1024 * KIB + 64 * KIB, 'the rest is in the spool');
  assert.ok((await readAll(idle)).equals(bytes));
  assert.ok(
    (await readAll(output.open(nobody))).equals(bytes),
    'also for who comes when it has ended',
  );
  output.release();
});

test('a spool behind sets the pace; when it leaves, the others go on', async () => {
  const bytes = content(3 * 1024 * KIB);
  const owner = spoolsOf(1024 * KIB);
  const output = new SharedOutput({ memoryBytes: 0, wanted: true, openSpool: () => owner.open() });
  const idle = output.open(nobody);
  let readBytes = 0;
  const reader = output.open(nobody);
  const busy = (async () => {
    for await (const part of reader) readBytes += part.length;
  })();
  const taken = output.take(slowly(cut(bytes, [64 * KIB])));
  await until('it to come to that', () => readBytes >= 1024 * KIB);
  await until('it to come to that', () => !output.joinable);
  await turns(50);
  assert.ok(readBytes <= 1024 * KIB + 64 * KIB, 'what the slow one lacks is not written over');
  idle.leave();
  await busy;
  await taken;
  assert.equal(readBytes, bytes.length);
  output.release();
});

test('a long stream with one reader is passed on at its pace, and cannot be joined any more', async () => {
  const source = new PassThrough();
  const output = new SharedOutput({ memoryBytes: 64 * KIB, wanted: false, openSpool: noSpool });
  const reader = output.open(nobody);
  const taken = output.take(source);
  for (let i = 0; i < 16; i++) source.write(Buffer.alloc(64 * KIB));
  await until('it to come to that', () => output.memoryBytes > 256 * KIB);
  await turns(50);
  assert.ok(output.memoryBytes <= 384 * KIB, 'the source waits');
  const read = readAll(reader);
  await until('it to come to that', () => output.memoryBytes <= 256 * KIB);
  assert.equal(output.joinable, false);
  source.end();
  await taken;
  assert.equal((await read).length, 16 * 64 * KIB);
});

test('nobody reads any more: told once, and the source is left; the spool goes', async () => {
  const source = new PassThrough();
  let told = 0;
  const onAbandoned = (): void => {
    told += 1;
    source.destroy();
  };
  const owner = spoolsOf(1024 * KIB, 1);
  const output = new SharedOutput({ memoryBytes: 0, wanted: true, openSpool: () => owner.open() });
  const [one, other] = [output.open(onAbandoned), output.open(onAbandoned)];
  const taken = output.take(source);
  source.write(Buffer.alloc(64 * KIB));
  await until('it to come to that', () => source.readableLength === 0);
  one.leave();
  one.leave();
  assert.equal(told, 0);
  other.leave();
  assert.equal(told, 1);
  await taken;
  assert.equal(await owner.open(), undefined, 'the spool is kept until it is released');
  output.release();
  await until('the only spool to be given back', async () => {
    const again = await owner.open();
    await again?.close();
    return again !== undefined;
  });
});

test('a source that fails fails its readers, behind what came', async () => {
  const output = new SharedOutput({ memoryBytes: KIB, wanted: false, openSpool: noSpool });
  const reader = output.open(nobody);
  await output.take(
    (async function* (): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(Buffer.from('part'));
      throw new Error('the disk is gone');
    })(),
  );
  const parts = reader[Symbol.asyncIterator]();
  assert.equal(String((await parts.next()).value), 'part');
  await assert.rejects(parts.next(), /the disk is gone/);
  assert.equal(output.joinable, false);
  assert.equal(output.keepable, false);
});

test('a spool that takes no more: those who share go on at the pace of the slowest', async () => {
  const bytes = content(2048 * KIB);
  const owner = spoolsOf(8192 * KIB);
  let writes = 0;
  const openSpool: OpenSpool = async () => {
    const spool = await owner.open();
    if (spool === undefined) return undefined;
    return {
      sizeBytes: spool.sizeBytes,
      read: (offset, maxBytes) => spool.read(offset, maxBytes),
      close: () => spool.close(),
      write: (part, offset) =>
        ++writes > 3 ? Promise.reject(new Error('no space')) : spool.write(part, offset),
    };
  };
  const output = new SharedOutput({ memoryBytes: 0, wanted: true, openSpool });
  const reads = [readAll(output.open(nobody)), readAll(output.open(nobody), () => turns(3))];
  await output.take(slowly(cut(bytes, [64 * KIB])));
  for (const read of await Promise.all(reads)) assert.ok(read.equals(bytes));
  output.release();
});
