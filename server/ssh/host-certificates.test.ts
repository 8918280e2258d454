import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Clock, Logger } from '../../backends/contract/environment.js';
import { checkHostCertificate } from './host-certificate-check.js';
import { readHostCertificate } from './host-certificate.js';
import {
  describeHostCertificates,
  openHostCertificates,
  type HostCertificates,
} from './host-certificates.js';
import { loadHostKeys, type HostKey } from './host-keys.js';
import { clock as realClock, silentLogger } from './testing/ssh-scene.js';

let root = '';
let keys: readonly HostKey[] = [];
const first = 'ssh_host_ed25519_key';

before(async () => {
  root = mkdtempSync(join(tmpdir(), 'quorate-host-certificates-'));
  keys = await loadHostKeys(root, silentLogger);
  for (const name of ['authority', 'other']) {
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(root, name)]);
  }
});
after(() => rmSync(root, { recursive: true, force: true }));

/** The certificate that ssh-keygen makes of a public key, as text. */
function certify(publicKey: string, ...options: readonly string[]): string {
  copyFileSync(`${join(root, publicKey)}.pub`, join(root, 'request.pub'));
  const rest = [...options, join(root, 'request.pub')];
  execFileSync('ssh-keygen', ['-q', '-s', join(root, 'authority'), '-I', 'me', ...rest]);
  return readFileSync(join(root, 'request-cert.pub'), 'utf8');
}

function keyOf(name: string): HostKey {
  const key = keys.find((one) => one.name === name);
  assert(key !== undefined);
  return key;
}

const nothing = (): void => undefined;

for (const name of ['ssh_host_ed25519_key', 'ssh_host_ecdsa_key', 'ssh_host_rsa_key']) {
  const nowMs = Date.now();
  const options = { clock: realClock };

  test(`ssh2 shows a certificate as clients want it: ${name}`, async () => {
    const certificate = readHostCertificate(certify(name, '-h'), { hostKey: keyOf(name), nowMs });
    await checkHostCertificate(certificate, options);
  });

  test(`an ssh2 that does otherwise is found out: ${name}`, async () => {
    const certificate = readHostCertificate(certify(name, '-h'), { hostKey: keyOf(name), nowMs });
    const present = nothing;
    await assert.rejects(checkHostCertificate(certificate, { ...options, present }));
  });
}

const unfit: readonly (readonly [desc: string, make: () => string, says: RegExp])[] = [
  ['of a user', () => certify(first, '-n', 'ann'), /user certificate.*ssh-keygen -h/],
  ['of another key', () => certify('other', '-h'), /another key \(SHA256:/],
  ['that ended', () => certify(first, '-h', '-V', '-2h:-1h'), /expired at \d{4}-.*Z/],
  ['to come', () => certify(first, '-h', '-V', '+1h:+2h'), /not valid before \d{4}-.*Z/],
  [
    'with a critical option',
    () => certify(first, '-h', '-O', 'critical:a@b=c'),
    /critical options/,
  ],
  ['that is a plain key', () => readFileSync(join(root, `${first}.pub`), 'utf8'), /no line with/],
  ['that is cut', () => certify(first, '-h').slice(0, 200), /damaged/],
  ['that is nothing', () => '', /no line with/],
  ['of two lines', () => certify(first, '-h').repeat(2), /no line with/],
];
for (const [desc, make, says] of unfit) {
  test(`a certificate is not offered: one ${desc}`, () => {
    const options = { hostKey: keyOf(first), nowMs: Date.now() };
    assert.throws(() => readHostCertificate(make(), options), { message: says });
  });
}

interface Watched {
  readonly certificates: HostCertificates;
  readonly logged: string[];
  readonly changes: () => number;
  /** `undefined` takes the file away. */
  readonly put: (text: string | undefined) => Promise<void>;
  readonly pass: (ms: number) => Promise<void>;
}

async function watch(
  tryOut: typeof checkHostCertificate = async () => undefined,
): Promise<Watched> {
  const directory = mkdtempSync(join(root, 'watched-'));
  const logged: string[] = [];
  let offsetMs = 0;
  let changes = 0;
  const note = (_fields: object, message: string): void => void logged.push(message);
  const logger: Logger = { ...silentLogger, info: note, warn: note, error: note };
  const clock: Clock = {
    ...realClock,
    nowMs: () => Date.now() + offsetMs,
    // The test looks by itself.
    sleep: (_ms, signal) =>
      new Promise((resolve) => signal?.addEventListener('abort', () => resolve())),
  };
  const file = join(directory, `${first}-cert.pub`);
  const certificates = await openHostCertificates({
    hostKeys: keys,
    directory,
    checkMs: 1,
    clock,
    logger,
    tryOut,
  });
  certificates.onChange(() => (changes += 1));
  return {
    certificates,
    logged,
    changes: () => changes,
    put(text) {
      if (text === undefined) rmSync(file);
      else writeFileSync(file, text);
      return certificates.check();
    },
    pass(ms) {
      offsetMs += ms;
      return certificates.check();
    },
  };
}

test('a file that appears, is renewed, is bad, is good again, and goes', async () => {
  const { certificates, changes, logged, put } = await watch();
  assert.deepEqual(certificates.current(), []);
  assert.deepEqual(describeHostCertificates(certificates), {});
  await put(certify(first, '-h', '-n', 'git.example.org', '-z', '1'));
  assert.equal(certificates.current()[0]?.content.serial, 1n);
  assert.deepEqual(describeHostCertificates(certificates), {
    'SSH host certificates': 'ssh-ed25519 for git.example.org until forever',
  });
  await put(certify(first, '-h', '-z', '2'));
  assert.equal(certificates.current()[0]?.content.serial, 2n);
  assert.equal(changes(), 2);
  await put(certify('other', '-h'));
  assert.equal(certificates.current()[0]?.content.serial, 2n, 'the good one stays');
  assert.match(certificates.problem() ?? '', /ssh_host_ed25519_key-cert.pub: it certifies another/);
  await certificates.check();
  assert.equal(logged.length, 3, 'what is known is not said again');
  await put(certify(first, '-h', '-z', '3'));
  assert.equal(certificates.problem(), undefined);
  assert.equal(changes(), 3);
  await put(undefined);
  assert.deepEqual(certificates.current(), []);
  assert.equal(changes(), 4);
  certificates.close();
});

test('one that ends is no longer offered, one that begins is', async () => {
  const { certificates, changes, pass, put } = await watch();
  await put(certify(first, '-h', '-V', '-1h:+1h'));
  assert.equal(certificates.current().length, 1);
  await pass(2 * 3_600_000);
  assert.deepEqual(certificates.current(), []);
  assert.match(certificates.problem() ?? '', /expired/);
  assert.equal(changes(), 2);
  await put(certify(first, '-h', '-V', '+3h:+5h'));
  assert.match(certificates.problem() ?? '', /not valid before/);
  await pass(2 * 3_600_000);
  assert.equal(certificates.current().length, 1);
  assert.equal(certificates.problem(), undefined);
  certificates.close();
});

test('none is offered by an ssh2 that works otherwise, and the remedy is named', async () => {
  const { certificates, changes, put } = await watch(async () => {
    throw new Error('no answer');
  });
  await put(certify(first, '-h'));
  assert.deepEqual(certificates.current(), []);
  assert.match(certificates.problem() ?? '', /package-lock\.json.*no answer/);
  assert.equal(changes(), 0);
  certificates.close();
});
