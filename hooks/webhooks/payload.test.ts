import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogEntry } from '../../backends/contract/repository.js';
import { deliveryId, isDeliveryId } from './delivery.js';
import { bodyOf, type Occurrence, occurrencesOf } from './payload.js';

const zero = '0'.repeat(40);
const oid = (digit: string): string => digit.repeat(40);
const repository = { id: 'r1', name: 'team/app' };

function entry(updates: LogEntry['updates'], more: Partial<LogEntry> = {}): LogEntry {
  return {
    generation: 7,
    pushId: 'p1',
    updates,
    prepared: [],
    digest: '',
    actor: 'ann',
    atMs: Date.UTC(2026, 0, 2),
    ...more,
  };
}

function told(occurrence: Occurrence | undefined): Record<string, unknown> {
  assert.ok(occurrence !== undefined);
  const body = bodyOf(occurrence, { delivery: 'd1', publicUrl: 'https://git.example.org' });
  const parsed: unknown = JSON.parse(Buffer.from(body).toString('utf8'));
  assert.ok(typeof parsed === 'object' && parsed !== null);
  return { ...parsed };
}

test('a push is one of each event that it is, with the refs that the event is about', () => {
  const occurrences = occurrencesOf(
    repository,
    entry([
      { ref: 'refs/heads/main', oldOid: oid('a'), newOid: oid('b') },
      { ref: 'refs/heads/new', oldOid: zero, newOid: oid('b') },
      { ref: 'refs/tags/gone', oldOid: oid('c'), newOid: zero },
      { ref: 'refs/notes/new', oldOid: zero, newOid: oid('d') },
    ]),
  );
  assert.deepEqual(
    occurrences.map(({ event }) => event),
    ['push', 'create', 'delete'],
  );
  const [push, create, gone] = occurrences.map(told);
  assert.deepEqual(push?.['repository'], {
    ...repository,
    url: 'https://git.example.org/team/app.git',
  });
  assert.equal(push?.['at'], '2026-01-02T00:00:00.000Z');
  assert.equal(push['updateCount'], 4);
  assert.equal(push['pushId'], 'p1');
  assert.deepEqual(create?.['updates'], [
    { ref: 'refs/heads/new', kind: 'branch', change: 'create', old: zero, new: oid('b') },
  ]);
  assert.deepEqual(gone?.['updates'], [
    { ref: 'refs/tags/gone', kind: 'tag', change: 'delete', old: oid('c'), new: zero },
  ]);
});

test('an update of a branch creates and deletes nothing', () => {
  const updates = [{ ref: 'refs/heads/main', oldOid: oid('a'), newOid: oid('b') }];
  const events = occurrencesOf(repository, entry(updates)).map(({ event }) => event);
  assert.deepEqual(events, ['push']);
});

test('a body stays small, whatever is pushed, and says that it is not all', () => {
  const updates = Array.from({ length: 50_000 }, (_, n) => ({
    ref: `refs/tags/${'x'.repeat(200)}${n}`,
    oldOid: zero,
    newOid: oid('a'),
  }));
  const options = Array.from({ length: 100 }, (_, n) => `option ${n}`);
  for (const occurrence of occurrencesOf(repository, entry(updates, { pushOptions: options }))) {
    const bytes = bodyOf(occurrence, { delivery: 'd1', publicUrl: undefined });
    assert.ok(bytes.length < 64 * 1024, `${bytes.length} bytes`);
    const body = told(occurrence);
    assert.equal(body['updateCount'], 50_000);
    assert.equal(body['complete'], false);
    assert.ok(Array.isArray(body['updates']) && body['updates'].length > 100);
  }
});

test('a push whose refs nobody knows any more is told all the same', () => {
  const occurrences = occurrencesOf(repository, entry([], { updatesDigest: 'f'.repeat(64) }));
  assert.deepEqual(
    occurrences.map(({ event }) => event),
    ['push', 'create', 'delete'],
  );
  for (const occurrence of occurrences) {
    const { updates, updateCount, complete, generation } = told(occurrence);
    assert.deepEqual(
      { updates, updateCount, complete, generation },
      { updates: [], updateCount: null, complete: false, generation: 7 },
    );
  }
});

test('ids of deliveries: the same for the same event, in the order of time', () => {
  const of = { webhook: 'w1', event: 'push', cause: 'p1' } as const;
  const id = deliveryId(1_700_000_000_000, of);
  assert.ok(isDeliveryId(id), id);
  assert.equal(deliveryId(1_700_000_000_000, of), id);
  assert.ok(deliveryId(1_700_000_000_001, of) > id);
  assert.ok(deliveryId(99, of) < id);
  for (const other of [
    { ...of, webhook: 'w2' },
    { ...of, event: 'create' as const },
    { ...of, cause: 'p2' },
  ]) {
    assert.notEqual(deliveryId(1_700_000_000_000, other), id);
  }
});
