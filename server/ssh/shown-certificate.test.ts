import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseSshCertificateLine } from '../auth/ssh-certificate.js';
import type { HostCertificate } from './host-certificate.js';
import type { HostKey } from './host-keys.js';
import { FakeGitService } from './testing/fake-git-service.js';
import { collect, createSshScene, type Finished, type SshScene } from './testing/ssh-scene.js';

// What OpenSSH makes of a certificate that this server would not show: that of a server whose clock is wrong.

let directory = '';
let scene: SshScene;
let key = '';

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'quorate-shown-'));
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(directory, 'ca')]);
  scene = await createSshScene(new FakeGitService(), {
    certificates: (hostKeys) => hostKeys.slice(0, 1).map(expired),
  });
  key = scene.addKey('alice', { keygen: ['-t', 'ed25519'] });
});
after(async () => {
  await scene.close();
  rmSync(directory, { recursive: true, force: true });
});

function expired(hostKey: HostKey): HostCertificate {
  const file = join(directory, 'host');
  writeFileSync(`${file}.pub`, `${hostKey.publicLine}\n`);
  const wanted = ['-I', 'host', '-h', '-n', '127.0.0.1', '-V', '-2h:-1h'];
  execFileSync('ssh-keygen', ['-q', '-s', join(directory, 'ca'), ...wanted, `${file}.pub`]);
  const text = readFileSync(`${file}-cert.pub`, 'utf8');
  const { certificate: content, blob } = parseSshCertificateLine(text);
  return { hostKey, blob, content };
}

function ssh(...knownHosts: readonly string[]): Promise<Finished> {
  const file = join(directory, 'known');
  writeFileSync(file, knownHosts.map((line) => `${line}\n`).join(''));
  const options = [
    'IdentitiesOnly=yes',
    'BatchMode=yes',
    'StrictHostKeyChecking=yes',
    `UserKnownHostsFile=${file}`,
    'GlobalKnownHostsFile=none',
    `Port=${scene.port}`,
  ];
  const settings = options.map((option) => `-o${option}`);
  const whole = ['-F', '/dev/null', '-v', '-i', key, ...settings, 'git@127.0.0.1'];
  const child = spawn('ssh', [...whole, "git-upload-pack '/facts'"]);
  child.stdin.end();
  return collect(child);
}

test('an expired certificate is refused by the client, which falls back to the plain key if it knows that', async () => {
  const place = `[127.0.0.1]:${scene.port}`;
  const authority = `@cert-authority ${place} ${readFileSync(join(directory, 'ca.pub'), 'utf8').trim()}`;
  const refused = await ssh(authority);
  assert.equal(refused.exitCode, 255);
  assert.match(refused.stderr, /Certificate invalid: expired/);
  const plain = `${place} ${scene.hostKeys[0]?.publicLine}`;
  const back = await ssh(authority, plain);
  assert.equal(back.exitCode, 0, back.stderr);
  assert.match(back.stderr, /kex: host key algorithm: ssh-ed25519-cert-v01@openssh\.com/);
  assert.match(back.stderr, /Certificate invalid: expired/);
});
