import assert from 'node:assert/strict';
import { cpSync, readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keys, prefixEnd } from '../contract/keys.js';
import { comeTo } from '../local/testing/come-to.js';
import { type LocalFixture, judging, startLocal, zeroOid } from '../local/testing/local-fixture.js';
import { intercepting } from './testing/fault-coordinator.js';
import { committedOf, pushOne } from './testing/one-push.js';

const signal = new AbortController().signal;

test('a crash at any transaction of a push: all of it or nothing, and nothing left over', async () => {
  const copies = await mkdtemp(join(tmpdir(), 'quorate-crash-'));
  const points: string[] = [];
  let recording = false;
  let data = '';
  const crashCopy = (): void => {
    if (!recording) return;
    const copy = join(copies, String(points.length));
    cpSync(data, copy, {
      recursive: true,
      filter: (path) => !path.startsWith(join(data, 'source')),
    });
    points.push(copy);
  };
  const local = await startLocal({
    pipeline: {
      ...judging({
        preReceive: async () => {
          crashCopy();
          return undefined;
        },
      }),
      postReceive: async () => crashCopy(),
    },
    wrap: (coordinator) =>
      intercepting(coordinator, () => async (run) => {
        crashCopy();
        const result = await run();
        crashCopy();
        return result;
      }),
  });
  data = local.directory;
  try {
    const { repository, tip: base } = await pushOne(local, 'crash');
    const tip = await local.commit('crash tip');
    await local.git('tag', '-a', '-m', 'tag', 'crash-tag', tip);
    const tag = await local.git('rev-parse', 'refs/tags/crash-tag');
    recording = true;
    await local.push(
      repository,
      [
        { ref: 'refs/heads/main', oldOid: base, newOid: tip },
        { ref: 'refs/tags/crash-tag', oldOid: zeroOid, newOid: tag },
      ],
      { have: [base] },
    );
    await local.stop();
    assert.ok(points.length >= 6, `only ${points.length} crash points`);
    const seen = new Set<number>();
    for (const directory of points) {
      const again = await startLocal({ directory, source: local.source });
      const read = await again.backend.read(repository, signal);
      const refs = Object.fromEntries(read.snapshot.refs.map(({ name, oid }) => [name, oid]));
      read.release();
      seen.add(read.snapshot.generation);
      assert.deepEqual(
        refs,
        read.snapshot.generation === 1
          ? { 'refs/heads/main': base }
          : { 'refs/heads/main': tip, 'refs/tags/crash-tag': tag },
      );
      assert.equal(await committedOf(again, repository), read.snapshot.generation);
      await comeTo([], () => readdirSync(join(directory, 'store', 'quarantine')));
      assert.deepEqual(await again.backend.locks(), []);
      const next = await again.push(
        repository,
        [{ ref: 'refs/heads/next', oldOid: zeroOid, newOid: tip }],
        { have: [base] },
      );
      assert.equal(next.refs[0]?.status, 'ok');
      await again.stop();
      const left = await openLeftovers(again);
      assert.deepEqual(left, []);
    }
    assert.deepEqual(
      [...seen].toSorted((a, b) => a - b),
      [1, 2],
    );
  } finally {
    await local.remove();
    await rm(copies, { recursive: true });
  }
});

/** Log and outbox entries that a stopped backend left in its coordinator. */
async function openLeftovers({ directory }: LocalFixture): Promise<readonly string[]> {
  const again = await startLocal({ directory, source: directory });
  try {
    const logs = await again.coordinator.range(keys.allLogs, { rangeEnd: prefixEnd(keys.allLogs) });
    return logs.entries.map(({ key }) => key);
  } finally {
    await again.stop();
  }
}
