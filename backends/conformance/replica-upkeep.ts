import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Replica } from '../contract/replica.js';
import { create, rejectsWith, update } from './backend-harness.js';
import { main, newKey, once, push, refsOf, type ReplicaSpace, signal } from './replica-harness.js';

/** Whole repositories: from store to store, looked through, removed. */
export function defineReplicaUpkeep(space: () => ReplicaSpace): void {
  test('a generation travels whole, or as what somebody lacks', async () => {
    const { replica, source, log, repositoryId } = space();
    const one = await source.commit('travels one');
    const two = await source.commit('travels two', one);
    await push(space(), [create('refs/heads/travels', one)]);
    await push(space(), [update('refs/heads/travels', one, two)], [one]);
    const { generation, digest } = log.committed;
    const refs = await refsOf(space(), replica);
    const options = { atLeast: generation, have: [], signal: signal() };
    const whole = await replica.export(repositoryId, options);
    assert.deepEqual([whole.generation, whole.digest], [generation, digest]);
    assert.deepEqual(Object.fromEntries(whole.refs.map(({ name, oid }) => [name, oid])), refs);
    const all = Object.values(refs);
    assert.ok((await objectsOf(whole)) >= 6);
    const have = [...all.filter((oid) => oid !== two), one, 'ef'.repeat(20)];
    const part = await replica.export(repositoryId, { ...options, have });
    assert.equal(await objectsOf(part), 3);
    const nothing = await replica.export(repositoryId, { ...options, have: all });
    assert.equal(nothing.pack, undefined);
    nothing.release();
    const left = await replica.export(repositoryId, options);
    left.release();
    left.release();
  });

  test('a store catches up from another: empty, then behind, then by the log', async () => {
    const { replica, source, log, repositoryId } = space();
    const first = await source.commit('caught');
    await push(space(), [create('refs/heads/caught', first)]);
    const second = await space().second();
    assert.notEqual(second.storeId, replica.storeId);
    assert.equal(await second.state(repositoryId), undefined);
    const from = Object.assign(
      (have: readonly string[], atLeast: number, given: AbortSignal) =>
        replica.export(repositoryId, { have, atLeast, signal: given }),
      { stores: [replica.storeId] },
    );
    let tip = first;
    for (let round = 0; round < 2; round += 1) {
      const { generation, digest } = log.committed;
      const options = { atLeast: generation, source: from, signal: signal() };
      assert.deepEqual(await second.catchUp(repositoryId, options), { generation, digest });
      assert.deepEqual(await refsOf(space(), second), await refsOf(space(), replica));
      const next = await source.commit(`caught ${round}`, tip);
      await push(space(), [update('refs/heads/caught', tip, next)], [tip]);
      tip = next;
    }
    const { generation, digest } = log.committed;
    await second.apply(repositoryId, generation);
    const report = await second.verify(repositoryId, { signal: signal() });
    assert.deepEqual(report, { generation, digest, problems: [] });
    const afresh = { atLeast: generation, fresh: true, source: from, signal: signal() };
    assert.deepEqual(await second.catchUp(repositoryId, afresh), { generation, digest });
    assert.deepEqual(await refsOf(space(), second), await refsOf(space(), replica));
  });

  test('a store that is behind takes a pack that builds on what it has not applied yet', async () => {
    const { replica, source, log, repositoryId } = space();
    const second = await space().second();
    const from = (have: readonly string[], atLeast: number, given: AbortSignal) =>
      replica.export(repositoryId, { have, atLeast, signal: given });
    const options = { atLeast: log.committed.generation, source: from, signal: signal() };
    await second.catchUp(repositoryId, options);
    const content = Array.from({ length: 200 }, (_, line) => `line ${line}\n`).join('');
    const one = await source.commit(content);
    await push(space(), [create('refs/heads/thin', one)]);
    const two = await source.commit(`${content}more\n`, one);
    const pack = await source.pack([two], [one]);
    const key = newKey(space());
    const basis = log.committed.generation;
    const rest = { settings: {}, signal: signal(), progress: () => undefined };
    const uploaded = await second.upload(key, once(pack), { ...rest, basis });
    assert.ok(uploaded.objectCount >= 3);
    assert.equal(await second.applied(repositoryId), basis);
    await second.abort(key);
  });

  test('a new repository, and its end', async () => {
    const { replica } = space();
    const id = '12'.repeat(16);
    assert.ok(!(await copiesIn(replica)).includes(id));
    await replica.create(id, { objectFormat: 'sha256', head: main });
    const all = await copiesIn(replica);
    assert.deepEqual(all, [space().repositoryId, id].sort());
    for (const after of all) {
      const { ids, more } = await replica.copies(after);
      assert.deepEqual([ids, more], [all.slice(all.indexOf(after) + 1), false]);
    }
    assert.equal((await replica.state(id))?.generation, 0);
    await replica.destroy(id);
    await replica.destroy(id);
    assert.equal(await replica.state(id), undefined);
    assert.deepEqual(await copiesIn(replica), [space().repositoryId]);
    await rejectsWith(
      replica.create('34'.repeat(16), { objectFormat: 'sha1', head: 'refs/heads/a..b' }),
      'invalid-argument',
    );
    await rejectsWith(
      replica.create('../../etc', { objectFormat: 'sha1', head: main }),
      'invalid-argument',
      'unimplemented',
    );
  });
}

async function copiesIn(replica: Replica): Promise<readonly string[]> {
  return (await replica.copies('0'.repeat(32))).ids;
}

/** Reads an export to its end. The number of objects in its pack. */
async function objectsOf(exported: {
  readonly pack: AsyncIterable<Uint8Array> | undefined;
  release(): void;
}): Promise<number> {
  const parts: Uint8Array[] = [];
  assert.ok(exported.pack !== undefined);
  for await (const part of exported.pack) parts.push(part);
  exported.release();
  return Buffer.concat(parts).readUInt32BE(8);
}
