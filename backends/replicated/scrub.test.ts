import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomBytes } from 'node:crypto';
import { QuorateError } from '../contract/errors.js';
import { createManualClock, silentLogger } from '../coordination/test-environment.js';
import { comeTo } from '../local/testing/come-to.js';
import { startLocal } from '../local/testing/local-fixture.js';
import { Scrub } from './scrub.js';

const hourMs = 60 * 60_000;

test('all is read once in the interval, and damage is told where others can heal it', async () => {
  const local = await startLocal();
  try {
    const ids = new Set<string>();
    for (const name of ['a', 'b', 'c']) ids.add((await local.create(name)).id);
    const [node] = (await local.backend.stores?.nodes()) ?? [];
    assert.ok(node?.storeId !== undefined);
    for (const heals of [true, false]) {
      const clock = createManualClock();
      const read: string[] = [];
      const reported: string[] = [];
      const scrub = new Scrub({
        coordinator: local.coordinator,
        replica: {
          storeId: node.storeId,
          verify: async (id) => {
            read.push(id);
            return Promise.resolve({ generation: 0, digest: '', problems: ['a bit is wrong'] });
          },
        },
        clock,
        random: { bytes: (length) => randomBytes(length) },
        logger: silentLogger,
        intervalMs: 3 * hourMs,
        ...(heals ? { reportDamage: async (id) => void reported.push(id) } : {}),
      });
      scrub.start();
      assert.deepEqual(read, [], 'not all servers that start together read at once');
      for (let count = 1; count <= 6; count++) {
        // The first comes somewhere in the first hour, each other an hour after the one before.
        await comeTo(count, () => {
          if (read.length < count) clock.advance(hourMs);
          return Promise.resolve(read.length);
        });
      }
      await scrub.close();
      assert.deepEqual(new Set(read.slice(0, 3)), ids);
      assert.deepEqual(new Set(read.slice(3, 6)), ids);
      assert.equal(reported.length, heals ? read.length : 0);
    }
  } finally {
    await local.remove();
  }
});

test('what is suspected is read soon, however often git fails over it', async () => {
  const local = await startLocal();
  const clock = createManualClock();
  const read: string[] = [];
  const reported: string[] = [];
  const scrub = new Scrub({
    coordinator: local.coordinator,
    replica: {
      storeId: 'store',
      verify: (id) => {
        read.push(id);
        const problems = id === 'damaged' ? ['a bit is wrong'] : [];
        return Promise.resolve({ generation: 0, digest: '', problems });
      },
    },
    clock,
    random: { bytes: (length) => randomBytes(length) },
    logger: silentLogger,
    intervalMs: 0,
    reportDamage: (id) => Promise.resolve(void reported.push(id)),
  });
  const readInAll = (count: number): Promise<void> =>
    comeTo(count, () => {
      clock.advance(1_000);
      return read.length;
    });
  for (const id of ['sound', 'damaged', 'sound', 'damaged']) scrub.suspect(id);
  await readInAll(2);
  assert.deepEqual([read, reported], [['sound', 'damaged'], ['damaged']]);
  scrub.suspect('sound');
  scrub.suspect('other');
  await readInAll(3);
  assert.deepEqual(read.slice(2), ['other'], 'it is believed for a while');
  clock.advance(hourMs);
  scrub.suspect('sound');
  await readInAll(4);
  await scrub.close();
  await local.remove();
});

test('what could not be read is read when it is suspected again, and what was damaged some minutes later', async () => {
  const local = await startLocal();
  const clock = createManualClock();
  const read: string[] = [];
  const scrub = new Scrub({
    coordinator: local.coordinator,
    replica: {
      storeId: 'store',
      verify: async (id) => {
        read.push(id);
        await Promise.resolve();
        if (id === 'unreadable') throw new QuorateError('storage-failure', 'the disk is full');
        return { generation: 0, digest: '', problems: ['a bit is wrong'] };
      },
    },
    clock,
    random: { bytes: (length) => randomBytes(length) },
    logger: silentLogger,
    intervalMs: 0,
    reportDamage: () => Promise.resolve(),
  });
  const readInAll = (expected: readonly string[]): Promise<void> =>
    comeTo(expected, () => {
      clock.advance(1_000);
      return read;
    });
  const suspectBoth = (): void => ['unreadable', 'damaged'].forEach((id) => scrub.suspect(id));
  suspectBoth();
  await readInAll(['unreadable', 'damaged']);
  suspectBoth();
  await readInAll(['unreadable', 'damaged', 'unreadable']);
  clock.advance(5 * 60_000);
  suspectBoth();
  await readInAll(['unreadable', 'damaged', 'unreadable', 'unreadable', 'damaged']);
  await scrub.close();
  await local.remove();
});

test('a copy that could not be verified after long is not read all the time, whoever meets trouble with it', async () => {
  const local = await startLocal();
  const clock = createManualClock();
  const minuteMs = 60_000;
  let read = 0;
  const scrub = new Scrub({
    coordinator: local.coordinator,
    replica: {
      storeId: 'store',
      verify: async () => {
        read += 1;
        await Promise.resolve();
        clock.advance(minuteMs);
        throw new QuorateError('unavailable', 'git fsck has too little memory');
      },
    },
    clock,
    random: { bytes: (length) => randomBytes(length) },
    logger: silentLogger,
    intervalMs: 0,
  });
  const readAt: number[] = [];
  for (let seconds = 0; seconds < 19 * 60; seconds++) {
    scrub.suspect('app');
    const before = read;
    clock.advance(1_000);
    await new Promise((resolve) => setImmediate(resolve));
    if (read > before) readAt.push(seconds);
  }
  await scrub.close();
  await local.remove();
  // Nine times as long as it took lies in between, or the ten minutes after which it is tried again in any case.
  assert.ok(readAt.length >= 2 && readAt.length <= 4, readAt.join());
});

test('what could not be verified is tried again, ever later, and not for ever', async () => {
  const local = await startLocal();
  const clock = createManualClock();
  const readAtMs: number[] = [];
  let refuses = true;
  const reported: string[] = [];
  const scrub = new Scrub({
    coordinator: local.coordinator,
    replica: {
      storeId: 'store',
      verify: async () => {
        readAtMs.push(clock.monotonicMs());
        await Promise.resolve();
        if (refuses) throw new QuorateError('unavailable', 'git fsck has too little memory');
        return { generation: 0, digest: '', problems: ['a bit is wrong'] };
      },
    },
    clock,
    random: { bytes: (length) => randomBytes(length) },
    logger: silentLogger,
    intervalMs: 0,
    reportDamage: (id) => Promise.resolve(void reported.push(id)),
  });
  const minuteMs = 60_000;
  const readInAll = (count: number): Promise<void> =>
    comeTo(count, () => {
      if (readAtMs.length < count) clock.advance(minuteMs);
      return readAtMs.length;
    });
  scrub.suspect('app');
  await readInAll(6);
  const pauses = readAtMs.slice(1).map((atMs, index) => atMs - (readAtMs[index] ?? 0));
  pauses.forEach((ms, tries) => assert.ok(ms >= 10 * minuteMs * 2 ** tries, `${tries}: ${ms} ms`));
  for (let hours = 0; hours < 24; hours++) {
    clock.advance(hourMs);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(readAtMs.length, 6, 'whoever meets it again brings it up');
  scrub.suspect('app');
  await readInAll(7);
  refuses = false;
  await readInAll(8);
  await scrub.close();
  assert.deepEqual(reported, ['app']);
  await local.remove();
});
