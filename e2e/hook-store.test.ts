import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type { Coordinator } from '../backends/contract/coordinator.js';
import { prefixEnd } from '../backends/contract/keys.js';
import { openEmbeddedCoordinator } from '../backends/coordination/embedded/embedded-coordinator.js';
import { silentLogger } from '../backends/coordination/test-environment.js';
import { systemClock } from '../backends/local/testing/local-fixture.js';
import { createHookStore, hookProblem, type HookStore } from '../hooks/custom/hook-store.js';

// Hooks on the coordinator that they live in.

let directory = '';
let coordinator: Coordinator;
let hooks: HookStore;

const storeOn = (on: Coordinator): HookStore =>
  createHookStore({
    coordinator: on,
    clock: systemClock,
    random: { bytes: (length) => randomBytes(length) },
  });

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-hooks-'));
  coordinator = await openEmbeddedCoordinator({
    directory,
    clock: systemClock,
    logger: silentLogger,
  });
  hooks = storeOn(coordinator);
});
afterEach(async () => {
  await coordinator.close();
  await rm(directory, { recursive: true, force: true });
});

async function stored(prefix = 'hooks/parts/') {
  return (await coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) })).entries;
}

async function put(key: string, text: string): Promise<void> {
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key, value: Buffer.from(text) }],
    failure: [],
  });
}

test('a large hook is kept in parts that fit a request, and comes back whole', async () => {
  const content = randomBytes(1024 * 1024);
  await hooks.set('server', 'update', { content, by: 'root' });
  const parts = await stored();
  assert.equal(parts.length, 2);
  for (const { value } of parts) assert.ok(value.length <= 512 * 1024);
  assert.deepEqual(Buffer.from(await hooks.content('server', 'update')), content);
});

test('a new version replaces the content, and the old one is remembered by name', async () => {
  const scope = { repositoryId: 'team/app' };
  for (const text of ['one', 'two', 'three']) {
    await hooks.set(scope, 'update', { content: Buffer.from(text), by: text });
  }
  const [hook] = await hooks.list(scope);
  assert.equal(hook?.version, 3);
  assert.deepEqual(
    hook?.history.map(({ by }) => by),
    ['two', 'one'],
  );
  assert.equal((await stored()).length, 1);
  await hooks.remove(scope, 'update');
  assert.deepEqual(await stored('hooks/'), []);
  await assert.rejects(hooks.remove(scope, 'update'), { code: 'not-found' });
});

test('of two who set a hook at once one is told, and nothing is mixed or left', async () => {
  // Another one is set between the read of the record and its change.
  let raced = false;
  const racing: Coordinator = {
    limits: coordinator.limits,
    get: (key) => coordinator.get(key),
    range: (key, options) => coordinator.range(key, options),
    grantLease: (ttlMs) => coordinator.grantLease(ttlMs),
    leaseLeft: (id) => coordinator.leaseLeft(id),
    watch: (key, options) => coordinator.watch(key, options),
    identity: () => coordinator.identity(),
    ping: () => coordinator.ping(),
    close: () => coordinator.close(),
    transaction: async (transaction) => {
      if (!raced) {
        raced = true;
        await hooks.set('server', 'update', { content: Buffer.from('theirs'), by: 'b' });
      }
      return coordinator.transaction(transaction);
    },
  };
  const set = storeOn(racing).set('server', 'update', { content: Buffer.from('mine'), by: 'a' });
  await assert.rejects(set, { code: 'aborted' });
  assert.equal(Buffer.from(await hooks.content('server', 'update')).toString(), 'theirs');
  assert.equal((await stored()).length, 1);
});

test('hooks of a repository go with it, and no others', async () => {
  const content = Buffer.from('x');
  await hooks.set({ repositoryId: 'a' }, 'update', { content, by: 'root' });
  await hooks.set({ repositoryId: 'ab' }, 'update', { content, by: 'root' });
  await hooks.removeAll('a');
  assert.deepEqual(await hooks.list({ repositoryId: 'a' }), []);
  assert.equal((await hooks.list({ repositoryId: 'ab' })).length, 1);
});

test('a damaged record is not taken for no hook', async () => {
  await put('hooks/heads/server/update', '{"version":');
  await assert.rejects(hooks.get('server', 'update'), { code: 'data-corrupt' });
});

const programs: readonly (readonly [desc: string, content: string, good: boolean])[] = [
  ['a script', '#!/bin/sh\nexit 0\n', true],
  ['an ELF file', '\x7fELF\x02', true],
  ['a script without its first line', 'exit 0\n', false],
  ['a script with CR LF', '#!/bin/sh\r\nexit 0\r\n', false],
  ['nothing', '', false],
];
for (const [desc, content, good] of programs) {
  test(`${desc} is ${good ? 'a' : 'no'} hook`, () => {
    assert.equal(hookProblem(Buffer.from(content, 'latin1')) === undefined, good);
  });
}
