import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { accepted, refused, RuleGround, transports } from './rule-ground.js';

// The branch rule that wants signed commits.

let rules: RuleGround;
before(async () => {
  rules = await RuleGround.open();
});
after(() => rules.scene.close());

for (const transport of transports) {
  test(`SSH keys of users count, others and none do not: ${transport}`, async () => {
    const at = await rules.ground();
    await rules.set(at.name, 'signed', '--refs', 'refs/heads/main', '--signed');
    await rules.commit(at.clone, 'unsigned');
    refused(
      await rules.push(at, rules.ann, transport, ['main']),
      /rule signed: commit .* is not signed\)/,
    );
    await rules.scene.git(['reset', '-q', '--soft', 'HEAD~1'], { cwd: at.clone });
    const stranger = await rules.scene.sshKey();
    const signWith = async (file: string): Promise<void> => {
      await rules.scene.git(
        [
          '-c',
          'gpg.format=ssh',
          '-c',
          `user.signingKey=${file}`,
          'commit',
          '-q',
          '-S',
          '--allow-empty',
          '-m',
          'signed',
        ],
        { cwd: at.clone },
      );
    };
    await signWith(stranger.privateKeyFile);
    refused(
      await rules.push(at, rules.ann, transport, ['main']),
      /rule signed: commit .* is not signed by a key that is registered here/,
    );
    await rules.scene.git(['reset', '-q', '--soft', 'HEAD~1'], { cwd: at.clone });
    await signWith(rules.bob.privateKeyFile);
    await signWith(rules.ann.privateKeyFile);
    accepted(await rules.push(at, rules.ann, transport, ['main']));
    await signWith(rules.bob.privateKeyFile);
    await rules.admin('user', 'disable', 'bob');
    refused(
      await rules.push(at, rules.ann, transport, ['main']),
      /not signed by a key that is registered/,
    );
    await rules.admin('user', 'enable', 'bob');
    accepted(await rules.push(at, rules.ann, transport, ['main']));
    // A signature that was moved to another commit is none.
    const forged = (
      await rules.scene.git(['cat-file', 'commit', 'HEAD'], { cwd: at.clone })
    ).replace(/\nsigned\n/, '\nforged\n');
    const oid = await rules.scene.git(['hash-object', '-w', '-t', 'commit', '--stdin'], {
      cwd: at.clone,
      stdin: forged,
    });
    refused(
      await rules.push(at, rules.ann, transport, [`+${oid.trim()}:refs/heads/main`]),
      /rule signed: commit/,
    );
  });
}

test('registered OpenPGP keys count', async (t) => {
  if ((await rules.scene.run('gpg', ['--version'])).exitCode !== 0) {
    t.skip('no gpg on this machine');
    return;
  }
  const at = await rules.ground();
  const home = rules.scene.path('tmp', 'gnupg');
  const env = { GNUPGHOME: home };
  await mkdir(home, { mode: 0o700 });
  t.after(async () => {
    await rules.scene.run('gpgconf', ['--kill', 'all'], { env });
    await rm(home, { recursive: true, force: true });
  });
  const made = await rules.scene.run(
    'gpg',
    [
      '--batch',
      '--quiet',
      '--passphrase',
      '',
      '--quick-generate-key',
      'Test <test@example.org>',
      'ed25519',
      'sign',
      'never',
    ],
    { env },
  );
  assert.equal(made.exitCode, 0, made.stderr);
  const exported = await rules.scene.run('gpg', ['--export', '--armor'], { env });
  const keyFile = rules.scene.path('keys', 'openpgp.asc');
  await writeFile(keyFile, exported.stdout);
  await rules.set(at.name, 'signed', '--refs', 'refs/heads/main', '--signed');
  await rules.scene.git(
    ['-c', 'gpg.format=openpgp', 'commit', '-q', '-S', '--allow-empty', '-m', 'signed'],
    { cwd: at.clone, env },
  );
  refused(
    await rules.push(at, rules.ann, 'http', ['main']),
    /not signed by a key that is registered/,
  );
  await rules.admin('signing-key', 'add', 'ann', keyFile);
  accepted(await rules.push(at, rules.ann, 'http', ['main']));
});
