import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import type {
  Compare,
  KeyValue,
  Operation,
  OperationResult,
  Transaction,
  TransactionResult,
  WatchBatch,
  WatchEvent,
} from '../contract/coordinator.js';
import { bytes, single, take, type TestSpace, text } from './coordinator-harness.js';

/**
 * Random transactions against the store and against the plainest possible model of it; both must give the same
 * answers, end with the same entries, and a watch must have told the same story.
 */
export function defineCoordinatorModel(open: () => TestSpace): void {
  test('answers like the model', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(transactions, { minLength: 1, maxLength: 12 }), async (plan) => {
        const space = open();
        const base = await space.put('start', '');
        await space.coordinator.transaction(single({ type: 'delete', ...space.all }));
        const model = new Model(base + 1);
        for (const outline of plan) {
          const transaction = place(outline, space, base + 1);
          const expected = model.transaction(transaction);
          if (expected === undefined) {
            await assert.rejects(space.coordinator.transaction(transaction), {
              code: 'invalid-argument',
            });
          } else {
            assert.deepEqual(
              readable(await space.coordinator.transaction(transaction)),
              readable(expected),
            );
          }
        }
        const { key, rangeEnd } = space.all;
        const { entries } = await space.coordinator.range(key, { rangeEnd });
        assert.deepEqual(entries.map(readableEntry), model.all().map(readableEntry));
        const leaving = new AbortController();
        const watch = space.coordinator.watch(key, {
          rangeEnd,
          fromRevision: base + 2,
          signal: leaving.signal,
        });
        const count = model.batches.length;
        const told = count === 0 ? [] : await take(watch, count);
        leaving.abort();
        assert.deepEqual(told.map(readableBatch), model.batches.map(readableBatch));
        await space.coordinator.transaction(single({ type: 'delete', ...space.all }));
      }),
      { numRuns: open().harness.modelRuns ?? 150 },
    );
  });
}

const names = fc.constantFrom('a', 'a-', 'a/', 'a/b', 'a/c', 'b', 'ä', '\uffff', '\u{10000}');
const values = fc.constantFrom('', 'x', 'y');
/** Added to the revision at which the run began; 0 stays 0, "absent". */
const numbers = fc.integer({ min: 0, max: 8 });
const operators = fc.constantFrom('=' as const, '!=' as const, '<' as const, '>' as const);

const compares = fc.oneof(
  fc.record({
    target: fc.constantFrom('createRevision' as const, 'modRevision' as const, 'version' as const),
    name: names,
    end: fc.option(names),
    op: operators,
    number: numbers,
  }),
  fc.record({
    target: fc.constant('value' as const),
    name: names,
    op: fc.constantFrom('=' as const, '!=' as const),
    value: values,
  }),
);
const operations = fc.oneof(
  fc.record({ type: fc.constant('put' as const), name: names, value: values }),
  fc.record({ type: fc.constant('delete' as const), name: names, end: fc.option(names) }),
  fc.record({
    type: fc.constant('get' as const),
    name: names,
    end: fc.option(names),
    limit: fc.option(fc.integer({ min: 1, max: 3 })),
  }),
);
const transactions = fc.record({
  compares: fc.array(compares, { maxLength: 3 }),
  success: fc.array(operations, { maxLength: 5 }),
  failure: fc.array(operations, { maxLength: 3 }),
});

type Outline = typeof transactions extends fc.Arbitrary<infer T> ? T : never;
type OperationOutline = Outline['success'][number];

/** The transaction of an outline, with keys in the test's space and revisions from its start. */
function place(outline: Outline, space: TestSpace, base: number): Transaction {
  const range = (name: string, end: string | null): { key: string; rangeEnd?: string } =>
    end === null ? { key: space.key(name) } : { key: space.key(name), rangeEnd: space.key(end) };
  const operation = (it: OperationOutline): Operation => {
    if (it.type === 'put') return { type: 'put', key: space.key(it.name), value: bytes(it.value) };
    if (it.type === 'delete') return { type: 'delete', ...range(it.name, it.end) };
    return {
      type: 'get',
      ...range(it.name, it.end),
      ...(it.limit === null ? {} : { limit: it.limit }),
    };
  };
  const compare = (it: Outline['compares'][number]): Compare => {
    if (it.target === 'value') {
      return { key: space.key(it.name), target: 'value', op: it.op, operand: bytes(it.value) };
    }
    const { target, op, number } = it;
    const operand = target === 'version' || number === 0 ? number : base + number;
    return { ...range(it.name, it.end), target, op, operand };
  };
  return {
    compares: outline.compares.map(compare),
    success: outline.success.map(operation),
    failure: outline.failure.map(operation),
  };
}

class Model {
  readonly batches: WatchBatch[] = [];
  #entries: readonly KeyValue[] = [];
  #revision: number;

  constructor(revision: number) {
    this.#revision = revision;
  }

  all(): readonly KeyValue[] {
    return this.#entries;
  }

  /** Undefined when it must be refused. */
  transaction(transaction: Transaction): TransactionResult | undefined {
    if ([transaction.success, transaction.failure].some(clashes)) return undefined;
    const succeeded = transaction.compares.every((compare) => this.#holds(compare));
    const events: WatchEvent[] = [];
    const branch = succeeded ? transaction.success : transaction.failure;
    const results = branch.map((operation) => this.#execute(operation, events));
    if (events.length > 0) {
      this.#revision += 1;
      this.batches.push({ revision: this.#revision, events });
    }
    return { succeeded, revision: this.#revision, results };
  }

  #holds(compare: Compare): boolean {
    if (compare.target === 'value') {
      const [entry] = this.#find(compare.key);
      return (
        entry !== undefined &&
        (text(entry.value) === text(compare.operand)) === (compare.op === '=')
      );
    }
    const { target, op, operand } = compare;
    const found = this.#find(compare.key, compare.rangeEnd).map((entry) => entry[target]);
    return (found.length === 0 ? [0] : found).every((actual) => {
      if (op === '<') return actual < operand;
      if (op === '>') return actual > operand;
      return (actual === operand) === (op === '=');
    });
  }

  #execute(operation: Operation, events: WatchEvent[]): OperationResult {
    const { key } = operation;
    const modRevision = this.#revision + 1;
    if (operation.type === 'put') {
      const [old] = this.#find(key);
      const entry = {
        key,
        value: operation.value,
        createRevision: old?.createRevision ?? modRevision,
        modRevision,
        version: (old?.version ?? 0) + 1,
      };
      this.#entries = [...this.#entries.filter((other) => other.key !== key), entry].sort((a, b) =>
        byBytes(a.key, b.key),
      );
      events.push({ type: 'put', entry });
      return { type: 'put' };
    }
    const found = this.#find(key, operation.rangeEnd);
    if (operation.type === 'delete') {
      this.#entries = this.#entries.filter((entry) => !found.includes(entry));
      for (const entry of found) events.push({ type: 'delete', key: entry.key, modRevision });
      return { type: 'delete', deleted: found.length };
    }
    const limit = operation.limit ?? found.length;
    return { type: 'get', entries: found.slice(0, limit), more: found.length > limit };
  }

  #find(key: string, rangeEnd?: string): readonly KeyValue[] {
    return this.#entries.filter((entry) => within(entry.key, key, rangeEnd));
  }
}

function clashes(branch: readonly Operation[]): boolean {
  const puts = branch.filter(({ type }) => type === 'put').map(({ key }) => key);
  if (new Set(puts).size < puts.length) return true;
  return branch.some(
    (operation) =>
      operation.type === 'delete' &&
      puts.some((key) => within(key, operation.key, operation.rangeEnd)),
  );
}

function within(key: string, start: string, rangeEnd: string | undefined): boolean {
  if (rangeEnd === undefined) return key === start;
  return byBytes(start, key) <= 0 && byBytes(key, rangeEnd) < 0;
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function readable(result: TransactionResult): unknown {
  return {
    ...result,
    results: result.results.map((one) =>
      one.type === 'get' ? { ...one, entries: one.entries.map(readableEntry) } : one,
    ),
  };
}

function readableEntry(entry: KeyValue): unknown {
  return { ...entry, value: text(entry.value) };
}

function readableBatch(batch: WatchBatch): unknown {
  return {
    revision: batch.revision,
    events: batch.events.map((event) =>
      event.type === 'put' ? readableEntry(event.entry) : event,
    ),
  };
}
