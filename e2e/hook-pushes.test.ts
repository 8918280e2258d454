import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { waitFor } from './harness.js';
import { type Ground, HookGround, transports } from './hook-ground.js';

// Hooks that push: to their own repository, which is refused at once, and to others.

let at: HookGround;
let sshCommand = '';
before(async () => {
  at = await HookGround.open();
  const key = await at.scene.sshKey();
  await at.scene.admin(at.server, 'key', 'add', 'admin', key.publicKeyFile);
  sshCommand = (await key.environment(at.server))['GIT_SSH_COMMAND'] ?? '';
});
after(() => at.scene.close());

/** As the hook's own git sends it, with the key of the test. */
const inner = {
  http: '',
  ssh: 'GIT_SSH_COMMAND="$(git config core.sshCommand) ${SSH#ssh}" ',
} as const;

async function setPushingHook(
  repository: Ground,
  of: { readonly stage: string; readonly via: 'http' | 'ssh'; readonly to: string; ref: string },
): Promise<void> {
  const tip = of.stage === 'update' ? '$3' : '$new';
  await at.setHook(repository.name, of.stage, [
    ...(of.stage === 'update' ? [] : ['read old new ref']),
    `SSH='${sshCommand}'`,
    `${inner[of.via]}git push "${at.url(of.via, of.to)}" "${tip}:${of.ref}" 2>&1 || exit 1`,
  ]);
}

for (const via of transports) {
  for (const stage of ['pre-receive', 'update'] as const) {
    for (const ref of ['refs/heads/main', 'refs/heads/other']) {
      test(`${stage} over ${via} to ${ref} of its own repository: refused at once`, async () => {
        const repository = await at.make();
        await setPushingHook(repository, { stage, via, to: repository.name, ref });
        const before = await at.remoteTip(repository, 'refs/heads/main');
        const result = await at.push('http', repository, ['main']);
        assert.equal(result.exitCode, 1);
        assert.match(result.stderr, /a hook may not push to its own repository: hooks\/r\d+ waits/);
        // By the hook's own exit, and not by its time.
        assert.match(result.stdout, /\[remote rejected\] \((pre-receive )?hook declined\)/);
        assert.equal(await at.remoteTip(repository, 'refs/heads/main'), before);
        assert.equal(await at.remoteTip(repository, 'refs/heads/other'), '');
        await at.removeHook(repository.name, stage);
        assert.equal((await at.push('ssh', repository, ['main'])).exitCode, 0);
      });
    }
  }

  describe(`hooks that push elsewhere over ${via}`, () => {
    test('to another repository, before the commit', async () => {
      const [repository, mirror] = [await at.make(), await at.make()];
      await setPushingHook(repository, {
        stage: 'pre-receive',
        via,
        to: mirror.name,
        ref: 'refs/heads/mirror',
      });
      const result = await at.push('http', repository, ['main']);
      assert.equal(result.exitCode, 0, result.stderr);
      const tip = await at.tip(repository, 'main');
      assert.equal(await at.remoteTip(mirror, 'refs/heads/mirror'), tip);
    });

    test('to its own repository, after the commit', async () => {
      const repository = await at.make();
      await at.setHook(repository.name, 'post-receive', [
        'read old new ref',
        `SSH='${sshCommand}'`,
        '[ "$ref" = refs/heads/main ] || exit 0',
        `${inner[via]}git push "${at.url(via, repository.name)}" "$new:refs/heads/after" 2>&1`,
      ]);
      const result = await at.push('http', repository, ['main']);
      assert.equal(result.exitCode, 0, result.stderr);
      const tip = await at.tip(repository, 'main');
      await waitFor('its push', async () => {
        return (await at.remoteTip(repository, 'refs/heads/after')) === tip;
      });
    });
  });
}
