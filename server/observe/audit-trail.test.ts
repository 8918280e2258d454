import assert from 'node:assert/strict';
import { appendFile, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { type AuditFilter, createAuditTrail } from './audit-trail.js';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'trail-'));
});
afterEach(() => rm(directory, { recursive: true }));

const signal = new AbortController().signal;
const at = (n: number): string => new Date(n * 1000).toISOString();

function line(n: number, more: object = {}): string {
  return `${JSON.stringify({ time: at(n), event: 'push', outcome: 'ok', actor: 'ann', n, ...more })}\n`;
}

function put(name: string, text: string): Promise<void> {
  return writeFile(path.join(directory, name), text);
}

/** All that fits, page by page. */
async function numbers(filter: AuditFilter = {}, limit = 1000): Promise<unknown[]> {
  const trail = createAuditTrail(directory);
  const found: unknown[] = [];
  let after: string | undefined;
  do {
    const page = await trail.query(filter, { limit, after, signal });
    assert.ok(page.events.length <= limit);
    found.push(...page.events.map((event) => event['n']));
    after = page.next;
  } while (after !== undefined);
  return found;
}

const down = (from: number, to: number): number[] =>
  Array.from({ length: from - to + 1 }, (_, index) => from - index);

test('newest first, over all files, in pages of any size', async () => {
  await put('audit-20260101T000000000Z.jsonl', [1, 2, 3].map((n) => line(n)).join(''));
  await put('audit-20260101T000000000Z_1.jsonl', [4, 5].map((n) => line(n)).join(''));
  await put('audit-20260202T000000000Z.jsonl', [6, 7].map((n) => line(n)).join(''));
  await put('audit.jsonl', [8, 9].map((n) => line(n)).join(''));
  await put('audit-notes.txt', line(99));
  for (const limit of [1, 2, 3, 9, 100]) assert.deepEqual(await numbers({}, limit), down(9, 1));
});

test('lines of all lengths, across the pieces that are read', async () => {
  const lines = Array.from({ length: 300 }, (_, n) =>
    line(n, { pad: 'x'.repeat((n * 7919) % 9000) }),
  );
  lines.push(line(300, { pad: 'y'.repeat(1_000_000) }), line(301));
  await put('audit.jsonl', lines.join(''));
  assert.deepEqual(await numbers(), down(301, 0));
  assert.deepEqual(await numbers({}, 7), down(301, 0));
});

test('torn lines, and one that is still being written, are passed over', async () => {
  await put('audit.jsonl', `${line(1)}{"time":"19\n${line(2)}\n[]\n${line(3)}{"time":"2026`);
  assert.deepEqual(await numbers(), [3, 2, 1]);
});

test('a line that is too long is passed over', async () => {
  await put('audit.jsonl', line(1) + line(2, { pad: 'x'.repeat(17 * 1024 * 1024) }) + line(3));
  assert.deepEqual(await numbers(), [3, 1]);
});

test('no log, an empty one', async () => {
  assert.deepEqual(await numbers(), []);
  await put('audit.jsonl', '');
  assert.deepEqual(await numbers(), []);
});

const filters: readonly { desc: string; filter: AuditFilter; expected: readonly number[] }[] = [
  { desc: 'repository', filter: { repository: 'team/app' }, expected: [7203, 2] },
  { desc: 'user', filter: { user: 'bob' }, expected: [7202] },
  { desc: 'event', filter: { event: 'admin' }, expected: [7201] },
  { desc: 'outcome', filter: { outcome: 'refused' }, expected: [7203] },
  { desc: 'since, inclusive', filter: { sinceMs: 7_202_000 }, expected: [7203, 7202] },
  { desc: 'until, exclusive', filter: { untilMs: 7_202_000 }, expected: [7201, 2, 1] },
  { desc: 'together', filter: { repository: 'team/app', untilMs: 7_203_000 }, expected: [2] },
];
for (const { desc, filter, expected } of filters) {
  test(`filter: ${desc}`, async () => {
    await put('audit-20260101T000000000Z.jsonl', line(1) + line(2, { repository: 'team/app' }));
    await put(
      'audit.jsonl',
      line(7201, { event: 'admin' }) +
        line(7202, { actor: 'bob' }) +
        line(7203, { repository: 'team/app', outcome: 'refused' }),
    );
    assert.deepEqual(await numbers(filter), expected);
    assert.deepEqual(await numbers(filter, 1), expected);
  });
}

test('a page goes on where it ended, though the log has grown and was set aside', async () => {
  await put('audit.jsonl', [1, 2, 3, 4].map((n) => line(n)).join(''));
  const trail = createAuditTrail(directory);
  const first = await trail.query({}, { limit: 2, signal });
  await appendFile(path.join(directory, 'audit.jsonl'), line(5));
  await rename(
    path.join(directory, 'audit.jsonl'),
    path.join(directory, 'audit-20260101T000000000Z.jsonl'),
  );
  await put('audit.jsonl', line(6));
  const second = await trail.query({}, { limit: 9, after: first.next, signal });
  assert.deepEqual(
    [...first.events, ...second.events].map((event) => event['n']),
    [4, 3, 2, 1],
  );
});

test('a place that is none is refused', async () => {
  await assert.rejects(
    createAuditTrail(directory).query({}, { limit: 1, after: 'x', signal }),
    /after is no place/,
  );
});
