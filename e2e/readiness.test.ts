import assert from 'node:assert/strict';
import { access, mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { createScene, waitFor } from './harness.js';
import type { Scene } from './harness.js';
import { mainScript } from './server-process.js';

let scene: Scene;
before(async () => {
  scene = await createScene();
});
after(() => scene.close());

test('a server whose git is gone is not ready, and is ready again when it is back', async () => {
  const programs = scene.path('programs');
  await mkdir(programs);
  for (const name of ['git', 'mkfifo']) {
    await symlink(await programNamed(name), path.join(programs, name));
  }
  const git = path.join(programs, 'git');
  const server = await scene.startServer({ env: { PATH: programs } });
  const verdict = async (): Promise<string> => {
    const answer = await fetch(`${server.opsUrl}/readyz`);
    const { checks } = JSON.parse(await answer.text());
    assert.equal(answer.status, checks.git === 'ok' ? 200 : 503, JSON.stringify(checks));
    return checks.git;
  };
  assert.equal(await verdict(), 'ok');
  await rename(git, `${git}-gone`);
  await waitFor('it not to be ready', async () => /git/.test(await verdict()));
  await rename(`${git}-gone`, git);
  await waitFor('it to be ready again', async () => (await verdict()) === 'ok');
});

for (const [desc, version, says] of [
  ['no git', undefined, 'there is no git in PATH: install it'],
  ['a git that cannot sync refs', '2.34.1', 'git 2.34.1 is too old: install 2.36 or newer'],
] as const) {
  test(`${desc}: a start ends with a sentence`, async () => {
    const programs = scene.path(`programs-${version}`);
    await mkdir(programs);
    await symlink(await programNamed('mkfifo'), path.join(programs, 'mkfifo'));
    if (version !== undefined) {
      const git = `#!/bin/sh\necho git version ${version}\n`;
      await writeFile(path.join(programs, 'git'), git, { mode: 0o700 });
    }
    const data = scene.path(`data-${version}`);
    const addresses = ['http', 'ssh', 'ops'].flatMap((name) => [`--${name}`, '127.0.0.1:0']);
    const started = await scene.run(
      process.execPath,
      [mainScript, 'serve', '--data', data, ...addresses],
      { env: { PATH: programs } },
    );
    assert.equal(started.exitCode, 1, started.stderr);
    assert.equal(started.stderr.includes(`\nquorate: ${says}`), true, started.stderr);
  });
}

async function programNamed(name: string): Promise<string> {
  for (const directory of (process.env['PATH'] ?? '').split(path.delimiter)) {
    const file = path.join(directory, name);
    if (
      await access(file)
        .then(() => true)
        .catch(() => false)
    )
      return file;
  }
  throw new Error(`there is no ${name} on this machine`);
}
