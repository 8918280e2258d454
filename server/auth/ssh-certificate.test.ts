import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { createCertificateAuthorities } from './certificate-authorities.js';
import { asCoordinator, MemoryCoordinator, unused } from './memory-coordinator.fixture.js';
import { parseSshCertificate } from './ssh-certificate.js';

const directory = mkdtempSync(join(tmpdir(), 'quorate-certificate-'));
after(() => rmSync(directory, { recursive: true, force: true }));

const keygen = (...args: string[]): void => {
  execFileSync('ssh-keygen', ['-q', ...args], { cwd: directory });
};
const read = (file: string): string => readFileSync(join(directory, file), 'utf8');

keygen('-t', 'ed25519', '-N', '', '-f', 'ca');
keygen('-t', 'ed25519', '-N', '', '-f', 'key');

function certificate(...args: string[]): Uint8Array {
  keygen('-s', 'ca', '-I', 'ann@laptop', ...args, 'key.pub');
  return Uint8Array.from(Buffer.from(read('key-cert.pub').split(' ')[1] ?? '', 'base64'));
}

describe('certificates', () => {
  test('say what ssh-keygen wrote', () => {
    const parsed = parseSshCertificate(
      certificate('-n', 'ann,bob', '-z', '18446744073709551615', '-O', 'force-command=id'),
    );
    assert.equal(parsed.kind, 'user');
    assert.equal(parsed.serial, 2n ** 64n - 1n);
    assert.equal(parsed.keyId, 'ann@laptop');
    assert.deepEqual(parsed.principals, ['ann', 'bob']);
    assert.deepEqual([parsed.validAfter, parsed.validBefore], [0n, 2n ** 64n - 1n]);
    assert.deepEqual([...parsed.criticalOptions.keys()], ['force-command']);
    assert.equal(parsed.key.type, 'ssh-ed25519');
    assert.equal(parseSshCertificate(certificate('-h', '-n', 'host')).kind, 'host');
  });

  test('of which one byte is changed, missing or added are none', () => {
    const blob = certificate('-n', 'ann');
    for (let index = 0; index < blob.length; index++) {
      const changed = Uint8Array.from(blob);
      changed[index] = (changed[index] ?? 0) ^ 1;
      refused(changed);
    }
    for (let length = 0; length < blob.length; length += 7) refused(blob.slice(0, length));
    refused(Uint8Array.from([...blob, 0]));
  });

  test('for hosts let no user in', async () => {
    const clock: Clock = { nowMs: () => Date.now(), monotonicMs: () => 0, sleep: unused };
    const authorities = createCertificateAuthorities({
      coordinator: asCoordinator(new MemoryCoordinator()),
      clock,
      accounts: {
        certifiedUser: async (name, fingerprint) => ({
          kind: 'user',
          name,
          admin: false,
          canCreate: false,
          via: { type: 'key', fingerprint },
        }),
      },
    });
    const client = { userName: 'git', remoteAddress: '::ffff:127.0.0.1' };
    const judge = (blob: Uint8Array) => authorities.judge(parseSshCertificate(blob), client);
    const near = certificate('-n', 'ann', '-O', 'source-address=127.0.0.1');
    assert.deepEqual(await judge(near), { problem: 'unknown authority' });
    await authorities.add(read('ca.pub'));
    assert.ok('principal' in (await judge(near)));
    assert.deepEqual(await judge(certificate('-h', '-n', 'ann')), {
      problem: 'it is a host certificate',
    });
    const far = certificate('-n', 'ann', '-O', 'source-address=::1/128,10.0.0.0/8');
    assert.deepEqual(await judge(far), { problem: 'not for this source address' });
  });
});

function refused(blob: Uint8Array): void {
  assert.throws(
    () => parseSshCertificate(blob),
    (error) => error instanceof QuorateError && error.code === 'invalid-argument',
  );
}
