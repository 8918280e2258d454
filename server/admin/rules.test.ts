import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { ApiScene } from './testing/api-scene.js';

let scene: ApiScene;
let admin: string;

beforeEach(async () => {
  scene = await ApiScene.open();
  admin = await scene.token('root', { admin: true });
  await scene.token('ann');
  await scene.options.directory.createGroup('release');
  await scene.options.issuers.set({
    name: 'ci',
    issuer: 'https://ci.example.org',
    audience: 'quorate',
    jwksUrl: null,
    algorithms: ['ES256'],
    claims: { sub: 'job' },
    repositories: 'team/*',
    level: 'write',
  });
  await scene.createRepository('team/app');
});
afterEach(async () => await scene.close());

const deployKey = `deploy-key:SHA256:${'A'.repeat(43)}`;

for (const path of ['/repositories/team%2Fapp/rules/main', '/rules/main']) {
  const set = (fields: object) =>
    scene.request('PUT', path, { token: admin, body: { refs: 'refs/heads/main', ...fields } });

  describe(`who is named by a rule: ${path}`, () => {
    test('users, groups, CI entries, and deploy keys that may come later', async () => {
      const known = ['ann', '@release', 'oidc:ci', deployKey];
      const made = await set({ push: known, exempt: known });
      assert.equal(made.status, 201, made.text);
    });

    for (const { name, problem } of [
      { name: 'mallory', problem: 'there is no user mallory' },
      { name: '@relase', problem: 'there is no group relase' },
      { name: 'oidc:cd', problem: 'there is no issuer cd' },
    ]) {
      test(`nobody, as ${name}`, async () => {
        for (const [field, fields] of [
          ['push', { push: ['ann', name] }],
          ['exempt', { noDeletion: true, exempt: [name] }],
        ] as const) {
          const refused = await set(fields);
          assert.equal(refused.status, 404, refused.text);
          assert.equal(refused.body?.['detail'], `${field}: ${problem}`);
        }
        const list = path.replace(/\/main$/, '');
        const listed = await scene.request('GET', list, { token: admin });
        assert.deepEqual(listed.body?.['rules'], []);
      });
    }

    test('a group that is removed afterwards is nobody, and does not come back', async () => {
      const rule = { push: ['ann', '@release'] };
      assert.equal((await set(rule)).status, 201);
      await scene.options.directory.removeGroup('release');
      assert.equal((await set(rule)).status, 404);
      await assert.rejects(scene.options.directory.createGroup('release'), {
        code: 'already-exists',
      });
      assert.equal((await set({ push: ['ann'] })).status, 200);
    });
  });
}
