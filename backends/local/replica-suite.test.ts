import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { defineReplicaSuite } from '../conformance/replica-suite.js';
import { openReplica } from './testing/replica-scene.js';

defineReplicaSuite('local store', async () => {
  const scene = await openReplica();
  return {
    replica: scene.replica,
    second: () => scene.second(),
    repositoryId: scene.id,
    log: scene.log,
    quarantines: () => readdirSync(join(scene.root, 'quarantine')),
    dispose: () => scene.close(),
  };
});
