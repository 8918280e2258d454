import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiScene } from './testing/api-scene.js';

const views = [
  ['GET', '/nodes'],
  ['GET', '/repositories/app/replicas'],
  ['POST', '/repositories/app/verify'],
  ['GET', '/pushes/some'],
] as const;
const decisions = [
  ['POST', '/nodes/local/drain'],
  ['POST', '/nodes/local/undrain'],
  ['POST', '/nodes/local/remove'],
  ['POST', '/repositories/app/move', { nodes: null }],
  ['POST', '/repositories/app/recover', {}],
] as const;

test('what a backend does not have is refused, and what it has is not', async () => {
  const scene = await ApiScene.open();
  try {
    const token = await scene.token('root', { admin: true });
    await scene.request('POST', '/repositories', { token, body: { name: 'app' } });
    for (const [method, path, body] of [...views, ...decisions]) {
      const { status, text } = await scene.request(method, path, { token, body });
      assert.equal(status, 200, `${path}: ${text}`);
    }
    const refused = async (
      [method, path, body]: (typeof views)[number] | (typeof decisions)[number],
      says: RegExp,
    ): Promise<void> => {
      const { status, text } = await scene.request(method, path, { token, body });
      assert.equal(status, 409, `${path}: ${text}`);
      assert.match(text, says);
    };
    // A single server.
    scene.backend.cluster = undefined;
    for (const [method, path] of views) {
      assert.equal((await scene.request(method, path, { token })).status, 200, path);
    }
    for (const asked of decisions) await refused(asked, /is no member of a cluster/);
    // One of plain repositories.
    scene.backend.stores = undefined;
    for (const asked of views) await refused(asked, /plain repositories from a directory/);
    const { status, body } = await scene.request('GET', '/status', { token });
    assert.deepEqual([status, body?.['cluster']], [200, null]);
  } finally {
    await scene.close();
  }
});
