import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { beforeEach, test } from 'node:test';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError, type ErrorCode } from '../../backends/contract/errors.js';
import { createAccessDirectory, type AccessDirectory } from './access-directory.js';
import { createAccounts } from './account-store.js';
import type { Accounts } from './accounts.js';
import { asCoordinator, MemoryCoordinator, unused } from './memory-coordinator.fixture.js';
import type { Membership } from './principal.js';

const clock: Clock = { nowMs: () => 1000, monotonicMs: () => 0, sleep: unused };
const rejects = (promise: Promise<unknown>, code: ErrorCode): Promise<void> =>
  assert.rejects(promise, (error) => error instanceof QuorateError && error.code === code);

let memory: MemoryCoordinator;
let directory: AccessDirectory;
let accounts: Accounts;
let secret: string;

beforeEach(async () => {
  memory = new MemoryCoordinator();
  const coordinator = asCoordinator(memory);
  directory = createAccessDirectory({ coordinator, clock });
  accounts = createAccounts({
    coordinator,
    clock,
    random: { bytes: (length) => randomBytes(length) },
  });
  for (const name of ['ann', 'bob']) await accounts.createUser({ name, admin: false });
  ({ secret } = await accounts.createToken({ user: 'ann', name: '', scope: 'admin' }));
});

async function annsMembership(): Promise<Membership | undefined> {
  const principal = await accounts.authenticateToken(secret);
  assert.equal(principal?.kind, 'user');
  return principal?.kind === 'user' ? principal.membership : undefined;
}

test('a change to groups and grants holds from the next sign-in on', async () => {
  assert.equal(await annsMembership(), undefined);
  await directory.createGroup('crew');
  await directory.addMember('crew', 'ann');
  await directory.addMember('crew', 'ann');
  assert.deepEqual(await annsMembership(), { groups: ['crew'], grants: [] });
  await directory.setGrant({ pattern: 'team/*', subject: '@crew', level: 'read' });
  await directory.setGrant({ pattern: 'team/*', subject: '@crew', level: 'write' });
  await directory.setGrant({ pattern: 'lib/**', subject: 'ann', level: 'admin' });
  await directory.setGrant({ pattern: 'lib/**', subject: 'bob', level: 'admin' });
  assert.deepEqual(await annsMembership(), {
    groups: ['crew'],
    grants: [
      { pattern: 'lib/**', level: 'admin' },
      { pattern: 'team/*', level: 'write' },
    ],
  });
  await directory.removeMember('crew', 'ann');
  assert.deepEqual(await annsMembership(), {
    groups: [],
    grants: [{ pattern: 'lib/**', level: 'admin' }],
  });
  await directory.removeGrant('lib/**', 'ann');
  assert.equal(await annsMembership(), undefined);
});

test('a removed group takes its grants along, and its name is not given again', async () => {
  await directory.createGroup('crew');
  await directory.addMember('crew', 'ann');
  for (let n = 0; n < 250; n++) {
    await directory.setGrant({ pattern: `t${n}/*`, subject: '@crew', level: 'read' });
  }
  await directory.setGrant({ pattern: 'team/*', subject: 'bob', level: 'read' });
  await directory.removeGroup('crew');
  assert.equal(await annsMembership(), undefined);
  assert.deepEqual(await directory.listGroups(), []);
  assert.deepEqual(await directory.listGrants(), [
    { pattern: 'team/*', subject: 'bob', level: 'read' },
  ]);
  await rejects(directory.createGroup('crew'), 'already-exists');
  await rejects(directory.addMember('crew', 'ann'), 'not-found');
  await rejects(directory.removeGroup('crew'), 'not-found');
  await rejects(
    directory.setGrant({ pattern: 'team/*', subject: '@crew', level: 'read' }),
    'not-found',
  );
});

test('what does not fit is refused and changes nothing', async () => {
  await directory.createGroup('crew');
  const before = memory.revision;
  await rejects(directory.createGroup('crew'), 'already-exists');
  await rejects(directory.createGroup('@crew'), 'invalid-argument');
  await rejects(directory.createGroup('../users/ann'), 'invalid-argument');
  await rejects(directory.addMember('crew', 'nobody'), 'not-found');
  await rejects(directory.addMember('none', 'ann'), 'not-found');
  await rejects(directory.removeMember('crew', 'ann'), 'not-found');
  for (const subject of ['nobody', '@none', '', '@', 'ann:x', '@crew/x']) {
    await rejects(directory.setGrant({ pattern: 'team/*', subject, level: 'read' }), 'not-found');
    await rejects(directory.removeGrant('team/*', subject), 'not-found');
  }
  for (const pattern of ['', '/x', 'a:b', 'a//b']) {
    await rejects(
      directory.setGrant({ pattern, subject: 'ann', level: 'read' }),
      'invalid-argument',
    );
    await rejects(directory.removeGrant(pattern, 'ann'), 'not-found');
  }
  assert.equal(memory.revision, before);
});

test('members who join at once are all members', async () => {
  await directory.createGroup('crew');
  await Promise.all(['ann', 'bob'].map((user) => directory.addMember('crew', user)));
  assert.deepEqual((await directory.getGroup('crew'))?.members, ['ann', 'bob']);
});

test('a change while groups are being read is not missed', async () => {
  await directory.createGroup('crew');
  await directory.addMember('crew', 'ann');
  // The next sign-in reads the groups; while it does, ann is taken out.
  const range = memory.range.bind(memory);
  let interfere = true;
  memory.range = async (key, options) => {
    const answer = await range(key, options);
    if (interfere && key === 'groups/') {
      interfere = false;
      await directory.removeMember('crew', 'ann');
    }
    return answer;
  };
  assert.equal(await annsMembership(), undefined);
});
