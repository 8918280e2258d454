import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Compare, Operation, Transaction } from '../contract/coordinator.js';
import { absent, bytes, single, type TestSpace, text } from './coordinator-harness.js';

const invalid = { code: 'invalid-argument' };

/** Transactions, gets and ranges. */
export function defineCoordinatorTransactions(open: () => TestSpace): void {
  describe('transactions', () => {
    test('an entry carries its revisions and its version', async () => {
      const space = open();
      assert.equal(await space.get('k'), undefined);
      const first = await space.put('k', 'one');
      const second = await space.put('k', 'two');
      assert.equal(second, first + 1);
      const entry = await space.get('k');
      assert.deepEqual(
        { ...entry, value: text(entry?.value ?? bytes('absent')) },
        {
          key: space.key('k'),
          value: 'two',
          createRevision: first,
          modRevision: second,
          version: 2,
        },
      );
      await space.remove('k');
      assert.equal(await space.get('k'), undefined);
      const again = await space.put('k', '');
      const reborn = await space.get('k');
      assert.deepEqual([reborn?.createRevision, reborn?.version], [again, 1]);
      assert.equal(reborn?.value.length, 0);
    });
    test('one that writes advances the revision by exactly one, others not at all', async () => {
      const space = open();
      const base = await space.put('a', '1');
      const { revision } = await space.coordinator.transaction({
        compares: [],
        success: [
          { type: 'put', key: space.key('b'), value: bytes('1') },
          { type: 'put', key: space.key('c'), value: bytes('1') },
          { type: 'delete', key: space.key('a') },
        ],
        failure: [],
      });
      assert.equal(revision, base + 1);
      assert.equal((await space.get('b'))?.modRevision, revision);
      assert.equal((await space.get('c'))?.modRevision, revision);
      assert.equal(await space.remove('a'), revision, 'deleting what is absent writes nothing');
      const read = await space.coordinator.transaction(
        single({ type: 'get', key: space.key('b') }),
      );
      assert.equal(read.revision, revision);
      const none = await space.coordinator.transaction({ compares: [], success: [], failure: [] });
      assert.equal(none.revision, revision);
    });
    test('the failure branch runs when a compare fails', async () => {
      const space = open();
      await space.put('k', 'here');
      const result = await space.coordinator.transaction({
        compares: [absent(space.key('k'))],
        success: [{ type: 'put', key: space.key('won'), value: bytes('') }],
        failure: [
          { type: 'get', key: space.key('k') },
          { type: 'put', key: space.key('lost'), value: bytes('') },
        ],
      });
      assert.equal(result.succeeded, false);
      assert.deepEqual(
        result.results.map(({ type }) => type),
        ['get', 'put'],
      );
      assert.deepEqual(await space.names(), ['k', 'lost']);
    });
    test('gets see the puts and deletes before them, and not those after', async () => {
      const space = open();
      await space.put('old', 'x');
      const get: Operation = { type: 'get', ...space.all };
      const { results, revision } = await space.coordinator.transaction({
        compares: [],
        success: [
          get,
          { type: 'put', key: space.key('new'), value: bytes('y') },
          get,
          { type: 'delete', ...space.all, key: space.key('old'), rangeEnd: space.key('old0') },
          get,
        ],
        failure: [],
      });
      const seen = results.map((result) =>
        result.type === 'get' ? result.entries.map(({ key }) => key) : [],
      );
      assert.deepEqual(seen, [
        [space.key('old')],
        [],
        [space.key('new'), space.key('old')],
        [],
        [space.key('new')],
      ]);
      assert.deepEqual(results[3], { type: 'delete', deleted: 1 });
      const last = results[4];
      assert.ok(last?.type === 'get');
      assert.equal(last.entries[0]?.modRevision, revision);
    });
    test('deletes a range and counts', async () => {
      const space = open();
      for (const name of ['a', 'b', 'c', 'd']) await space.put(name, name);
      const { results } = await space.coordinator.transaction(
        single({ type: 'delete', key: space.key('b'), rangeEnd: space.key('d') }),
      );
      assert.deepEqual(results, [{ type: 'delete', deleted: 2 }]);
      assert.deepEqual(await space.names(), ['a', 'd']);
    });
    test('concurrent compare-and-swap increments lose nothing', async () => {
      const space = open();
      await space.put('n', '0');
      const increment = async (): Promise<void> => {
        for (;;) {
          const entry = await space.get('n');
          assert.ok(entry);
          const { succeeded } = await space.coordinator.transaction({
            compares: [
              {
                key: entry.key,
                target: 'modRevision',
                op: '=',
                operand: entry.modRevision,
              },
            ],
            success: [
              { type: 'put', key: entry.key, value: bytes(String(Number(text(entry.value)) + 1)) },
            ],
            failure: [],
          });
          if (succeeded) return;
        }
      };
      const workers = Array.from({ length: 8 }, async () => {
        for (let i = 0; i < 10; i += 1) await increment();
      });
      await Promise.all(workers);
      const entry = await space.get('n');
      assert.equal(text(entry?.value ?? bytes('')), '80');
      assert.equal(entry?.version, 81);
    });
  });
  defineCompares(open);
  defineLimits(open);
  defineRanges(open);
}

function defineCompares(open: () => TestSpace): void {
  describe('compares', () => {
    for (const target of ['createRevision', 'modRevision', 'version'] as const) {
      test(`${target} with every operator`, async () => {
        const space = open();
        await space.put('k', '1');
        await space.put('k', '2');
        const entry = await space.get('k');
        assert.ok(entry);
        const actual = entry[target];
        for (const [key, value] of [
          [space.key('k'), actual],
          [space.key('absent'), 0],
        ] as const) {
          for (const operand of [Math.max(0, value - 1), value, value + 1]) {
            assert.equal(await holds(space, { key, target, op: '=', operand }), value === operand);
            assert.equal(await holds(space, { key, target, op: '!=', operand }), value !== operand);
            assert.equal(await holds(space, { key, target, op: '<', operand }), value < operand);
            assert.equal(await holds(space, { key, target, op: '>', operand }), value > operand);
          }
        }
      });
      test(`${target} over a range holds for every key or not at all`, async () => {
        const space = open();
        const over = { ...space.all, target } as const;
        assert.equal(await holds(space, { ...over, op: '=', operand: 0 }), true, 'empty range');
        await space.put('b', '1');
        assert.equal(await holds(space, { ...over, op: '=', operand: 0 }), false);
        assert.equal(await holds(space, { ...over, op: '>', operand: 0 }), true);
        await space.put('a', '1');
        await space.put('a', '2');
        const largest = (await space.get('a'))?.[target] ?? 0;
        const smallest = (await space.get('b'))?.[target] ?? 0;
        assert.ok(smallest < largest);
        assert.equal(await holds(space, { ...over, op: '<', operand: largest }), false);
        assert.equal(await holds(space, { ...over, op: '<', operand: largest + 1 }), true);
        assert.equal(await holds(space, { ...over, op: '>', operand: smallest }), false);
        assert.equal(await holds(space, { ...over, op: '!=', operand: smallest }), false);
        const beside: Compare = {
          key: space.key('a0'),
          rangeEnd: space.key('b'),
          target,
          op: '=',
          operand: 0,
        };
        assert.equal(await holds(space, beside), true, 'the end is exclusive');
        assert.equal(await holds(space, { ...beside, key: space.key('a') }), false);
      });
    }
    test('value, which is false for an absent key either way', async () => {
      const space = open();
      await space.put('k', 'v');
      await space.put('empty', '');
      const value = async (name: string, op: '=' | '!=', operand: string): Promise<boolean> =>
        holds(space, { key: space.key(name), target: 'value', op, operand: bytes(operand) });
      assert.equal(await value('k', '=', 'v'), true);
      assert.equal(await value('k', '=', 'vv'), false);
      assert.equal(await value('k', '!=', 'v'), false);
      assert.equal(await value('k', '!=', ''), true);
      assert.equal(await value('empty', '=', ''), true);
      assert.equal(await value('absent', '=', ''), false);
      assert.equal(await value('absent', '!=', 'x'), false);
    });
    test('all of them must hold', async () => {
      const space = open();
      const result = await space.coordinator.transaction({
        compares: [
          absent(space.key('a')),
          { key: space.key('b'), target: 'version', op: '=', operand: 1 },
        ],
        success: [{ type: 'put', key: space.key('a'), value: bytes('') }],
        failure: [],
      });
      assert.equal(result.succeeded, false);
      assert.deepEqual(await space.names(), []);
    });
  });
}

function defineLimits(open: () => TestSpace): void {
  describe('limits', () => {
    test('128 operations in each branch and 128 compares are allowed, 129 are not', async () => {
      const space = open();
      const puts = (count: number): readonly Operation[] => many(count, (i) => put(space, `${i}`));
      const compares = (count: number): readonly Compare[] =>
        many(count, (i) => absent(space.key(`${i}`)));
      await refused(space, { success: puts(129) });
      await refused(space, { failure: puts(129) });
      await refused(space, { compares: compares(129) });
      const result = await space.coordinator.transaction({
        compares: compares(128),
        success: puts(128),
        failure: puts(128),
      });
      assert.equal(result.succeeded, true);
      assert.equal((await space.names()).length, 128);
    });
    test('more than 1.5 MiB is refused; 1 MiB is not', async () => {
      const space = open();
      const half = 'x'.repeat(2 ** 19);
      await refused(space, { success: ['a', 'b', 'c'].map((name) => put(space, name, half)) });
      await refused(space, {
        success: [put(space, 'a', half), put(space, 'b', half)],
        failure: [put(space, 'a', half)],
      });
      await space.coordinator.transaction({
        compares: [],
        success: [put(space, 'a', half), put(space, 'b', half)],
        failure: [],
      });
      assert.equal((await space.get('b'))?.value.length, 2 ** 19);
    });
    test('one key twice in a branch is refused', async () => {
      const space = open();
      const twice = [put(space, 'k'), put(space, 'k')];
      await refused(space, { success: twice });
      await refused(space, { compares: [absent(space.key('k'))], failure: twice });
      const clash: Operation = { type: 'delete', key: space.key('k') };
      await refused(space, { success: [put(space, 'k'), clash] });
      await refused(space, { success: [clash, put(space, 'k')] });
      await refused(space, { success: [put(space, 'k'), { type: 'delete', ...space.all }] });
      await space.coordinator.transaction({
        compares: [],
        success: [put(space, 'k'), { ...clash, key: space.key('j'), rangeEnd: space.key('k') }],
        failure: [clash],
      });
    });
    test('keys: not empty, at most 1,024 bytes, well-formed', async () => {
      const space = open();
      const longest = space.key('é'.repeat(500)).slice(0, 37) + 'x'.repeat(1_024 - 37);
      for (const key of ['', `${longest}y`, `${space.key('')}\ud800`]) {
        await refused(space, { success: [{ type: 'put', key, value: bytes('') }] });
        await refused(space, { compares: [absent(key)] });
        await assert.rejects(space.coordinator.get(key), invalid);
        await assert.rejects(space.coordinator.range(key), invalid);
        await assert.rejects(
          async () => space.coordinator.watch(key, { signal: AbortSignal.abort() }),
          invalid,
        );
      }
      await space.coordinator.transaction(single({ type: 'put', key: longest, value: bytes('v') }));
      assert.equal((await space.coordinator.get(longest))?.key, longest);
    });
    test('limits and operands are whole numbers', async () => {
      const space = open();
      for (const limit of [0, -1, 1.5]) {
        await assert.rejects(space.coordinator.range(space.key('k'), { limit }), invalid);
        await refused(space, { success: [{ type: 'get', key: space.key('k'), limit }] });
      }
      for (const operand of [-1, 0.5, Number.NaN]) {
        await refused(space, { compares: [{ ...absent(space.key('k')), operand }] });
      }
    });
  });
}

function defineRanges(open: () => TestSpace): void {
  describe('ranges', () => {
    test('are half open and in bytewise order', async () => {
      const space = open();
      // In UTF-16 order the last two would change places.
      const names = ['A', 'a', 'a-b', 'a/', 'a/b', 'ab', 'ä', '\uffff', '\u{10000}'];
      for (const name of [...names].reverse()) await space.put(name, name);
      assert.deepEqual(await space.names(), names);
      const part = await space.coordinator.range(space.key('a/'), { rangeEnd: space.key('a0') });
      assert.deepEqual(
        part.entries.map(({ value }) => text(value)),
        ['a/', 'a/b'],
      );
      assert.equal(part.more, false);
      const one = await space.coordinator.range(space.key('a'));
      assert.deepEqual(
        one.entries.map(({ value }) => text(value)),
        ['a'],
      );
      const nothing = await space.coordinator.range(space.key('b'), { rangeEnd: space.key('c') });
      assert.deepEqual(nothing.entries, []);
    });
    test('stop at the limit and say that there is more', async () => {
      const space = open();
      for (const name of ['a', 'b', 'c']) await space.put(name, name);
      for (const [limit, more] of [
        [1, true],
        [2, true],
        [3, false],
        [4, false],
      ] as const) {
        const { key, rangeEnd } = space.all;
        const range = await space.coordinator.range(key, { rangeEnd, limit });
        assert.deepEqual([range.entries.length, range.more], [Math.min(limit, 3), more]);
        const { results } = await space.coordinator.transaction(
          single({ type: 'get', key, rangeEnd, limit }),
        );
        assert.ok(results[0]?.type === 'get');
        assert.deepEqual(
          [results[0].entries.length, results[0].more],
          [range.entries.length, more],
        );
      }
    });
    test('give keys and revisions only, on request, and the store’s revision', async () => {
      const space = open();
      const created = await space.put('k', 'value');
      const { entries, revision } = await space.coordinator.range(space.key('k'), {
        keysOnly: true,
      });
      assert.equal(entries[0]?.value.length, 0);
      assert.equal(entries[0]?.createRevision, created);
      assert.equal(revision, created);
      const stale = await space.coordinator.range(space.key('k'), { linearizable: false });
      assert.equal(stale.entries[0]?.key, space.key('k'));
    });
    test('see every transaction that was acknowledged before', async () => {
      const space = open();
      for (let i = 0; i < 100; i += 1) {
        const revision = await space.put('k', String(i));
        assert.equal((await space.get('k'))?.modRevision, revision);
        const range = await space.coordinator.range(space.key('k'));
        assert.equal(range.entries[0]?.modRevision, revision);
      }
    });
    test('are refused to a caller who gave up', async () => {
      const space = open();
      const signal = AbortSignal.abort();
      const cancelled = { code: 'cancelled' };
      await assert.rejects(space.coordinator.get(space.key('k'), { signal }), cancelled);
      await assert.rejects(space.coordinator.range(space.key('k'), { signal }), cancelled);
    });
  });
}

async function holds(space: TestSpace, compare: Compare): Promise<boolean> {
  const result = await space.coordinator.transaction({
    compares: [compare],
    success: [],
    failure: [],
  });
  return result.succeeded;
}

function many<T>(count: number, make: (i: number) => T): readonly T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

function put(space: TestSpace, name: string, value = ''): Operation {
  return { type: 'put', key: space.key(name), value: bytes(value) };
}

async function refused(space: TestSpace, parts: Partial<Transaction>): Promise<void> {
  const transaction = { compares: [], success: [], failure: [], ...parts };
  await assert.rejects(space.coordinator.transaction(transaction), invalid);
  assert.deepEqual(await space.names(), [], 'nothing may have been written');
}
