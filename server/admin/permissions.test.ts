import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleFields } from '../../hooks/rules/rule.js';
import type { AuditEvent } from '../observe/audit.js';
import {
  newKey,
  newOpenpgpKey,
  type Place,
  type PrincipalName,
  principals,
  rows,
  trust,
} from './testing/access-table.js';
import { type ApiAnswer, ApiScene, machineToken } from './testing/api-scene.js';

describe('who may do what', () => {
  for (const { desc, request, expected } of rows) {
    test(desc, async () => {
      const ground = new Ground();
      try {
        for (const [index, principal] of principals.entries()) {
          const { scene, place, token } = await ground.signedIn(principal);
          const asked = request(place);
          const [method] = asked;
          const before = scene.audited.length;
          const answer = await ground.ask(asked, token);
          assert.equal(answer.status, expected[index], `${principal}: ${answer.text}`);
          const events = scene.audited.slice(before);
          checkTrace(events, { method, principal, place, status: answer.status });
          if (answer.status >= 400) checkUnchanged(scene);
        }
      } finally {
        await ground.close();
      }
    });
  }

  test('a machine administers repositories that it reaches, and nothing else', async () => {
    const allowed: string[] = [];
    const ground = new Ground();
    try {
      for (const { desc, action, request, expected } of rows) {
        const { scene, place } = await ground.signedIn('stranger');
        const asked = request(place);
        const [, path] = asked;
        const answer = await ground.ask(asked, machineToken);
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
      }
    } finally {
      await ground.close();
    }
    for (const action of ['repository.set', 'repository.grant', 'deploy-key.add']) {
      assert.ok(allowed.includes(action), action);
    }
  });

  test('without authentication everything is allowed', async () => {
    const ground = new Ground({ noAuth: true });
    try {
      for (const { desc, request, expected } of rows) {
        const { place } = await ground.signedIn('owner');
        const answer = await ground.ask(request(place), 'whatever');
        // The administrator's column, in which `self` may not be a user of the server.
        assert.equal(
          answer.status,
          expected[principals.indexOf('admin')],
          `${desc}: ${answer.text}`,
        );
      }
    } finally {
      await ground.close();
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

/**
 * A scene that is used until a request has changed something: most requests of the table are refused or only read, and
 * a scene, with a server of its own, costs more than all that is asked of it.
 */
class Ground {
  readonly #options: Parameters<typeof ApiScene.open>[0];
  #scene: ApiScene | undefined;
  #shared: SharedPlace | undefined;

  constructor(options: Parameters<typeof ApiScene.open>[0] = {}) {
    this.#options = options;
  }

  /** Where `principal` is about to ask, and the token that it signs in with. */
  async signedIn(
    principal: PrincipalName,
  ): Promise<{ scene: ApiScene; place: Place; token: string | undefined }> {
    const scene = (this.#scene ??= await ApiScene.open(this.#options));
    const shared = (this.#shared ??= await populate(scene));
    const { self, token } = await signIn(scene, principal);
    return { scene, token, place: { ...shared, ...(await ownPlace(scene, self, principal)) } };
  }

  async ask(
    [method, path, body]: ReturnType<(typeof rows)[number]['request']>,
    token: string | undefined,
  ): Promise<ApiAnswer> {
    assert.ok(this.#scene !== undefined, 'somebody has signed in');
    const answer = await this.#scene.request(method, path, { token, body });
    if (method !== 'GET' && answer.status < 400) await this.close();
    return answer;
  }

  async close(): Promise<void> {
    const scene = this.#scene;
    this.#scene = undefined;
    this.#shared = undefined;
    await scene?.close();
  }
}

type OwnPlace = Pick<Place, 'self' | 'ownKey' | 'ownSigningKey' | 'tokenInUse' | 'otherToken'>;
type SharedPlace = Omit<Place, keyof OwnPlace>;

/** Repositories, users, keys and tokens. */
async function populate(scene: ApiScene): Promise<SharedPlace> {
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
  const [victimToken] = await accounts.listTokens('victim');
  return {
    victimKey: (await accounts.addKey('victim', newKey())).fingerprint,
    deployKey: deployKey.fingerprint,
    victimSigningKey: (await scene.options.openpgpKeys.add('victim', newOpenpgpKey())).fingerprint,
    authority: authority.fingerprint,
    revocation: revocation.id,
    victimToken: victimToken?.id ?? 'none',
    webhook: webhook.id,
    delivery: (await webhooks.test(ofApp, webhook.id, app)).id,
    serverWebhook: serverWebhook.id,
    serverDelivery: (await webhooks.test('server', serverWebhook.id, null)).id,
  };
}

/** What `principal` has of its own. */
async function ownPlace(
  { accounts, options }: ApiScene,
  self: string,
  principal: PrincipalName,
): Promise<OwnPlace> {
  if ((await accounts.getUser(self)) === undefined) {
    const none = 'none';
    return { self, ownKey: none, ownSigningKey: none, tokenInUse: none, otherToken: none };
  }
  const tokens = await accounts.listTokens(self);
  const other = await accounts.createToken({ user: self, name: 'other', scope: 'read' });
  return {
    self,
    ownKey: (await accounts.addKey(self, newKey())).fingerprint,
    ownSigningKey: (await options.openpgpKeys.add(self, newOpenpgpKey())).fingerprint,
    tokenInUse: tokens.find(({ name }) => name === inUseBy(principal))?.id ?? 'none',
    otherToken: other.token.id,
  };
}

function inUseBy(principal: PrincipalName): string {
  return `in use by ${principal}`;
}

async function signIn(
  scene: ApiScene,
  principal: PrincipalName,
): Promise<{ self: string; token: string | undefined }> {
  const token = async (self: string, options: Parameters<ApiScene['token']>[1] = {}) => ({
    self,
    token: await scene.token(self, { name: inUseBy(principal), ...options }),
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
  audited: readonly AuditEvent[],
  of: { method: string; principal: PrincipalName; place: Place; status: number },
): void {
  const events = audited.filter(({ event }) => event === 'admin');
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
