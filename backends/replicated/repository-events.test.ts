import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { keys, prefixEnd } from '../contract/keys.js';
import type { PushPipeline, RepositoryEvent } from '../contract/pipeline.js';
import {
  type LocalFixture,
  permissivePipeline,
  startLocal,
} from '../local/testing/local-fixture.js';
import { until } from '../contract/testing/until.js';

// Changes of repositories are told after they happened, at least once, whatever comes between.

let fixture: LocalFixture | undefined;
afterEach(async () => {
  await fixture?.remove();
  fixture = undefined;
});

interface Listening {
  readonly told: RepositoryEvent[];
  /** How many tellings are to fail. */
  failures: number;
  readonly pipeline: PushPipeline;
}

function listening(failures = 0): Listening {
  const listener: Listening = {
    told: [],
    failures,
    pipeline: {
      ...permissivePipeline,
      repositoryChanged: async (event) => {
        listener.failures -= 1;
        if (listener.failures >= 0) throw new Error('not now');
        listener.told.push(event);
      },
    },
  };
  return listener;
}

async function untold({ coordinator }: LocalFixture): Promise<readonly string[]> {
  const { entries } = await coordinator.range(keys.repositoryEvents, {
    rangeEnd: prefixEnd(keys.repositoryEvents),
  });
  return entries.map(({ key }) => key);
}

const wanted = {
  name: 'team/app',
  defaultBranch: 'main',
  objectFormat: 'sha1',
  settings: {},
  access: { public: false, grants: {} },
} as const;

test('every change is told once, with who made it, in order', async () => {
  const listener = listening();
  fixture = await startLocal({ pipeline: listener.pipeline });
  const { repositories } = fixture.backend;
  const { id } = await repositories.create(wanted, 'ann');
  const patch = {
    settings: { 'receive.denyDeletes': 'true' },
    access: { public: true, grants: {} },
  };
  await repositories.update(id, () => patch, 'bob');
  await repositories.update(id, () => ({ settings: { 'receive.denyDeletes': null } }), 'bob');
  await repositories.rename(id, 'team/lib', 'cy');
  await repositories.delete(id);
  await until('5 are told', () => listener.told.length === 5);
  assert.deepEqual(
    listener.told.map(({ name, epoch, actor, change: what }) => ({ name, epoch, actor, ...what })),
    [
      { name: 'team/app', epoch: 1, actor: 'ann', action: 'created' },
      {
        name: 'team/app',
        epoch: 2,
        actor: 'bob',
        action: 'changed',
        public: true,
        settings: { 'receive.denyDeletes': 'true' },
      },
      {
        name: 'team/app',
        epoch: 3,
        actor: 'bob',
        action: 'changed',
        settings: { 'receive.denyDeletes': null },
      },
      { name: 'team/lib', epoch: 4, actor: 'cy', action: 'renamed', from: 'team/app' },
      { name: 'team/lib', epoch: 5, actor: 'system', action: 'deleted' },
    ],
  );
  const left = fixture;
  await until('all is told', async () => (await untold(left)).length === 0);
});

test('what did not happen, and grants, are not told', async () => {
  const listener = listening();
  fixture = await startLocal({ pipeline: listener.pipeline });
  const { repositories } = fixture.backend;
  const { id } = await repositories.create(wanted);
  await assert.rejects(repositories.create(wanted));
  await assert.rejects(repositories.rename(id, wanted.name));
  await repositories.update(id, () => ({}));
  await repositories.update(id, ({ access }) => ({
    access: { ...access, grants: { ann: 'write' } },
  }));
  await repositories.delete(id);
  await until('2 are told', () => listener.told.length === 2);
  assert.deepEqual(
    listener.told.map(({ change }) => change.action),
    ['created', 'deleted'],
  );
});

test('who cannot be told now is told later; a restart loses nothing', async () => {
  const deaf = listening(Number.POSITIVE_INFINITY);
  const first = await startLocal({ pipeline: deaf.pipeline });
  const { id } = await first.backend.repositories.create(wanted, 'ann');
  await first.backend.repositories.rename(id, 'team/lib', 'ann');
  await first.stop();
  const listener = listening(2);
  fixture = await startLocal({
    directory: first.directory,
    source: first.source,
    pipeline: listener.pipeline,
  });
  await until('2 are told', () => listener.told.length === 2);
  assert.deepEqual(
    listener.told.map(({ change }) => change.action),
    ['created', 'renamed'],
  );
});

test('an event that cannot be read is in the way of no other', async () => {
  const listener = listening();
  fixture = await startLocal({ pipeline: listener.pipeline });
  await fixture.coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.repositoryEvent('0', 'x', 1), value: Buffer.from('{') }],
    failure: [],
  });
  await fixture.backend.repositories.create(wanted);
  await until('1 are told', () => listener.told.length === 1);
  const left = fixture;
  await until('all is told', async () => (await untold(left)).length === 0);
});
