import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('main.js', import.meta.url));

for (const flags of [
  ['--mutants', '--only', 'no such mutant'],
  ['--seeds', '1', '--mutant', 'no such mutant'],
]) {
  test(`${flags.at(-2)}: a name that no mutant has is refused`, () => {
    const { status, stderr } = spawnSync(process.execPath, [script, ...flags], {
      encoding: 'utf8',
    });
    assert.equal(status, 2);
    assert.match(stderr, /No mutant has that in its name/);
  });
}

test('--troubles: a name that no trouble has is refused, and those that there are are told', () => {
  const flags = ['--seeds', '1', '--troubles', 'partition, disk fulls'];
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...flags], {
    encoding: 'utf8',
  });
  assert.equal(status, 2);
  assert.equal(stdout, '');
  assert.match(stderr, /no trouble called "disk fulls"; there are: .*disk full, .*partition, /);
});
