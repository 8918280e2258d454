import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Coordinator } from '../../backends/contract/coordinator.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { MemoryCoordinator, asCoordinator } from '../auth/memory-coordinator.fixture.js';
import { type HostKey, loadHostKeys } from './host-keys.js';
import { loadSharedHostKeys } from './shared-host-keys.js';
import { silentLogger } from './testing/ssh-scene.js';

let root = '';
before(() => {
  root = mkdtempSync(join(tmpdir(), 'quorate-shared-keys-'));
});
after(() => rmSync(root, { recursive: true, force: true }));

const secret = Buffer.from('the secret of this cluster');
const fingerprints = (keys: readonly HostKey[]): readonly string[] =>
  keys.map(({ fingerprint }) => fingerprint);

function load(
  memory: MemoryCoordinator,
  directory: string,
  other: Partial<Parameters<typeof loadSharedHostKeys>[0]> = {},
): Promise<readonly HostKey[]> {
  return loadSharedHostKeys({
    coordinator: asCoordinator(memory),
    secret,
    ...other,
    directory: join(root, directory),
    random: { bytes: (length) => randomBytes(length) },
    logger: silentLogger,
  });
}

test('front-ends that start at once end up with the same keys', async () => {
  const memory = new MemoryCoordinator();
  const all = await Promise.all(['a', 'b', 'c'].map((directory) => load(memory, directory)));
  assert.equal(all[0]?.length, 3);
  for (const keys of all) assert.deepEqual(fingerprints(keys), fingerprints(all[0] ?? []));
  assert.deepEqual(fingerprints(await load(memory, 'd')), fingerprints(all[0] ?? []));
});

for (const happened of [true, false]) {
  test(`keys whose putting was not heard of are found, or put again (${happened ? 'done' : 'not done'})`, async () => {
    const memory = new MemoryCoordinator();
    const coordinator = asCoordinator(memory);
    let lost = 0;
    const troubled: Coordinator = {
      ...coordinator,
      transaction: async (transaction) => {
        lost += 1;
        if (lost % 2 === 0) return coordinator.transaction(transaction);
        if (happened) await coordinator.transaction(transaction);
        throw new QuorateError('outcome-unknown', 'a member of etcd hangs');
      },
    };
    const keys = await load(memory, `lost-${happened}`, { coordinator: troubled });
    assert.ok(lost >= 3, 'one of each key, at least');
    assert.deepEqual(fingerprints(keys), fingerprints(await load(memory, 'elsewhere')));
  });
}

test('a server that becomes a cluster keeps its keys', async () => {
  const own = await loadHostKeys(join(root, 'own'), silentLogger);
  const memory = new MemoryCoordinator();
  assert.deepEqual(fingerprints(await load(memory, 'own')), fingerprints(own));
  assert.deepEqual(fingerprints(await load(memory, 'other')), fingerprints(own));
});

test('the coordinator has nothing that is good without the secret', async () => {
  const memory = new MemoryCoordinator();
  await load(memory, 'e');
  for (const { value } of memory.entries.values()) {
    assert.ok(!Buffer.from(value).toString('latin1').includes('PRIVATE KEY'));
  }
  const wrong = load(memory, 'e', { secret: Buffer.from('the secret of another cluster') });
  await assert.rejects(wrong, { code: 'failed-precondition', message: /ssh\.hostKeys/ });
});

test('a new secret takes the keys over from the one of before, once', async () => {
  const memory = new MemoryCoordinator();
  const keys = fingerprints(await load(memory, 'f'));
  const next = Buffer.from('the next secret of this cluster');
  await assert.rejects(load(memory, 'f', { secret: next }), {
    message: /cluster\.previousSecretFile/,
  });
  const neither = Buffer.from('neither the one nor the other');
  await assert.rejects(load(memory, 'f', { secret: next, previous: neither }), {
    message: /cluster\.previousSecretFile/,
  });
  const all = await Promise.all(
    ['f', 'g'].map((name) => load(memory, name, { secret: next, previous: secret })),
  );
  for (const found of all) assert.deepEqual(fingerprints(found), keys);
  assert.deepEqual(fingerprints(await load(memory, 'h', { secret: next })), keys);
  await assert.rejects(load(memory, 'f'), { code: 'failed-precondition' });
});
