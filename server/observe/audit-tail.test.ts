import assert from 'node:assert/strict';
import { appendFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { createAuditTail } from './audit-tail.js';
import { type AuditFilter, createAuditTrail } from './audit-trail.js';

let directory: string;
let log: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'tail-'));
  log = path.join(directory, 'audit.jsonl');
});
afterEach(() => rm(directory, { recursive: true }));

function line(n: number, more: object = {}): string {
  const time = new Date(n * 1000).toISOString();
  return `${JSON.stringify({ time, event: 'push', outcome: 'ok', actor: 'ann', n, ...more })}\n`;
}

function setAside(stamp: string): Promise<void> {
  return rename(log, path.join(directory, `audit-${stamp}.jsonl`));
}

/** All that came since, and where that ends. */
async function news(
  from: string,
  filter: AuditFilter = {},
): Promise<readonly [readonly unknown[], string]> {
  const tail = createAuditTail(directory);
  const found: unknown[] = [];
  let position = from;
  for (;;) {
    const read = await tail.since(position, filter);
    found.push(...read.events.map((event) => event['n']));
    position = read.position;
    if (read.atEnd) return [found, position];
  }
}

test('what is written after a place comes once, oldest first, and only whole lines', async () => {
  await writeFile(log, line(1) + line(2));
  const from = await createAuditTail(directory).end();
  assert.deepEqual((await news(from))[0], []);
  await appendFile(log, line(3) + line(4).slice(0, 20));
  const [found, next] = await news(from);
  assert.deepEqual(found, [3]);
  await appendFile(log, line(4).slice(20) + line(5, { actor: 'bob' }) + line(6));
  assert.deepEqual((await news(next))[0], [4, 5, 6]);
  assert.deepEqual((await news(next, { user: 'bob' }))[0], [5]);
  const page = await createAuditTrail(directory).query(
    {},
    { limit: 9, after: from, signal: new AbortController().signal },
  );
  assert.deepEqual(
    page.events.map(({ n }) => n),
    [2, 1],
    'the place is one for reading backwards, too',
  );
});

test('files that are set aside are read to their end; a removed one is passed over', async () => {
  await writeFile(log, line(1));
  const from = await createAuditTail(directory).end();
  await appendFile(log, `${line(2)}{"torn`);
  await setAside('20260101T000000000Z');
  await writeFile(log, line(3));
  await setAside('20260101T000000000Z_1');
  await writeFile(log, line(4));
  const [found, next] = await news(from);
  assert.deepEqual(found, [2, 3, 4]);
  await setAside('20260102T000000000Z');
  assert.deepEqual((await news(next))[0], [], 'between two files');
  await writeFile(log, line(5));
  assert.deepEqual((await news(next))[0], [5]);
  await rm(path.join(directory, 'audit-20260101T000000000Z.jsonl'));
  assert.deepEqual((await news(from))[0], [3, 4, 5]);
});

test('many lines, long ones, and places that are none', async () => {
  await writeFile(log, '');
  const from = await createAuditTail(directory).end();
  const pad = 'x'.repeat(900_000);
  const lines = Array.from({ length: 3000 }, (_, n) => line(n, n % 1000 === 7 ? { pad } : {}));
  await appendFile(log, `${lines.join('')}no json\n${line(3000)}`);
  assert.deepEqual(
    (await news(from))[0],
    Array.from({ length: 3001 }, (_, n) => n),
  );
  await assert.rejects(createAuditTail(directory).since('somewhere', {}), /no place/);
});

test('no file is missed that is set aside while the files are looked for', async () => {
  for (let round = 0; round < 4; round += 1) {
    await writeFile(log, line(0));
    const tail = createAuditTail(directory);
    let position = await tail.end();
    const last = 40;
    const writing = (async () => {
      for (let n = 1; n <= last; n += 1) {
        await setAside(`${String(round).padStart(2, '0')}T${String(n).padStart(2, '0')}`);
        await writeFile(log, line(n));
      }
    })();
    const found: unknown[] = [];
    while (found.at(-1) !== last) {
      const read = await tail.since(position, {});
      position = read.position;
      found.push(...read.events.map((event) => event['n']));
    }
    await writing;
    assert.deepEqual(
      found,
      Array.from({ length: last }, (_, index) => index + 1),
    );
    await rm(directory, { recursive: true });
    await mkdir(directory);
  }
});
