import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { until } from '../contract/testing/until.js';
import { openEmbeddedCoordinator } from '../coordination/embedded/embedded-coordinator.js';
import { createManualClock, silentLogger } from '../coordination/test-environment.js';
import { PushTraces } from './push-trace.js';
import { scan } from './records.js';

const dayMs = 24 * 60 * 60_000;

async function withCoordinator(run: (coordinator: Coordinator) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-traces-'));
  const coordinator = await openEmbeddedCoordinator({
    directory,
    clock: createManualClock(),
    logger: silentLogger,
  });
  try {
    await run(coordinator);
  } finally {
    await coordinator.close();
    await rm(directory, { recursive: true });
  }
}

async function kept(coordinator: Coordinator): Promise<readonly string[]> {
  const ids: string[] = [];
  for await (const { key } of scan(coordinator, keys.traces, { keysOnly: true })) {
    ids.push(key.slice(keys.traces.length));
  }
  return ids;
}

/** Lets a round of writing, or one of looking for old ones, take its turns until nothing changes any more. */
function passUntil(what: () => Promise<boolean>, pass: () => void): Promise<void> {
  return until('it to come to that', async () => {
    if (await what()) return true;
    pass();
    return false;
  });
}

test('stories are told while they wait and after they were written, and no more than so many are kept', async () => {
  await withCoordinator(async (coordinator) => {
    const clock = createManualClock();
    const about = { coordinator, clock, logger: silentLogger, frontEnd: 'one', maxKept: 10 };
    const traces = new PushTraces(about);
    const push = (pushId: string): void =>
      traces.begin({ pushId, repositoryId: 'r', actor: 'ann' }).note('received');
    push('first');
    assert.equal((await traces.find('first'))?.actor, 'ann');
    assert.deepEqual(await kept(coordinator), [], 'a push waits for no story');
    traces.start();
    await passUntil(
      async () => (await kept(coordinator)).length === 1,
      () => clock.advance(500),
    );
    assert.deepEqual((await traces.find('first'))?.steps[0]?.step, 'received');
    for (let number = 0; number < 30; number++) {
      clock.advance(1);
      push(`push-${String(number).padStart(2, '0')}`);
    }
    await passUntil(
      async () => (await kept(coordinator)).includes('push-29'),
      () => clock.advance(500),
    );
    push('last');
    await traces.close();
    const left = await kept(coordinator);
    assert.ok(left.length <= 10, `${left.length} are kept`);
    assert.ok(left.includes('last') && left.includes('push-29') && !left.includes('first'));
  });
});

test('a story can be looked up while it is written, and is written again after a failure', async () => {
  await withCoordinator(async (coordinator) => {
    const clock = createManualClock();
    const answers: ((error?: Error) => void)[] = [];
    const commit = coordinator.transaction.bind(coordinator);
    coordinator.transaction = async (...args) => {
      await new Promise<void>((resolve, reject) => {
        answers.push((error) => (error === undefined ? resolve() : reject(error)));
      });
      return commit(...args);
    };
    const about = { coordinator, clock, logger: silentLogger, frontEnd: 'one' };
    const traces = new PushTraces(about);
    traces.begin({ pushId: 'p', repositoryId: 'r', actor: 'ann' }).note('received');
    traces.start();
    for (const error of [new Error('no answer'), undefined]) {
      await passUntil(
        async () => answers.length === 1,
        () => clock.advance(500),
      );
      assert.equal((await traces.find('p'))?.actor, 'ann');
      answers.pop()?.(error);
    }
    await until('it to be written', async () => (await kept(coordinator)).length === 1);
    assert.equal((await traces.find('p'))?.actor, 'ann');
    await traces.close();
  });
});

test('a story that goes on is written when it rests, once', async () => {
  await withCoordinator(async (coordinator) => {
    const clock = createManualClock();
    const traces = new PushTraces({ coordinator, clock, logger: silentLogger, frontEnd: 'one' });
    const versionOf = async (pushId: string): Promise<number> =>
      (await coordinator.get(keys.trace(pushId)))?.version ?? 0;
    const busy = traces.begin({ pushId: 'busy', repositoryId: 'r', actor: 'ann' });
    traces.start();
    for (let number = 0; number < 10; number++) {
      busy.note(`step ${number}`);
      const other = `other-${number}`;
      traces.begin({ pushId: other, repositoryId: 'r', actor: 'ann' }).note('received');
      // Until what was noted a little earlier is written.
      clock.advance(200);
      busy.note('and on');
      await passUntil(
        async () => (await versionOf(other)) === 1,
        () => {
          clock.advance(100);
          busy.note('and on');
        },
      );
    }
    assert.equal(await versionOf('busy'), 0);
    await passUntil(
      async () => (await versionOf('busy')) === 1,
      () => clock.advance(100),
    );
    await traces.close();
    assert.equal(await versionOf('busy'), 1);
  });
});

test('what an earlier process wrote counts, and goes when it is too old', async () => {
  await withCoordinator(async (coordinator) => {
    const clock = createManualClock();
    const open = (frontEnd: string): PushTraces =>
      new PushTraces({ coordinator, clock, logger: silentLogger, frontEnd, maxKept: 3 });
    const write = async (frontEnd: string, ids: readonly string[]): Promise<void> => {
      const traces = open(frontEnd);
      for (const pushId of ids) {
        clock.advance(1);
        traces.begin({ pushId, repositoryId: 'r', actor: 'ann' }).note('received');
      }
      await traces.close();
    };
    await write('other', ['old']);
    clock.advance(dayMs);
    await write('other', ['others']);
    await write('one', ['a', 'b', 'c']);
    const traces = open('one');
    traces.start();
    await passUntil(
      async () => !(await kept(coordinator)).includes('old'),
      () => clock.advance(500),
    );
    clock.advance(1);
    traces.begin({ pushId: 'd', repositoryId: 'r', actor: 'ann' }).note('received');
    await passUntil(
      async () => (await kept(coordinator)).includes('d'),
      () => clock.advance(500),
    );
    await traces.close();
    assert.deepEqual(await kept(coordinator), ['b', 'c', 'd', 'others']);
  });
});
