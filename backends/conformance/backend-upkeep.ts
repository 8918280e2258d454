import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MaintenanceProgress } from '../contract/backend.js';
import { createSourceRepository } from './source-repository.js';
import {
  create,
  createRepository,
  fetchPack,
  mustPush,
  never,
  push,
  reading,
  refsOf,
  rejectsWith,
  update,
  type BackendHarness,
  type BackendSpace,
  type PushOptions,
} from './backend-harness.js';

const main = 'refs/heads/main';

/** Maintenance, import, status. */
export function defineBackendUpkeep(space: () => BackendSpace): void {
  test('maintenance merges packs, loses nothing, and says what it does', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space());
    let tip = await source.commit('upkeep 0');
    await mustPush(space(), repository, { commands: [create(main, tip)] });
    for (let index = 1; index < 8; index += 1) {
      const next = await source.commit(`upkeep ${index}`, tip);
      await mustPush(space(), repository, { commands: [update(main, tip, next)], have: [tip] });
      tip = next;
    }
    const steps: MaintenanceProgress[] = [];
    const report = await backend.maintain(repository, {
      signal: never(),
      progress: (step) => steps.push(step),
    });
    assert.ok(steps.length > 0);
    assert.ok(report.packsAfter <= Math.max(1, report.packsBefore));
    const pack = await reading(space(), repository, (session) => fetchPack(session, [tip]));
    assert.equal(pack.readUInt32BE(8), 24);
    const stats = await backend.repositories.stats(repository.id);
    assert.ok(stats.packCount >= 1);
    await mustPush(space(), repository, {
      commands: [create('refs/heads/after', tip)],
      have: [tip],
    });
  });

  test('maintenance under load: pushes and fetches go on beside it', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space());
    const base = await source.commit('load');
    await mustPush(space(), repository, { commands: [create(main, base)] });
    // Where git itself receives, its maintenance may remove an empty directory that it is about to move objects into: it
    // says so, nothing has changed, and the same push works after that.
    const pushBesideMaintenance = async (options: PushOptions): Promise<void> => {
      const { refs } = await push(space(), repository, options);
      const isOvertaken = refs.some(
        (ref) => ref.status === 'refused' && /unable to migrate objects/.test(ref.reason),
      );
      if (isOvertaken) await mustPush(space(), repository, options);
      else assert.ok(refs.every(({ status }) => status === 'ok'));
    };
    const loading = new AbortController();
    const maintaining = (async () => {
      while (!loading.signal.aborted) await backend.maintain(repository, { signal: never() });
    })();
    const writers = [0, 1, 2].map(async (writer) => {
      const ref = `refs/heads/w${writer}`;
      let tip = await source.commit(`load ${writer}`, base);
      await pushBesideMaintenance({ commands: [create(ref, tip)], have: [base] });
      for (let index = 0; index < 10; index += 1) {
        const next = await source.commit(`load ${writer} ${index}`, tip);
        await pushBesideMaintenance({ commands: [update(ref, tip, next)], have: [tip] });
        await reading(space(), repository, (session) => fetchPack(session, [next], [base]));
        tip = next;
      }
      return [ref, tip] as const;
    });
    const tips = Object.fromEntries(await Promise.all(writers).finally(() => loading.abort()));
    await maintaining;
    assert.deepEqual(await refsOf(space(), repository), { [main]: base, ...tips });
    const pack = await reading(space(), repository, (session) =>
      fetchPack(session, Object.values(tips)),
    );
    assert.equal(pack.readUInt32BE(8), 3 * (1 + 33));
  });

  test('an import brings all refs and HEAD, into an empty repository only', async () => {
    const { backend } = space();
    const origin = await createSourceRepository();
    try {
      const one = await origin.commit('imported');
      const tag = await origin.tag(one, 'v1');
      await origin.git('update-ref', 'refs/heads/trunk', one);
      await origin.git('update-ref', 'refs/tags/v1', tag);
      await origin.git('update-ref', 'refs/notes/commits', one);
      await origin.git('symbolic-ref', 'HEAD', 'refs/heads/trunk');
      const repository = await createRepository(space());
      const options = { actor: 'ann', signal: never(), progress: () => {} };
      const { refs } = await backend.importFrom(repository, origin.directory, options);
      assert.equal(refs, 3);
      await reading(space(), repository, async (session) => {
        assert.deepEqual(session.snapshot.head, { symref: 'refs/heads/trunk' });
        assert.deepEqual(session.snapshot.refs, [
          { name: 'refs/heads/trunk', oid: one },
          { name: 'refs/notes/commits', oid: one },
          { name: 'refs/tags/v1', oid: tag, peeled: one },
        ]);
        assert.equal((await fetchPack(session, [tag])).readUInt32BE(8), 4);
      });
      await rejectsWith(
        backend.importFrom(repository, origin.directory, options),
        'failed-precondition',
      );
    } finally {
      await origin.remove();
    }
  });

  test('an import that fails leaves an empty repository, which can be tried again', async () => {
    const { backend } = space();
    const repository = await createRepository(space());
    const options = { actor: 'ann', signal: never(), progress: () => {} };
    const nowhere = '/nonexistent/repository.git';
    await rejectsWith(backend.importFrom(repository, nowhere, options), 'failed-precondition');
    const program = 'ext::sh -c touch% /tmp/quorate-was-here';
    await rejectsWith(backend.importFrom(repository, program, options), 'failed-precondition');
    assert.deepEqual(await refsOf(space(), repository), {});
  });

  test('status and locks of a backend at rest', async () => {
    const { backend } = space();
    await createRepository(space());
    const status = await backend.status();
    assert.ok(status.repositories >= 1);
    assert.equal(status.pushesRunning, 0);
    assert.equal(status.quarantines, 0);
    assert.match(status.objectEngine, /git \d/);
    assert.deepEqual(await backend.locks(), []);
  });
}

/** The end of a backend, and the next one on the same storage. */
export function defineBackendClosing(make: () => Promise<BackendHarness>): void {
  test('what was acknowledged is there after a restart; a closed backend says so', async () => {
    const harness = await make();
    const source = await createSourceRepository();
    try {
      const space = { backend: harness.backend, source };
      const repository = await createRepository(space, {
        access: { public: true, grants: { ann: 'write' } },
      });
      const one = await source.commit('restart');
      await mustPush(space, repository, { commands: [create(main, one)] });
      const before = await harness.backend.repositories.get(repository.name);
      const next = await harness.reopen();
      await rejectsWith(harness.backend.read(repository, never()), 'unavailable');
      await harness.backend.close(0);
      assert.deepEqual(await next.repositories.get(repository.name), before);
      assert.deepEqual(await refsOf({ backend: next }, repository), { [main]: one });
    } finally {
      await source.remove();
      await harness.dispose();
    }
  });

  test('a close lets a running push end', async () => {
    const harness = await make();
    const source = await createSourceRepository();
    try {
      const space = { backend: harness.backend, source };
      const repository = await createRepository(space);
      const one = await source.commit('closing');
      const pack = await source.pack([one]);
      let closing: Promise<void> | undefined;
      async function* slowly(): AsyncGenerator<Uint8Array> {
        yield pack.subarray(0, 20);
        closing = harness.backend.close(60_000);
        await new Promise((resolve) => setImmediate(resolve));
        yield pack.subarray(20);
      }
      await mustPush(space, repository, { commands: [create(main, one)], pack: slowly() });
      await closing;
      const next = await harness.reopen();
      assert.deepEqual(await refsOf({ backend: next }, repository), { [main]: one });
    } finally {
      await source.remove();
      await harness.dispose();
    }
  });
}
