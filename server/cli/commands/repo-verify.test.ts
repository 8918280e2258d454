import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CopyVerified } from '../../../backends/contract/cluster.js';
import { ApiScene } from '../../admin/testing/api-scene.js';
import { runQuorate } from '../testing/run-quorate.js';

const copy = { nodeId: 'a', storeId: 'ab'.repeat(16) };
const damaged = { ...copy, generation: 3, digest: 'd', problems: ['a bit is wrong'] };

const cases: readonly (readonly [string, readonly CopyVerified[], RegExp, RegExp])[] = [
  [
    'could not be verified',
    [{ ...copy, unread: 'git fsck has too little memory' }],
    /^app +a +- +could not be verified: git fsck has too little memory$/m,
    /^quorate: 1 of 1 copies could not be verified: PROBLEMS says why\n$/,
  ],
  [
    'is damaged, of which nobody could be told',
    [
      { ...damaged, unreported: 'the coordinator does not answer' },
      { ...copy, problems: [] },
    ],
    /^app +a +3 +1: a bit is wrong$/m,
    /^quorate: that 1 of 2 copies are damaged could not be noted, so that nothing heals them: the coordinator does not answer; verify them again\n$/,
  ],
  [
    'is damaged',
    [damaged, { ...copy, problems: [] }],
    /^app +a +3 +1: a bit is wrong$/m,
    /^quorate: 1 of 2 copies are damaged and being healed\n$/,
  ],
];
for (const [desc, copies, shown, said] of cases) {
  test(`verifying says that a copy ${desc}`, async (t) => {
    const scene = await ApiScene.open();
    t.after(() => scene.close());
    const token = await scene.token('root', { admin: true });
    await scene.request('POST', '/repositories', { token, body: { name: 'app' } });
    const { stores } = scene.backend;
    assert.ok(stores !== undefined);
    scene.backend.stores = { ...stores, verify: () => Promise.resolve(copies) };
    const env = { QUORATE_URL: scene.url, QUORATE_TOKEN: token };
    const { exitCode, stdout, stderr } = await runQuorate(['repo', 'verify', 'app'], { env });
    assert.equal(exitCode, 1);
    assert.match(stdout, shown);
    assert.match(stderr, said);
  });
}
