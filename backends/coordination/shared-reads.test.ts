import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Coordinator, KeyValue, RangeResult } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { shareReads } from './shared-reads.js';

interface Question {
  readonly key: string;
  readonly answer: (value: KeyValue | undefined) => void;
  readonly fail: (error: unknown) => void;
}

const never = (): never => assert.fail('not asked here');

/** A coordinator whose answers the test gives. */
function asked(): { readonly coordinator: Coordinator; readonly questions: Question[] } {
  const questions: Question[] = [];
  const ask = (key: string): Promise<KeyValue | undefined> =>
    new Promise((answer, fail) => questions.push({ key, answer, fail }));
  const coordinator: Coordinator = {
    limits: { maxOperations: 128, maxCompares: 128, maxRequestBytes: 1_572_864 },
    get: (key) => ask(key),
    range: async (key): Promise<RangeResult> => {
      const entry = await ask(key);
      return { entries: entry === undefined ? [] : [entry], more: false, revision: 1 };
    },
    transaction: never,
    grantLease: never,
    leaseLeft: never,
    watch: never,
    identity: never,
    ping: never,
    close: () => Promise.resolve(),
  };
  return { coordinator: shareReads(coordinator), questions };
}

const at = (modRevision: number): KeyValue => ({
  key: 'heads/1',
  value: Buffer.from(String(modRevision)),
  createRevision: 1,
  modRevision,
  version: modRevision,
});

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('who comes while a read is on its way shares the next one, not that one', async () => {
  const { coordinator, questions } = asked();
  const first = coordinator.get('heads/1');
  const late = [1, 2, 3].map(() => coordinator.get('heads/1'));
  await settled();
  assert.equal(questions.length, 1, 'one at a time');
  // The first answer was judged before a push that the late ones know of.
  questions[0]?.answer(at(1));
  assert.equal((await first)?.modRevision, 1);
  await settled();
  assert.equal(questions.length, 2, 'all late ones ask once');
  const later = coordinator.get('heads/1');
  questions[1]?.answer(at(2));
  assert.deepEqual(
    (await Promise.all(late)).map((entry) => entry?.modRevision),
    [2, 2, 2],
  );
  await settled();
  assert.equal(questions.length, 3, 'the second had begun as well');
  questions[2]?.answer(at(3));
  assert.equal((await later)?.modRevision, 3);
});

test('an idle key is asked at once, and keys do not wait for each other', async () => {
  const { coordinator, questions } = asked();
  const one = coordinator.get('heads/1');
  const other = coordinator.get('heads/2');
  const range = coordinator.range('heads/1', { rangeEnd: 'heads/9' });
  assert.deepEqual(
    questions.map(({ key }) => key),
    ['heads/1', 'heads/2', 'heads/1'],
  );
  for (const question of questions) question.answer(undefined);
  assert.deepEqual(await Promise.all([one, other]), [undefined, undefined]);
  assert.deepEqual((await range).entries, []);
  const again = coordinator.get('heads/1');
  assert.equal(questions.length, 4);
  questions[3]?.answer(undefined);
  await again;
});

test('a failed read fails those who share it, and the next one is asked all the same', async () => {
  const { coordinator, questions } = asked();
  const failure = new QuorateError('unavailable', 'no quorum');
  const first = assert.rejects(coordinator.get('heads/1'), failure);
  const sharers = [1, 2].map(() => assert.rejects(coordinator.get('heads/1'), failure));
  questions[0]?.fail(failure);
  await first;
  await settled();
  assert.equal(questions.length, 2);
  questions[1]?.fail(failure);
  await Promise.all(sharers);
  const after = coordinator.get('heads/1');
  assert.equal(questions.length, 3);
  questions[2]?.answer(at(4));
  assert.equal((await after)?.modRevision, 4);
});

test('who gives up leaves the others their answer', async () => {
  const { coordinator, questions } = asked();
  const leaving = new AbortController();
  const first = coordinator.get('heads/1', { signal: leaving.signal });
  const gone = coordinator.get('heads/1', { signal: leaving.signal });
  const stays = coordinator.get('heads/1', { signal: new AbortController().signal });
  leaving.abort();
  await assert.rejects(first, { code: 'cancelled' });
  await assert.rejects(gone, { code: 'cancelled' });
  await assert.rejects(coordinator.get('heads/1', { signal: leaving.signal }), {
    code: 'cancelled',
  });
  questions[0]?.answer(at(1));
  await settled();
  assert.equal(questions.length, 2);
  questions[1]?.answer(at(2));
  assert.equal((await stays)?.modRevision, 2);
});

test('stale reads are not shared, and nothing is shared between different ranges', async () => {
  const { coordinator, questions } = asked();
  const reads = [
    coordinator.get('heads/1', { linearizable: false }),
    coordinator.get('heads/1', { linearizable: false }),
    coordinator.range('heads/1', { rangeEnd: 'heads/5' }),
    coordinator.range('heads/1', { rangeEnd: 'heads/9' }),
    coordinator.range('heads/1', { rangeEnd: 'heads/9', limit: 1 }),
    coordinator.range('heads/1', { rangeEnd: 'heads/9', keysOnly: true }),
  ];
  assert.equal(questions.length, reads.length);
  for (const question of questions) question.answer(undefined);
  await Promise.all(reads);
});
