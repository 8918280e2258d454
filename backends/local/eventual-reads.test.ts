import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import { create, openReplica, type ReplicaScene } from './testing/replica-scene.js';

const main = 'refs/heads/main';
const eventual = { eventual: true };

let scene: ReplicaScene;
let asked = 0;

beforeEach(async () => {
  scene = await openReplica();
  const tip = await scene.commit('first');
  const change = create(main, tip);
  const key = await scene.prepare([change]);
  scene.log.commit(key.pushId, [change]);
  await scene.replica.apply(scene.id, 1);
});
afterEach(() => scene.close());

const fail = (): Promise<never> => {
  asked++;
  return Promise.reject(new QuorateError('unavailable', 'no quorum'));
};

/** The coordinator cannot be reached, until the function returned is called. */
function lose(): () => void {
  const { log } = scene;
  // In place of the class's methods.
  Object.assign(log, { head: fail, entries: fail });
  return () => {
    Reflect.deleteProperty(log, 'head');
    Reflect.deleteProperty(log, 'entries');
  };
}

test('an eventual read asks the coordinator nothing as long as enough is here', async () => {
  const back = lose();
  asked = 0;
  for (const atLeast of [0, 1]) {
    const read = await scene.replica.read(scene.id, atLeast, eventual);
    assert.equal(read.snapshot.generation, 1);
    read.release();
  }
  assert.equal(asked, 0);
  await assert.rejects(scene.replica.read(scene.id, 2, eventual), { code: 'unavailable' });
  await assert.rejects(scene.replica.read(scene.id, 0), { code: 'unavailable' });
  back();
});

test('a store that starts without the coordinator serves eventual reads, and nothing else', async () => {
  const back = lose();
  const again = await scene.reopen();
  const read = await again.read(scene.id, 0, eventual);
  assert.equal(read.snapshot.generation, 1);
  await assert.rejects(again.read(scene.id, 1), { code: 'unavailable' });
  await assert.rejects(again.applied(scene.id), { code: 'unavailable' });
  back();
  // The same open repository, confirmed by the first who needs it.
  assert.equal(await again.applied(scene.id), 1);
  read.release();
});

test('what the coordinator contradicts is refused to eventual reads too, once it has said so', async () => {
  const back = lose();
  const again = await scene.reopen();
  (await again.read(scene.id, 0, eventual)).release();
  back();
  const { committed } = scene.log;
  scene.log.committed = { generation: 1, digest: '1'.repeat(128) };
  const frozen = { code: 'data-corrupt', message: /the repository is frozen: .* quorate recover$/ };
  await assert.rejects(again.read(scene.id, 1), frozen);
  await assert.rejects(again.read(scene.id, 0, eventual), frozen);
  // As after a recovery.
  scene.log.committed = committed;
  (await again.read(scene.id, 1)).release();
  (await again.read(scene.id, 0, eventual)).release();
});
