import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const { signal } = new AbortController();
const main = 'refs/heads/main';
const yearMs = 365 * 86_400_000;
/** Beyond the grace period of the scene. */
const laterMs = 2 * 3_600_000;

let scene: ReplicaScene;
beforeEach(async () => {
  scene = await openReplica();
});
afterEach(() => scene.close());

/** Commits one after the other, each in place of the one before, beyond the generations that are kept. */
async function replaced(): Promise<string> {
  const tips: string[] = [];
  for (let count = 0; count < 10; count++) {
    const newOid = await scene.commit(`content ${count}`);
    const oldOid = tips.at(-1);
    const command = oldOid === undefined ? create(main, newOid) : { ref: main, oldOid, newOid };
    const { pushId } = await scene.prepare([command]);
    await scene.replica.apply(scene.id, scene.log.commit(pushId, [command]));
    tips.push(newOid);
  }
  return tips[0] ?? '';
}

const exists = (oid: string): Promise<boolean> =>
  scene.git('cat-file', '-e', oid).then(
    () => true,
    () => false,
  );

test('a clock on the wall that is put forward makes no object old', async () => {
  const old = await replaced();
  await scene.replica.maintain(scene.id, { signal });
  scene.step(yearMs);
  for (let run = 0; run < 2; run++) await scene.replica.maintain(scene.id, { signal });
  assert.ok(await exists(old), 'a fetch of long ago may be reading it');
  scene.step(-yearMs);
  for (let run = 0; run < 2; run++) {
    scene.advance(laterMs);
    await scene.replica.maintain(scene.id, { signal });
  }
  assert.ok(!(await exists(old)), 'it goes in time');
});
