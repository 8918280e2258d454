import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PushRequest } from '../contract/backend.js';
import type { KeyValue } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { PushesAhead, type PushAheadDependencies } from './push-ahead.js';
import { encodeRecord, type RepositoryRecord } from './records.js';
import { plainRecord } from './testing/plain-record.js';

const recordOf = (id: string, name: string): RepositoryRecord => ({
  id,
  name,
  ...plainRecord,
});

const headOf = (key: string, generation: number): KeyValue => ({
  key,
  value: encodeRecord({ generation, digest: '' }),
  createRevision: 1,
  modRevision: 100 + generation,
  version: 1,
});

const request = (pack: PushRequest['pack']): PushRequest => ({
  pushId: 'a-push',
  actor: 'somebody',
  commands: [],
  refused: new Map(),
  atomic: false,
  pushOptions: [],
  pack,
  shallow: [],
  progress: () => undefined,
  quiet: true,
  signal: new AbortController().signal,
});
const withPack = request((async function* none() {})());

/** A registry that knows `team/app`, and what is asked. */
function scene(overrides: Partial<PushAheadDependencies> = {}): {
  readonly asked: string[];
  readonly ahead: PushesAhead;
} {
  const asked: string[] = [];
  let generation = 6;
  const record = recordOf('one', 'team/app');
  return {
    asked,
    ahead: new PushesAhead({
      registry: {
        recalledId: () => 'one',
        lookUp: async (name) => {
          asked.push(`look up ${name}`);
          return { record, revision: 3 };
        },
      },
      coordinator: {
        range: async (key) => {
          asked.push(key);
          generation += 1;
          return { entries: [headOf(key, generation)], more: false, revision: 9 };
        },
      },
      pipeline: {
        allowance: async ({ id }) => {
          asked.push(`allowance ${id}`);
          return undefined;
        },
        foreseeAllowance: ({ id, name }) => {
          asked.push(`foresee allowance ${id} ${name}`);
          return async () => undefined;
        },
      },
      stored: async (id) => {
        asked.push(`record ${id}`);
        return { record: { ...record, id }, revision: 4 };
      },
      ...overrides,
    }),
  };
}

test('what a push begins with is asked in the turn in which its repository is looked up', async () => {
  const { asked, ahead } = scene();
  const finding = ahead.find('team/app');
  const atOnce = ['heads/one', 'foresee allowance one team/app', 'look up team/app'];
  assert.deepEqual(asked, atOnce);
  const found = await finding;
  assert.ok(found !== undefined);
  const { repository, ground, ahead: basis } = await ahead.beginning(found, withPack);
  assert.equal(repository, found);
  assert.deepEqual(basis, {
    record: found,
    configRevision: 3,
    head: { generation: 7, digest: '' },
    headRevision: 107,
    headValue: headOf('', 7).value,
  });
  assert.deepEqual(ground, { basis: 7, allowance: undefined });
  assert.deepEqual(asked, atOnce, 'and not again');
});

test('each push has what was asked for it, once', async () => {
  const { asked, ahead } = scene();
  const [first, second] = [await ahead.find('team/app'), await ahead.find('team/app')];
  assert.ok(first !== undefined && second !== undefined);
  assert.equal((await ahead.beginning(second, withPack)).ground?.basis, 8);
  assert.equal((await ahead.beginning(first, withPack)).ground?.basis, 7);
  asked.length = 0;
  assert.equal((await ahead.beginning(first, withPack)).ground?.basis, 9);
  assert.deepEqual(asked.toSorted(), ['allowance one', 'heads/one', 'record one']);
});

test('a push that brings no pack asks nothing more', async () => {
  const { asked, ahead } = scene();
  const found = await ahead.find('team/app');
  assert.ok(found !== undefined);
  asked.length = 0;
  const { ground, ahead: basis } = await ahead.beginning(found, request(undefined));
  assert.equal(ground, undefined);
  assert.equal(basis.head.generation, 7);
  assert.deepEqual(asked, []);
});

test('a name that has gone to another repository', async () => {
  const other = recordOf('another', 'team/app');
  const { asked, ahead } = scene({
    registry: {
      recalledId: () => 'one',
      lookUp: async () => ({ record: other, revision: 3 }),
    },
  });
  const found = await ahead.find('team/app');
  assert.equal(found?.id, 'another');
  asked.length = 0;
  const { repository, ground } = await ahead.beginning(found, withPack);
  assert.deepEqual([repository.id, ground?.basis], ['another', 8]);
  assert.deepEqual(asked.toSorted(), ['allowance another', 'heads/another', 'record another']);
});

test('what could not be asked ahead is asked again', async () => {
  let fails = true;
  const { ahead } = scene({
    coordinator: {
      range: async (key) => {
        if (fails) throw new QuorateError('unavailable', 'the coordinator does not answer');
        return { entries: [headOf(key, 3)], more: false, revision: 9 };
      },
    },
  });
  const found = await ahead.find('team/app');
  assert.ok(found !== undefined);
  await assert.rejects(ahead.beginning(found, withPack), { code: 'unavailable' });
  const again = await ahead.find('team/app');
  assert.ok(again !== undefined);
  fails = false;
  assert.equal((await ahead.beginning(again, withPack)).ground?.basis, 3);
});
