import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Clock, Logger, Meter } from '../../backends/contract/environment.js';
import { openAuditLog } from './audit-log.js';
import type { FileAuditLog } from './audit-log.js';
import type { AuditEvent } from './audit.js';

let directory: string;
let messages: string[];
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'audit-'));
  messages = [];
});
afterEach(() => rm(directory, { recursive: true }));

const logger: Logger = {
  debug: () => undefined,
  info: (_fields, message) => messages.push(message),
  warn: (_fields, message) => messages.push(message),
  error: (_fields, message) => messages.push(message),
  child: () => logger,
};
const meter: Meter = {
  count: () => undefined,
  observe: () => undefined,
  gauge: () => undefined,
};
const clock: Clock = { nowMs: () => 0, monotonicMs: () => 0, sleep: () => Promise.resolve() };

function event(details: Record<string, unknown>): AuditEvent {
  return { event: 'push', outcome: 'ok', actor: 'ann', details };
}

function openLog(
  limits: { maxFileBytes?: number; maxFiles?: number; maxQueuedBytes?: number } = {},
) {
  const defaults = { maxFileBytes: 1e9, maxFiles: 0 };
  return openAuditLog({ directory, logger, clock, meter, ...defaults, ...limits });
}

async function lines(): Promise<readonly string[]> {
  const text = await readFile(path.join(directory, 'audit.jsonl'), 'utf8');
  return text.split('\n').slice(0, -1);
}

async function numbers(): Promise<readonly unknown[]> {
  return (await lines()).map((line): unknown => JSON.parse(line).details.n);
}

test('events are on disk in order, private, after flush', async () => {
  const log = await openLog();
  for (let n = 0; n < 100; n += 1) log.record(event({ n }));
  await log.flush();
  assert.deepEqual(
    await numbers(),
    Array.from({ length: 100 }, (_, n) => n),
  );
  assert.equal((await stat(path.join(directory, 'audit.jsonl'))).mode & 0o777, 0o600);
  assert.match((await lines())[0] ?? '', /^\{"time":"1970-01-01T00:00:00.000Z","event":"push"/);
  await log.close();
});

test('close writes what was recorded, and a later log goes on behind it', async () => {
  for (const n of [1, 2]) {
    const log = await openLog();
    log.record(event({ n }));
    await log.close();
  }
  assert.deepEqual(await numbers(), [1, 2]);
});

test('a torn last line stays as evidence and does not spoil the next line', async () => {
  await appendFile(path.join(directory, 'audit.jsonl'), '{"time":"x"}\n{"time":"19');
  const log = await openLog();
  log.record(event({ n: 3 }));
  await log.close();
  const [whole, torn, next] = await lines();
  assert.equal(whole, '{"time":"x"}');
  assert.equal(torn, '{"time":"19');
  assert.match(next ?? '', /"n":3/);
  assert.deepEqual(messages, ['the last audit line was cut short by a crash']);
});

test('a full file is set aside, and only so many are kept', async () => {
  const log = await openLog({ maxFileBytes: 300, maxFiles: 2 });
  for (let n = 0; n < 20; n += 1) {
    log.record(event({ n }));
    await log.flush();
  }
  await log.close();
  const names = (await readdir(directory)).toSorted();
  assert.equal(names.length, 3, names.join());
  assert.ok(names.includes('audit.jsonl'));
  for (const name of names) {
    assert.ok((await stat(path.join(directory, name))).size <= 300, name);
  }
  assert.equal((await numbers()).at(-1), 19);
});

test('details that are no JSON are left out, the event is not', async () => {
  const log = await openLog();
  log.record(event({ n: 1n }));
  await log.close();
  assert.deepEqual(await numbers(), [undefined]);
});

async function failingLog(limits: { maxQueuedBytes?: number } = {}): Promise<FileAuditLog> {
  // The first event fills the file beyond its bound; the next write sets it aside, which fails without the file.
  const log = await openLog({ maxFileBytes: 1, ...limits });
  log.record(event({ n: 0 }));
  await log.flush();
  await rm(path.join(directory, 'audit.jsonl'));
  return log;
}

test('a failing disk is told to flush, to health and to the log, and nothing is lost once it works', async () => {
  const log = await failingLog();
  log.record(event({ n: 1 }));
  await assert.rejects(log.flush(), { code: 'storage-failure' });
  assert.match(log.problem() ?? '', /ENOENT/);
  log.record(event({ n: 2 }));
  await writeFile(path.join(directory, 'audit.jsonl'), '');
  await log.flush();
  assert.equal(log.problem(), undefined);
  assert.deepEqual(await numbers(), [1, 2]);
  assert.deepEqual(messages, ['the audit log cannot be written', 'the audit log is written again']);
  await log.close();
});

test('the queue is bounded; what was dropped is recorded', async () => {
  const log = await failingLog({ maxQueuedBytes: 300 });
  for (let n = 1; n <= 10; n += 1) log.record(event({ n }));
  await assert.rejects(log.flush(), { code: 'storage-failure' });
  await writeFile(path.join(directory, 'audit.jsonl'), '');
  await log.flush();
  await log.close();
  const written: readonly Record<string, unknown>[] = (await readAll()).map(
    (line) => JSON.parse(line).details,
  );
  assert.deepEqual(written, [
    { n: 1 },
    { n: 2 },
    { n: 3 },
    { action: 'audit-events-dropped', dropped: 7 },
  ]);
});

async function readAll(): Promise<readonly string[]> {
  const parts = (await readdir(directory)).filter((name) => name.endsWith('.jsonl')).toSorted();
  const texts = await Promise.all(
    parts.map((name) => readFile(path.join(directory, name), 'utf8')),
  );
  return texts.flatMap((text) => text.split('\n').slice(0, -1));
}

test('close gives up on a failing disk and says how much is lost', async () => {
  const log = await failingLog();
  log.record(event({ n: 1 }));
  await log.close();
  assert.ok(messages.includes('audit events are lost'));
});
