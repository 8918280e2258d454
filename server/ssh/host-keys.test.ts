import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import ssh2 from 'ssh2';
import { QuorateError } from '../../backends/contract/errors.js';
import { loadHostKeys, soundKeyPair, type GeneratedPair } from './host-keys.js';
import { silentLogger } from './testing/ssh-scene.js';

let root = '';
before(() => {
  root = mkdtempSync(join(tmpdir(), 'quorate-host-keys-'));
});
after(() => rmSync(root, { recursive: true, force: true }));

const fingerprints = async (directory: string): Promise<readonly string[]> => {
  const keys = await loadHostKeys(directory, silentLogger);
  return keys.map((key) => key.fingerprint);
};

test('are made once, private, and readable by OpenSSH', async () => {
  const directory = join(root, 'fresh', 'ssh');
  const keys = await loadHostKeys(directory, silentLogger);
  assert.deepEqual(
    keys.map((key) => key.type),
    ['ssh-ed25519', 'ecdsa-sha2-nistp256', 'ssh-rsa'],
  );
  assert.deepEqual(
    await fingerprints(directory),
    keys.map((key) => key.fingerprint),
  );
  const names = readdirSync(directory).filter((name) => !name.endsWith('.pub'));
  assert.equal(names.length, 3);
  const listed = names.map((name) => {
    const file = join(directory, name);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    // -y derives the public key from the private one; -l reads the .pub file.
    const derived = execFileSync('ssh-keygen', ['-y', '-f', file], { encoding: 'utf8' });
    assert.ok(keys.some((key) => derived.startsWith(key.publicLine)));
    return execFileSync('ssh-keygen', ['-l', '-f', `${file}.pub`], { encoding: 'utf8' }).split(
      ' ',
    )[1];
  });
  assert.deepEqual(new Set(listed), new Set(keys.map((key) => key.fingerprint)));
});

test('are the same for all who start at once', async () => {
  const directory = join(root, 'race');
  const [first, ...others] = await Promise.all([1, 2, 3, 4].map(() => fingerprints(directory)));
  for (const other of others) assert.deepEqual(other, first);
  assert.equal(readdirSync(directory).length, 6);
});

test('a key that others can read is closed to them', async () => {
  const directory = join(root, 'open');
  const before = await fingerprints(directory);
  const file = join(directory, 'ssh_host_ed25519_key');
  chmodSync(file, 0o644);
  assert.deepEqual(await fingerprints(directory), before);
  assert.equal(statSync(file).mode & 0o777, 0o600);
});

test('a file that is no key stops the start, and stays as it is', async () => {
  const directory = join(root, 'broken');
  await fingerprints(directory);
  writeFileSync(join(directory, 'ssh_host_rsa_key'), 'not a key', { mode: 0o600 });
  await assert.rejects(loadHostKeys(directory, silentLogger), (error: unknown) => {
    return (
      error instanceof QuorateError &&
      error.code === 'failed-precondition' &&
      /ssh_host_rsa_key/.test(error.message)
    );
  });
});

test('an unusable directory is named, with what the system says', async () => {
  writeFileSync(join(root, 'file'), '');
  const directory = join(root, 'file', 'ssh');
  await assert.rejects(loadHostKeys(directory, silentLogger), (error: unknown) => {
    assert.ok(error instanceof QuorateError && error.code === 'storage-failure');
    assert.ok(error.message.includes(`${directory} can be neither read nor made (ENOTDIR)`));
    return true;
  });
});

test('a pair that ssh2 wrote wrong is thrown away and made again', async () => {
  const { generateKeyPairSync } = ssh2.utils;
  // Not ed25519, of which ssh2 makes bad ones.
  const [sound, other] = [1, 2].map(() => generateKeyPairSync('ecdsa', { bits: 256 }));
  assert.ok(sound !== undefined && other !== undefined);
  const foreign = { private: sound.private, public: other.public };
  const damaged = { private: sound.private.replace(/\n.{8}/, '\n'), public: sound.public };
  const pairs: GeneratedPair[] = [damaged, foreign, sound];
  const made = await soundKeyPair(
    async () => pairs.shift() ?? assert.fail('no pair was good enough'),
  );
  assert.equal(made, sound);
  await assert.rejects(
    soundKeyPair(async () => damaged),
    QuorateError,
  );
});
