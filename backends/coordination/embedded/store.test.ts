import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  open as openFile,
  mkdtemp,
  readFile,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { open } from 'lmdb';
import type { Coordinator, KeyValue } from '../../contract/coordinator.js';
import { QuorateError } from '../../contract/errors.js';
import { compareKeys } from '../request-check.js';
import { createManualClock, silentLogger } from '../test-environment.js';
import { openEmbeddedCoordinator } from './embedded-coordinator.js';
import { ReadCache } from './read-cache.js';
import { parseRecord, writeRecord } from './record.js';

async function withDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-store-'));
  try {
    await run(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

function openStore(directory: string, more: object = {}): Promise<Coordinator> {
  return openEmbeddedCoordinator({
    directory,
    clock: createManualClock(),
    logger: silentLogger,
    ...more,
  });
}

async function put(coordinator: Coordinator, key: string, value: Uint8Array | string) {
  return coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value: Buffer.from(value) }],
    failure: [],
  });
}

async function fill(directory: string): Promise<void> {
  const coordinator = await openStore(directory);
  for (let i = 0; i < 100; i += 1) {
    await put(coordinator, `key/${i}`, `value ${i} `.repeat(100));
  }
  await coordinator.close();
}

const corrupt = { code: 'data-corrupt' };

describe('opening the embedded store', () => {
  test('refuses a directory that is open already', async () => {
    await withDirectory(async (directory) => {
      const first = await openStore(directory);
      await assert.rejects(openStore(directory), {
        code: 'failed-precondition',
        message: /in use by another/,
      });
      await first.close();
      await (await openStore(directory)).close();
    });
  });
  test('refuses a file that is no LMDB store', async () => {
    await withDirectory(async (directory) => {
      const file = join(directory, 'data.mdb');
      for (const content of ['no store', Buffer.alloc(20_000, 'x'), Buffer.alloc(20_000)]) {
        await writeFile(file, content);
        await assert.rejects(openStore(directory), corrupt);
        assert.deepEqual(await readFile(file), Buffer.from(content));
      }
    });
  });
  test("refuses another program's LMDB store, and leaves it as it was", async () => {
    await withDirectory(async (directory) => {
      const other = open<string, string>({ path: directory, noSubdir: false });
      await other.put('theirs', 'value');
      await other.close();
      await assert.rejects(openStore(directory), corrupt);
      const again = open<string, string>({ path: directory, noSubdir: false });
      assert.deepEqual([...again.getKeys()], ['theirs']);
      await again.close();
    });
  });
  test('refuses a truncated store', async () => {
    await withDirectory(async (directory) => {
      const file = join(directory, 'data.mdb');
      await fill(directory);
      const { size } = await stat(file);
      await truncate(file, Math.floor(size / 8_192) * 4_096);
      await assert.rejects(openStore(directory), corrupt);
    });
  });
  test('refuses a store in which one byte of a value has changed', async () => {
    await withDirectory(async (directory) => {
      const path = join(directory, 'data.mdb');
      await fill(directory);
      const content = await readFile(path);
      // Pages that are free now may still hold old copies: change them all.
      const file = await openFile(path, 'r+');
      const mark = 'value 42 value 42';
      for (let at = content.indexOf(mark); at !== -1; at = content.indexOf(mark, at + 1)) {
        await file.write(Buffer.from('w'), 0, 1, at);
      }
      await file.close();
      await assert.rejects(openStore(directory), (error) => {
        assert.ok(error instanceof QuorateError && error.code === 'data-corrupt');
        assert.equal(error.details['key'], 'key/42');
        return true;
      });
    });
  });
});

describe('the embedded coordinator', () => {
  test('shares a flush between transactions that wait at the same time', async () => {
    await withDirectory(async (directory) => {
      const coordinator = await openStore(directory);
      const before = await lastCommit(directory);
      const results = await Promise.all(
        Array.from({ length: 200 }, (_, i) => put(coordinator, `k${i}`, 'v')),
      );
      const revisions = new Set(results.map(({ revision }) => revision));
      assert.equal(revisions.size, 200, 'each is a revision of its own');
      assert.ok((await lastCommit(directory)) - before <= 10n);
      await coordinator.close();
    });
  });
  test('tells a watcher that lags past the history', async () => {
    await withDirectory(async (directory) => {
      const history = { maxRevisions: 10, maxSizeBytes: 1_000_000 };
      const coordinator = await openStore(directory, { history });
      const leaving = new AbortController();
      const watch = coordinator.watch('k', { signal: leaving.signal })[Symbol.asyncIterator]();
      const { revision } = await put(coordinator, 'k', '0');
      assert.equal((await watch.next()).value?.revision, revision);
      for (let i = 0; i < 11; i += 1) await put(coordinator, 'other', 'v');
      await assert.rejects(watch.next(), (error) => {
        assert.ok(error instanceof QuorateError && error.code === 'failed-precondition');
        assert.equal(error.details['compactedRevision'], revision + 2);
        return true;
      });
      await coordinator.close();
    });
  });
  test('bounds its history by bytes as well', async () => {
    await withDirectory(async (directory) => {
      const history = { maxRevisions: 1_000, maxSizeBytes: 10_000 };
      const coordinator = await openStore(directory, { history });
      const first = await put(coordinator, 'k', Buffer.alloc(6_000));
      await put(coordinator, 'k', Buffer.alloc(6_000));
      const signal = AbortSignal.timeout(60_000);
      const watch = coordinator.watch('k', { fromRevision: first.revision, signal });
      await assert.rejects(watch[Symbol.asyncIterator]().next(), { code: 'failed-precondition' });
      await coordinator.close();
    });
  });
  test('ends a lease that nobody renewed before the next transaction runs', async () => {
    await withDirectory(async (directory) => {
      const manual = createManualClock();
      // No timer ever fires: the event loop is blocked for all that the leases know.
      const clock = { ...manual, sleep: () => new Promise<void>(() => undefined) };
      const coordinator = await openStore(directory, { clock });
      const lease = await coordinator.grantLease(5_000);
      const key = 'lock';
      const own = { type: 'put', key, value: Buffer.from('mine'), lease: lease.id } as const;
      await coordinator.transaction({ compares: [], success: [own], failure: [] });
      const lost = once(lease.lost, 'abort');
      manual.advance(5_000);
      const taken = await coordinator.transaction({
        compares: [{ key, target: 'createRevision', op: '=', operand: 0 }],
        success: [{ type: 'put', key, value: Buffer.from('theirs') }],
        failure: [],
      });
      await lost;
      assert.equal(taken.succeeded, true);
      await assert.rejects(coordinator.transaction({ compares: [], success: [own], failure: [] }), {
        code: 'failed-precondition',
      });
      await coordinator.close();
    });
  });
});

function entry(modRevision: number): KeyValue {
  return { key: 'a', value: Buffer.from('x'), createRevision: 1, modRevision, version: 1 };
}

test('what a commit writes is not remembered from before it, nor during it', () => {
  const cache = new ReadCache();
  cache.keep(entry(1));
  assert.equal(cache.get('a')?.modRevision, 1);
  cache.written('a');
  assert.equal(cache.get('a'), undefined);
  cache.keep(entry(1));
  assert.equal(cache.get('a'), undefined, 'the old value, read while the commit flushes');
  cache.settled();
  cache.keep(entry(2));
  assert.equal(cache.get('a')?.modRevision, 2);
});

test('that a key is absent is remembered until it is written, and not during that', async () => {
  const cache = new ReadCache();
  cache.keepAbsent('a');
  assert.equal(cache.isAbsent('a'), true);
  cache.written('a');
  cache.keepAbsent('a');
  assert.equal(cache.isAbsent('a'), false);
  cache.settled();
  await withDirectory(async (directory) => {
    const coordinator = await openStore(directory);
    for (const value of ['one', 'two']) {
      assert.equal(await coordinator.get('a'), undefined);
      await put(coordinator, 'a', value);
      assert.equal(new TextDecoder().decode((await coordinator.get('a'))?.value), value);
      await coordinator.transaction({
        compares: [],
        success: [{ type: 'delete', key: 'a' }],
        failure: [],
      });
    }
    await coordinator.close();
  });
});

test('a read of one key is never behind a range that was read before', async () => {
  await withDirectory(async (directory) => {
    const coordinator = await openStore(directory);
    const writing = { now: true };
    const writes = (async () => {
      for (let i = 0; i < 60; i += 1) await put(coordinator, 'a', `${i}`);
      writing.now = false;
    })();
    let reads = 0;
    while (writing.now) {
      const before = (await coordinator.range('a')).entries[0]?.modRevision ?? 0;
      const after = (await coordinator.get('a'))?.modRevision ?? 0;
      assert.ok(after >= before, `${after} after ${before}`);
      reads += 1;
      if (reads % 5 === 0) await new Promise(setImmediate);
    }
    await writes;
    await coordinator.close();
  });
});

test('a record survives its codec, and no change of a byte goes unnoticed', () => {
  const keys = fc.string({ unit: 'binary', minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(
      keys,
      fc.uint8Array(),
      fc.nat(),
      fc.constantFrom('', 'ab12-1', 'ff-22'),
      (name, value, n, id) => {
        const key = Buffer.from(name);
        const lease = id === '' ? {} : { lease: id };
        const entry = { value, createRevision: n, modRevision: 2 ** 47 + n, version: 1, ...lease };
        const record = writeRecord(key, entry);
        const parsed = parseRecord(key, record);
        assert.deepEqual(
          { ...parsed, value: Uint8Array.from(parsed.value) },
          { key: name, ...entry },
        );
        const at = n % record.length;
        record[at] = (record[at] ?? 0) ^ 1;
        assert.throws(() => parseRecord(key, record), corrupt);
      },
    ),
  );
});

test('keys are ordered as their UTF-8 bytes are', () => {
  const keys = fc.string({
    unit: fc.constantFrom('a', 'ä', '\ud7ff', '\ue000', '\uffff', '\u{10000}', '\u{10ffff}'),
  });
  fc.assert(
    fc.property(keys, keys, (a, b) => {
      const expected = Buffer.compare(Buffer.from(a), Buffer.from(b));
      assert.equal(Math.sign(compareKeys(a, b)), expected);
    }),
  );
});

/** LMDB's transaction id, from the newer of its meta pages. */
async function lastCommit(directory: string): Promise<bigint> {
  const content = await readFile(join(directory, 'data.mdb'));
  const [a, b] = [content.readBigUInt64LE(152), content.readBigUInt64LE(4_096 + 152)];
  return a > b ? a : b;
}
