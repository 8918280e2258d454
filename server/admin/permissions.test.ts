import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleFields } from '../../hooks/rules/rule.js';
import {
  newKey,
  newOpenpgpKey,
  type Place,
  type PrincipalName,
  principals,
  rows,
  trust,
} from './testing/access-table.js';
import { ApiScene, machineToken } from './testing/api-scene.js';

describe('who may do what', () => {
  for (const { desc, request, expected } of rows) {
    test(desc, async () => {
      for (const [index, principal] of principals.entries()) {
        const scene = await ApiScene.open();
        try {
          const { token, place } = await populate(scene, principal);
          const [method, path, body] = request(place);
          const answer = await scene.request(method, path, { token, body });
          assert.equal(answer.status, expected[index], `${principal}: ${answer.text}`);
          checkTrace(scene, { method, principal, place, status: answer.status });
          if (answer.status >= 400) checkUnchanged(scene);
        } finally {
          await scene.close();
        }
      }
    });
  }

  test('a machine administers repositories that it reaches, and nothing else', async () => {
    const allowed: string[] = [];
    for (const { desc, action, request, expected } of rows) {
      const scene = await ApiScene.open();
      try {
        const { place } = await populate(scene, 'stranger');
        const [method, path, body] = request(place);
        const answer = await scene.request(method, path, { token: machineToken, body });
        const owners = expected[principals.indexOf('owner')];
        const ofApp = path.startsWith('/repositories/team%2Fapp');
        if (answer.status < 400) {
          const everybodys = expected[principals.indexOf('anonymous')] === answer.status;
          assert.ok(everybodys || (ofApp && owners === answer.status), `${desc}: ${answer.text}`);
          allowed.push(action);
        } else {
          assert.ok([403, 404].includes(answer.status), `${desc}: ${answer.text}`);
          checkUnchanged(scene);
        }
      } finally {
        await scene.close();
      }
    }
    for (const action of ['repository.set', 'repository.grant', 'deploy-key.add']) {
      assert.ok(allowed.includes(action), action);
    }
  });

  test('without authentication everything is allowed', async () => {
    for (const { desc, request, expected } of rows) {
      const scene = await ApiScene.open({ noAuth: true });
      try {
        const { place } = await populate(scene, 'owner');
        const [method, path, body] = request(place);
        const answer = await scene.request(method, path, { token: 'whatever', body });
        // The administrator's column, in which `self` may not be a user of the server.
        assert.equal(
          answer.status,
          expected[principals.indexOf('admin')],
          `${desc}: ${answer.text}`,
        );
      } finally {
        await scene.close();
      }
    }
  });

  test('no endpoint is missing from the table', async () => {
    const { adminEndpoints } = await import('./admin-api.js');
    const tested = new Set(rows.map(({ action }) => action));
    const scene = await ApiScene.open();
    await scene.close();
    const offered = adminEndpoints(scene.options).map(({ action }) => action);
    assert.deepEqual([...tested].sort(), [...new Set(offered)].sort());
  });
});

/** Repositories, users, keys and tokens; and the token that `principal` signs in with. */
async function populate(
  scene: ApiScene,
  principal: PrincipalName,
): Promise<{ token: string | undefined; place: Place }> {
  const { accounts, backend } = scene;
  await scene.token('victim');
  for (const user of ['reader', 'writer', 'owner']) await scene.token(user);
  const { directory, authorities, issuers } = scene.options;
  await issuers.set({ ...trust, name: 'ci', jwksUrl: null, algorithms: ['ES256'] });
  const authority = await authorities.add(newKey());
  const revocation = await authorities.revoke({ kind: 'key-id', value: 'victim' });
  await directory.createGroup('crew');
  await directory.addMember('crew', 'reader');
  await directory.setGrant({ pattern: 'else/*', subject: '@crew', level: 'admin' });
  const make = (
    name: string,
    access: { public: boolean; grants: Record<string, 'read' | 'write' | 'admin'> },
  ) =>
    backend.repositories.create({
      name,
      defaultBranch: 'main',
      objectFormat: 'sha1',
      settings: {},
      access,
    });
  const app = await make('team/app', {
    public: false,
    grants: { reader: 'read', writer: 'write', owner: 'admin' },
  });
  const deployKey = await accounts.addDeployKey({
    repositoryId: app.id,
    line: newKey(),
    write: false,
  });
  await make('open/lib', { public: true, grants: {} });
  const kept = ruleFields.parse({ refs: '**', noDeletion: true });
  await scene.options.rules.put({ repositoryId: app.id }, 'kept', kept);
  await scene.options.rules.put('server', 'kept', kept);
  await scene.options.quotas.set(app, 4096);
  await scene.options.quotas.set({ owner: 'team' }, 4096);
  const hook = { content: Buffer.from('#!/bin/sh\n'), by: 'root' };
  await scene.options.hooks.set({ repositoryId: app.id }, 'pre-receive', hook);
  await scene.options.hooks.set('server', 'pre-receive', hook);
  const { webhooks } = scene.options;
  const receiver = {
    url: 'https://ci.example.org/hook',
    events: ['push' as const],
    secret: '0123456789abcdef',
    by: 'root',
  };
  const ofApp = { repositoryId: app.id };
  const webhook = await webhooks.add(ofApp, receiver);
  const serverWebhook = await webhooks.add('server', receiver);
  const { self, token } = await signIn(scene, principal);
  const known = await accounts.getUser(self);
  const own =
    known === undefined
      ? undefined
      : await accounts.createToken({ user: self, name: 'other', scope: 'read' });
  const ownKey = known === undefined ? undefined : await accounts.addKey(self, newKey());
  const inUse = (await accounts.listTokens(self)).find(({ name }) => name === 'in use');
  const [victimToken] = await accounts.listTokens('victim');
  return {
    token,
    place: {
      self,
      ownKey: ownKey?.fingerprint ?? 'none',
      victimKey: (await accounts.addKey('victim', newKey())).fingerprint,
      deployKey: deployKey.fingerprint,
      ownSigningKey:
        known === undefined
          ? 'none'
          : (await scene.options.openpgpKeys.add(self, newOpenpgpKey())).fingerprint,
      victimSigningKey: (await scene.options.openpgpKeys.add('victim', newOpenpgpKey()))
        .fingerprint,
      authority: authority.fingerprint,
      revocation: revocation.id,
      tokenInUse: inUse?.id ?? 'none',
      otherToken: own?.token.id ?? 'none',
      victimToken: victimToken?.id ?? 'none',
      webhook: webhook.id,
      delivery: (await webhooks.test(ofApp, webhook.id, app)).id,
      serverWebhook: serverWebhook.id,
      serverDelivery: (await webhooks.test('server', serverWebhook.id, null)).id,
    },
  };
}

async function signIn(
  scene: ApiScene,
  principal: PrincipalName,
): Promise<{ self: string; token: string | undefined }> {
  const token = async (self: string, options: Parameters<ApiScene['token']>[1] = {}) => ({
    self,
    token: await scene.token(self, { name: 'in use', ...options }),
  });
  switch (principal) {
    case 'anonymous':
      return { self: 'nobody', token: undefined };
    case 'unknown':
      return {
        self: 'nobody',
        token: (await scene.token('gone')).replace(/.$/, (last) => (last === '0' ? '1' : '0')),
      };
    case 'stranger':
    case 'reader':
    case 'writer':
    case 'owner':
      return token(principal);
    case 'noCreate':
      return token('nocreate', { canCreate: false });
    case 'ownerWrite':
      return token('owner', { scope: 'write' });
    case 'ownerRead':
      return token('owner', { scope: 'read' });
    case 'ownerOther':
      return token('owner', { repositoryPattern: 'other/*' });
    case 'admin':
      return token('root', { admin: true });
    case 'adminWrite':
      return token('root', { admin: true, scope: 'write' });
    case 'adminTeam':
      return token('root', { admin: true, repositoryPattern: 'team/*' });
  }
}

/** Every change leaves exactly one audit event, also when it was refused; reading leaves none. */
function checkTrace(
  scene: ApiScene,
  of: { method: string; principal: PrincipalName; place: Place; status: number },
): void {
  const events = scene.audited.filter(({ event }) => event === 'admin');
  if (of.method === 'GET') {
    assert.deepEqual(events, []);
    return;
  }
  assert.equal(events.length, 1);
  const [event] = events;
  const somebody = of.principal !== 'anonymous' && of.principal !== 'unknown';
  assert.equal(event?.actor, somebody ? of.place.self : 'anonymous');
  assert.equal(event?.outcome, of.status < 400 ? 'ok' : 'refused');
  assert.match(event?.remoteAddress ?? '', /127\.0\.0\.1/);
}

/** What was refused has changed nothing. */
function checkUnchanged({ backend }: ApiScene): void {
  assert.deepEqual(
    [...backend.records.values()].map(({ name, epoch }) => `${name} ${epoch}`),
    ['team/app 1', 'open/lib 1'],
  );
  assert.deepEqual(backend.imported, []);
}
