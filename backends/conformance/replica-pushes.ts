import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import type { HookRun } from '../contract/hook.js';
import { QuorateError } from '../contract/errors.js';
import type { PushFact } from '../contract/inspection.js';
import { create, rejectsWith, remove, update } from './backend-harness.js';
import {
  main,
  newKey,
  once,
  prepare,
  push,
  refsOf,
  requestOf,
  type ReplicaSpace,
  signal,
} from './replica-harness.js';
import { until } from '../contract/testing/until.js';

/** From the upload to the applied entry. */
export function defineReplicaPushes(space: () => ReplicaSpace): void {
  test('a push is there once its entry is applied, and not before', async () => {
    const { replica, source, log, repositoryId } = space();
    const tip = await source.commit('first');
    const tag = await source.tag(tip, 'v1');
    const commands = [create('refs/heads/first', tip), create('refs/tags/v1', tag)];
    const { key, refused } = await prepare(space(), commands);
    assert.deepEqual([...refused], []);
    const before = await refsOf(space(), replica);
    assert.equal(before['refs/heads/first'], undefined);
    const generation = log.commit(key.pushId, commands);
    await replica.apply(repositoryId, generation);
    await replica.apply(repositoryId, generation);
    assert.equal(await replica.applied(repositoryId), generation);
    const after = await refsOf(space(), replica);
    assert.deepEqual([after['refs/heads/first'], after['refs/tags/v1']], [tip, tag]);
    const { digest } = log.committed;
    assert.deepEqual(await replica.state(repositoryId), { generation, digest });
    assert.equal((await replica.stats(repositoryId)).refCount, Object.keys(after).length);
  });

  test('an upload says what it took, and takes the size that it is allowed', async () => {
    const { replica, source } = space();
    const tip = await source.commit('sized');
    const pack = await source.pack([tip]);
    const options = { settings: {}, signal: signal(), progress: () => undefined };
    const key = newKey(space());
    const uploaded = await replica.upload(key, once(pack), options);
    assert.deepEqual(uploaded, { objectCount: 3, sizeBytes: pack.length });
    await replica.abort(key);
    await replica.abort(key);
    const settings = { 'receive.maxInputSize': '40' };
    await rejectsWith(
      replica.upload(newKey(space()), once(pack), { ...options, settings }),
      'resource-exhausted',
    );
    assert.deepEqual(space().quarantines(), []);
  });

  test('a pack that is none, breaks off, or whose sender gives up leaves nothing', async () => {
    const { replica, source } = space();
    const pack = await source.pack([await source.commit('broken')]);
    const options = { settings: {}, signal: signal(), progress: () => undefined };
    const noPack = once(Buffer.from('PACK or not'));
    await rejectsWith(replica.upload(newKey(space()), noPack, options), 'invalid-argument');
    const half = (async function* half() {
      await Promise.resolve();
      yield pack.subarray(0, pack.length / 2);
      throw new Error('the line broke');
    })();
    await rejectsWith(replica.upload(newKey(space()), half, options), 'cancelled');
    const gone = new AbortController();
    const silent = (async function* silent() {
      yield pack.subarray(0, pack.length / 2);
      gone.abort();
      await new Promise<void>((resolve) => gone.signal.addEventListener('abort', () => resolve()));
    })();
    const given = { ...options, signal: gone.signal };
    await rejectsWith(replica.upload(newKey(space()), silent, given), 'cancelled');
    await until('it is dropped', () => space().quarantines().length === 0);
  });

  test('a small pack may come with the request to prepare', async () => {
    const { replica, source, log, repositoryId } = space();
    const tip = await source.commit('brought');
    const commands = [create('refs/heads/brought', tip)];
    const pack = await source.pack([tip]);
    const request = requestOf(space(), commands);
    // Also one that comes twice, and at once: the answer to the first may have been lost.
    const [prepared, again] = await Promise.all([
      replica.prepare({ ...request, pack }),
      replica.prepare({ ...request, pack }),
    ]);
    for (const { refused, packBytes } of [prepared, again]) {
      assert.deepEqual([[...refused], packBytes], [[], pack.length]);
    }
    await push(space(), [create('refs/heads/meanwhile', tip)]);
    const later = requestOf(space(), commands, request.key);
    assert.deepEqual([...(await replica.prepare(later)).refused], []);
    await replica.apply(repositoryId, log.commit(request.key.pushId, commands));
    assert.equal((await refsOf(space(), replica))['refs/heads/brought'], tip);
    await until('nothing is left', () => space().quarantines().length === 0);
  });

  test('a pack that came with the request to prepare and cannot be taken is told apart', async () => {
    const { replica, source } = space();
    const tip = await source.commit('not brought');
    const commands = [create('refs/heads/not-brought', tip)];
    const pack = await source.pack([tip]);
    const request = requestOf(space(), commands);
    const tight = { ...request, settings: { 'receive.maxInputSize': '40' } };
    await assert.rejects(replica.prepare({ ...tight, pack }), ofPack('resource-exhausted'));
    const noPack = Buffer.from('PACK or not');
    await assert.rejects(replica.prepare({ ...request, pack: noPack }), ofPack('invalid-argument'));
    assert.deepEqual(space().quarantines(), []);
    assert.deepEqual([...(await replica.prepare({ ...request, pack })).refused], []);
    await replica.abort(request.key);
    assert.deepEqual(space().quarantines(), []);
  });

  test('what does not apply is refused ref by ref, with the reason', async () => {
    const { replica, source } = space();
    const tip = await source.commit('judged');
    await push(space(), [create('refs/heads/judged', tip)]);
    const other = await source.commit('judged too');
    const { key, refused } = await prepare(space(), [
      create('refs/heads/judged', other),
      create('refs/heads/new', other),
    ]);
    assert.deepEqual([...refused.keys()], ['refs/heads/judged']);
    assert.match([...refused.values()].join(), /exists/);
    await replica.abort(key);
  });

  test('HEAD is judged, and changed by an entry of its own', async () => {
    const { replica, log, repositoryId } = space();
    const old = { symref: main };
    const next = { symref: 'refs/heads/trunk' };
    const wrong = prepare(space(), [], { head: { old: next, new: old } });
    await rejectsWith(wrong, 'aborted');
    const { key } = await prepare(space(), [], { head: { old, new: next } });
    await replica.apply(repositoryId, log.commit(key.pushId, [], { head: { old, new: next } }));
    assert.deepEqual((await replica.stats(repositoryId)).head, next);
    const back = await prepare(space(), [], { head: { old: next, new: old } });
    const change = { head: { old: next, new: old } };
    await replica.apply(repositoryId, log.commit(back.key.pushId, [], change));
  });

  test('updates that are no fast-forward are told', async () => {
    const { replica, source } = space();
    const one = await source.commit('ff one');
    const two = await source.commit('ff two', one);
    const aside = await source.commit('ff aside');
    await push(space(), [create('refs/heads/ff', one), create('refs/heads/forced', one)]);
    const commands = [update('refs/heads/ff', one, two), update('refs/heads/forced', one, aside)];
    const { key } = await prepare(space(), commands, { have: [one] });
    assert.deepEqual(
      [...(await replica.nonFastForwards(key, commands, signal()))],
      ['refs/heads/forced'],
    );
    await replica.abort(key);
  });

  test('updates too large for the log are kept with the quarantine', async () => {
    const { replica, source, log, repositoryId } = space();
    const tip = await source.commit('kept');
    const commands = Array.from({ length: 50 }, (_, n) => create(`refs/heads/kept-${n}`, tip));
    const { key } = await prepare(space(), commands);
    await replica.keep(key);
    await replica.keep({ ...key, pushId: 'unknown-push' });
    const updatesDigest = await replica.storeUpdates(key, commands);
    const json = JSON.stringify(commands);
    assert.equal(updatesDigest, createHash('sha256').update(json).digest('hex'));
    await replica.apply(repositoryId, log.commit(key.pushId, commands, { updatesDigest }));
    assert.equal((await refsOf(space(), replica))['refs/heads/kept-49'], tip);
    await push(
      space(),
      commands.map(({ ref, newOid }) => remove(ref, newOid)),
    );
  });

  test('a hook runs where the objects are; its program travels once', async () => {
    const { replica, source } = space();
    const tip = await source.commit('hooked');
    const { key } = await prepare(space(), [create('refs/heads/hooked', tip)]);
    const script =
      '#!/bin/sh\nread line\necho "got $line, $1, $GREETING"\ngit cat-file -t "$1"\nexit 3\n';
    let asked = 0;
    const told: Buffer[] = [];
    const run: HookRun = {
      program: programOf(script, () => (asked += 1)),
      args: [tip],
      stdin: Buffer.from('a line\n'),
      env: { GREETING: 'hello' },
      limits: { timeoutMs: 20_000, maxOutputBytes: 10_000, maxProcesses: 20 },
      output: (bytes) => told.push(Buffer.from(bytes)),
      signal: signal(),
    };
    for (let round = 0; round < 2; round += 1) {
      assert.deepEqual(await replica.runHook(key, run), { how: 'exited', exitCode: 3 });
    }
    assert.equal(asked, 1);
    const line = `got a line, ${tip}, hello\ncommit\n`;
    assert.equal(Buffer.concat(told).toString(), line + line);
    const slow = { ...run, program: programOf('#!/bin/sh\nsleep 100\n') };
    const limits = { ...run.limits, timeoutMs: 300 };
    assert.deepEqual(await replica.runHook(key, { ...slow, limits }), { how: 'too-long' });
    const gone = new AbortController();
    const talking = { ...run, program: programOf('#!/bin/sh\necho on\nsleep 100\n') };
    const ended = await replica.runHook(key, {
      ...talking,
      signal: gone.signal,
      output: () => gone.abort(),
    });
    assert.deepEqual(ended, { how: 'cancelled' });
    await replica.abort(key);
  });

  test('an inspection tells commits and files, and may be left early', async () => {
    const { replica, source } = space();
    const base = await source.commit('base');
    await push(space(), [create('refs/heads/inspected', base)]);
    let tip = base;
    for (let n = 0; n < 120; n += 1) tip = await source.commit(`change ${n}`, tip);
    const command = update('refs/heads/inspected', base, tip);
    const { key } = await prepare(space(), [command], { have: [base] });
    const inspection = {
      command,
      covered: 'refs/heads/*',
      judged: [],
      commits: true,
      files: true,
      signers: { ssh: '', openpgp: new Uint8Array() },
      signal: signal(),
    };
    const facts: PushFact[] = [];
    for await (const fact of replica.inspect(key, inspection)) facts.push(fact);
    const commits = facts.filter((fact) => fact.type === 'commit');
    assert.equal(commits.length, 120);
    assert.equal(commits[0]?.oid, tip);
    assert.match(commits[0]?.message ?? '', /^change 119/);
    assert.equal(commits[0]?.signature, 'unsigned');
    assert.equal(facts.filter((fact) => fact.type === 'file').length, 120);
    for await (const fact of replica.inspect(key, inspection)) {
      assert.equal(fact.type, 'commit');
      break;
    }
    const gone = AbortSignal.abort();
    const given = replica.inspect(key, { ...inspection, signal: gone });
    await rejectsWith(given[Symbol.asyncIterator]().next(), 'cancelled');
    await replica.abort(key);
  });

  test('a repository that is not here', async () => {
    const { replica } = space();
    const none = 'ab'.repeat(16);
    await rejectsWith(replica.read(none, 0), 'not-found');
    await rejectsWith(replica.applied(none), 'not-found');
    assert.equal(await replica.state(none), undefined);
    const key = newKey({ repositoryId: none });
    const options = { settings: {}, signal: signal(), progress: () => undefined };
    await rejectsWith(replica.upload(key, once(Buffer.alloc(0)), options), 'not-found');
  });
}

/** Of an error: that it has the code, and is about the pack. */
function ofPack(code: string): (error: unknown) => boolean {
  return (error) =>
    error instanceof QuorateError && error.code === code && error.details['pack'] === true;
}

function programOf(script: string, asked: () => void = () => undefined): HookRun['program'] {
  const bytes = Buffer.from(script);
  return {
    digest: createHash('sha256').update(bytes).digest('hex'),
    content: async () => {
      asked();
      return Promise.resolve(bytes);
    },
  };
}
