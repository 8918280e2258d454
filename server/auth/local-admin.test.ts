import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Logger } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { testClock } from '../admin/testing/api-scene.js';
import { createAccounts } from './account-store.js';
import { LocalAdmin } from './local-admin.js';
import { asCoordinator, MemoryCoordinator } from './memory-coordinator.fixture.js';

const ignore = (): void => undefined;
const silentLogger: Logger = {
  debug: ignore,
  info: ignore,
  warn: ignore,
  error: ignore,
  child: () => silentLogger,
};

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'quorate-local-admin-'));
});
after(() => rm(directory, { recursive: true }));

async function scene() {
  const memory = new MemoryCoordinator();
  const coordinator = asCoordinator(memory);
  let lost = false;
  const accounts = createAccounts({
    coordinator: {
      ...coordinator,
      get: (key) => {
        if (lost) throw new QuorateError('unavailable', 'it is lost');
        return coordinator.get(key);
      },
    },
    clock: testClock,
    random: { bytes: (length) => randomBytes(length) },
  });
  await accounts.createUser({ name: 'admin', admin: true, canCreate: true });
  const made = await accounts.createToken({ user: 'admin', name: 'first start', scope: 'admin' });
  const tokenFile = join(directory, 'admin-token');
  await writeFile(tokenFile, `${made.secret}\n`);
  const options = { accounts, clock: testClock, logger: silentLogger, tokenFile, user: 'admin' };
  const lose = (): void => void (lost = true);
  return { ...made, accounts, lose, localAdmin: new LocalAdmin(options) };
}

test('the token of the data directory signs in once the coordinator has said that it is good, also when that is lost', async () => {
  const { secret, token, localAdmin, lose } = await scene();
  assert.equal(localAdmin.principalOf(secret), undefined);
  await localAdmin.look();
  lose();
  await assert.rejects(localAdmin.look(), { code: 'unavailable' });
  const principal = localAdmin.principalOf(secret);
  assert.ok(principal?.kind === 'user' && principal.admin && principal.recalled);
  assert.deepEqual(principal.via, {
    type: 'token',
    tokenId: token.id,
    scope: 'admin',
    repositoryPattern: undefined,
  });
  assert.equal(localAdmin.principalOf(`${secret}x`), undefined);
  assert.equal(localAdmin.principalOf(''), undefined);
});

test('a token that was revoked, or whose user was disabled, signs nobody in', async () => {
  const revoked = await scene();
  await revoked.localAdmin.look();
  await revoked.accounts.revokeToken(revoked.token.id);
  await revoked.localAdmin.look();
  assert.equal(revoked.localAdmin.principalOf(revoked.secret), undefined);

  const disabled = await scene();
  await disabled.accounts.setUserDisabled('admin', true);
  await disabled.localAdmin.look();
  assert.equal(disabled.localAdmin.principalOf(disabled.secret), undefined);
});
