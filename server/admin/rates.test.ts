import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../backends/contract/environment.js';
import { ApiScene, testClock } from './testing/api-scene.js';

/** A clock that stands still until a test moves it. */
function standing(): { readonly clock: Clock; pass: (ms: number) => void } {
  let nowMs = 1_000_000;
  return { clock: { ...testClock, monotonicMs: () => nowMs }, pass: (ms) => void (nowMs += ms) };
}

test('a user, and not others, is refused beyond the rate, and let in again when the answer said', async () => {
  const { clock, pass } = standing();
  const scene = await ApiScene.open({ clock, rates: { ratePerPrincipal: 3 } });
  try {
    const [root, ann] = [await scene.token('root', { admin: true }), await scene.token('ann')];
    for (let n = 0; n < 3; n += 1) {
      assert.equal((await scene.request('GET', '/repositories', { token: ann })).status, 200);
    }
    const refused = await scene.request('GET', '/repositories', { token: ann });
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get('retry-after'), '20');
    assert.equal(refused.body?.['code'], 'resource-exhausted');
    assert.equal((await scene.request('GET', '/users', { token: root })).status, 200);
    pass(19_000);
    assert.equal((await scene.request('GET', '/repositories', { token: ann })).status, 429);
    pass(1_000);
    assert.equal((await scene.request('GET', '/repositories', { token: ann })).status, 200);
  } finally {
    await scene.close();
  }
});

test('an address is refused before anybody looks who it is, also with a wrong token', async () => {
  const { clock } = standing();
  const scene = await ApiScene.open({ clock, rates: { ratePerAddress: 2 } });
  try {
    for (const expected of [401, 401, 429, 429]) {
      const answer = await scene.request('GET', '/users', { token: 'qrt_wrong' });
      assert.equal(answer.status, expected);
    }
    assert.equal(scene.audited.filter(({ event }) => event === 'authentication').length, 2);
  } finally {
    await scene.close();
  }
});

test('changes that a rate refuses change nothing, and do not fill the audit log', async () => {
  const { clock } = standing();
  const scene = await ApiScene.open({ clock, rates: { ratePerPrincipal: 1 } });
  try {
    const token = await scene.token('root', { admin: true });
    const create = (name: string) => scene.request('POST', '/users', { token, body: { name } });
    assert.equal((await create('first')).status, 201);
    for (let n = 0; n < 100; n += 1) assert.equal((await create(`u${n}`)).status, 429);
    assert.equal(await scene.accounts.getUser('u0'), undefined);
    assert.equal(scene.audited.filter(({ event }) => event === 'admin').length, 1);
    const limits = scene.audited.filter(({ event }) => event === 'limit');
    assert.equal(limits.length, 60);
    assert.equal(limits[0]?.actor, 'root');
  } finally {
    await scene.close();
  }
});
