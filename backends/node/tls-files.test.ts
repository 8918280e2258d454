import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { until } from '../contract/testing/until.js';
import { createManualClock, silentLogger } from '../coordination/test-environment.js';
import { TlsFiles } from './tls-files.js';

const dayMs = 24 * 60 * 60_000;
const checkMs = 1_000;

/** Pairs that are good from now on, and a place for one in use. */
async function makePairs(
  t: TestContext,
  pairs: readonly (readonly [name: string, days: number])[],
) {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-tls-'));
  t.after(() => rm(directory, { recursive: true }));
  const paths = { cert: join(directory, 'cert.pem'), key: join(directory, 'key.pem') };
  for (const [name, days] of pairs) {
    const [cert, key] = ['crt', 'key'].map((end) => join(directory, `${name}.${end}`));
    assert.ok(cert !== undefined && key !== undefined);
    const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    const files = ['-keyout', key, '-out', cert, '-days', String(days), '-subj', `/CN=${name}`];
    await promisify(execFile)('openssl', ['req', '-x509', ...made, ...files]);
  }
  const install = async (cert: string, key: string): Promise<void> => {
    await copyFile(join(directory, `${cert}.crt`), paths.cert);
    await copyFile(join(directory, `${key}.key`), paths.key);
  };
  return { paths, install };
}

test('a pair that fits and lasts is taken; one that does not is told and not taken', async (t) => {
  const { paths, install } = await makePairs(t, [
    ['long', 30],
    ['longer', 60],
    ['short', 1],
  ]);
  const clock = createManualClock(Date.now() + 2 * dayMs);
  await install('long', 'long');
  const tls = await TlsFiles.openPair({ name: 'tls', paths, checkMs, clock, logger: silentLogger });
  t.after(() => tls.close());
  const taken: number[] = [];
  tls.onChange(() => taken.push(tls.notAfterMs ?? 0));
  const problemIs = (expected: RegExp | undefined): Promise<void> =>
    until(`the problem to be ${String(expected)}`, async () => {
      clock.advance(checkMs);
      const problem = tls.problem();
      return Promise.resolve(expected?.test(problem ?? '') ?? problem === undefined);
    });
  const before = tls.current;
  await install('short', 'short');
  await problemIs(/not used: the certificate has ended/);
  await install('longer', 'long');
  await problemIs(/not used: the key does not belong/);
  await rm(paths.key);
  await problemIs(/not used: the file .*key\.pem cannot be read \(ENOENT\)/);
  assert.equal(tls.current, before);
  assert.deepEqual(taken, []);

  await install('longer', 'longer');
  await problemIs(undefined);
  assert.deepEqual(taken, [tls.notAfterMs]);
  assert.ok((tls.notAfterMs ?? 0) > clock.nowMs() + 40 * dayMs);
  clock.advance(60 * dayMs);
  assert.equal(tls.problem(), 'the certificate has ended');
});

test('a pair that is not good yet is taken when it is', async (t) => {
  const { paths, install } = await makePairs(t, [
    ['first', 30],
    ['next', 30],
  ]);
  const clock = createManualClock(Date.now() - dayMs);
  await install('first', 'first');
  const tls = await TlsFiles.openPair({ name: 'tls', paths, checkMs, clock, logger: silentLogger });
  t.after(() => tls.close());
  assert.match(tls.problem() ?? '', /^the certificate is not good before \d{4}-\d\d-\d\dT/);
  const before = tls.current;
  await install('next', 'next');
  await until('it is looked at', () => {
    clock.advance(checkMs);
    return /not used: the certificate is not good before/.test(tls.problem() ?? '');
  });
  assert.equal(tls.current, before);
  clock.advance(2 * dayMs);
  await until('it is taken', () => {
    clock.advance(checkMs);
    return tls.current !== before;
  });
  assert.equal(tls.problem(), undefined);
});

test('files that cannot be used at the start are named', async () => {
  const options = { checkMs, clock: createManualClock(), logger: silentLogger };
  const paths = { cert: '/nonexistent/cert.pem', key: '/nonexistent/key.pem' };
  await assert.rejects(TlsFiles.openPair({ ...options, name: 'tls', paths }), {
    code: 'invalid-argument',
    message: 'tls.cert: the file /nonexistent/cert.pem cannot be read (ENOENT)',
  });
});
