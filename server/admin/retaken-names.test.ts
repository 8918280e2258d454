import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import { ApiScene } from './testing/api-scene.js';

// A request that opened a repository sets nothing for another one that has its id by now (directory backend).

let scene: ApiScene;
let admin: string;
let id: string;

beforeEach(async () => {
  scene = await ApiScene.open();
  admin = await scene.token('root', { admin: true });
  await scene.createRepository('team/app');
  id = (await scene.backend.repositories.get('team/app'))?.id ?? '';
});
afterEach(async () => await scene.close());

const hook = Buffer.from('#!/bin/sh\n').toString('base64');
const key =
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ci@example.org';

const settings: readonly {
  readonly desc: string;
  readonly set: readonly ['PUT' | 'POST', string, object];
  readonly remove: string;
  readonly isSet: () => Promise<boolean>;
}[] = [
  {
    desc: 'a rule',
    set: ['PUT', 'rules/main', { refs: 'refs/heads/main', noDeletion: true }],
    remove: 'rules/main',
    isSet: async () => (await scene.options.rules.list({ repositoryId: id })).length > 0,
  },
  {
    desc: 'a hook',
    set: ['PUT', 'hooks/update', { content: hook }],
    remove: 'hooks/update',
    isSet: async () => (await scene.options.hooks.list({ repositoryId: id })).length > 0,
  },
  {
    desc: 'a deploy key',
    set: ['POST', 'deploy-keys', { key }],
    remove: '',
    isSet: async () => (await scene.accounts.listDeployKeys(id)).length > 0,
  },
  {
    desc: 'a quota',
    set: ['PUT', 'quota', { bytes: 1024 ** 3 }],
    remove: 'quota',
    isSet: async () => (await scene.options.quotas.list()).length > 0,
  },
];

const path = (rest: string): string => `/repositories/team%2Fapp/${rest}`;
const gone = (): Promise<never> => Promise.reject(new QuorateError('not-found', 'gone'));

for (const { desc, set, remove, isSet } of settings) {
  test(`${desc} is neither set nor removed when its repository is another one by now`, async () => {
    const { repositories } = scene.backend;
    const [method, place, body] = set;
    const put = () => scene.request(method, path(place), { token: admin, body });

    repositories.whileNamed = gone;
    const refused = await put();
    assert.equal(refused.status, 404, refused.text);
    assert.equal(await isSet(), false);

    repositories.whileNamed = (_repository, write) => write();
    const done = await put();
    assert.ok(done.status < 300, done.text);
    assert.equal(await isSet(), true);

    repositories.whileNamed = gone;
    const fingerprint = (await scene.accounts.listDeployKeys(id))[0]?.fingerprint ?? '';
    const target = remove === '' ? `deploy-keys/${encodeURIComponent(fingerprint)}` : remove;
    const kept = await scene.request('DELETE', path(target), { token: admin });
    assert.equal(kept.status, 404, kept.text);
    assert.equal(await isSet(), true);
  });
}
