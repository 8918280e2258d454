import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { waitFor } from './harness.js';
import { HookGround, transports } from './hook-ground.js';
import { processesUsing } from './processes.js';

// Hooks that hang, fork, flood or end oddly: the push is refused, and nothing of them is left.

/** On the one the time of hooks ends soon; on the other it is far longer than a busy machine takes for anything. */
let hasty: HookGround;
let patient: HookGround;
before(async () => {
  const bounds = ['hooks.output=64k', 'hooks.processes=20'];
  hasty = await HookGround.open(['hooks.timeout=8s', ...bounds]);
  patient = await HookGround.open(['hooks.timeout=10m', ...bounds]);
});
after(async () => {
  await hasty.scene.close();
  await patient.scene.close();
});

const tooLong = /took longer than 8 seconds/;

/** `SLEEP` stands for a sleep far longer than the test, which is told from others by its length. */
const cases: readonly (readonly [desc: string, lines: readonly string[], words: RegExp])[] = [
  ['hangs', ['SLEEP'], tooLong],
  ['ignores SIGTERM', ['trap "" TERM', 'SLEEP & wait; SLEEP'], tooLong],
  [
    'leaves a session behind',
    [
      'left=$(mktemp -u)',
      'setsid sh -c "touch $left; exec SLEEP" >/dev/null 2>&1 &',
      'until [ -e "$left" ]; do sleep 0.01; done',
      'rm "$left"',
      'exit 1',
    ],
    /hook declined\)/,
  ],
  ['forks', ['for i in $(seq 100); do SLEEP & done; wait'], /more than 20 processes/],
  ['floods its output', ['yes'], /wrote more than 65536 bytes/],
  ['ends by a signal', ['kill -9 $$'], /was ended by SIGKILL/],
  ['ends with an odd code', ['exit 255'], /\(pre-receive hook declined\)/],
  ['leaves a process behind', ['SLEEP & exit 1'], /\(pre-receive hook declined\)/],
  ['closes everything and reads nothing', ['exec <&- >&- 2>&-', 'exit 1'], /hook declined\)/],
];

let number = 0;

for (const transport of transports) {
  describe(`a pre-receive hook over ${transport} that`, { concurrency: true }, () => {
    for (const [desc, lines, words] of cases) {
      test(desc, async () => {
        const at = words === tooLong ? hasty : patient;
        number += 1;
        const sleep = `sleep ${8_000 + number}`;
        const repository = await at.make();
        await at.setHook(
          repository.name,
          'pre-receive',
          lines.map((line) => line.replaceAll('SLEEP', sleep)),
        );
        const result = await at.push(transport, repository, ['main']);
        assert.equal(result.exitCode, 1, result.stderr);
        assert.match(result.stdout, /\[remote rejected\] \(pre-receive hook declined/);
        assert.match(result.stdout, words);
        await waitFor('its processes to be gone', async () => {
          const running = await processesUsing(at.scene.directory);
          return !running.some(({ commandLine }) => commandLine.includes(sleep));
        });
        await at.removeHook(repository.name, 'pre-receive');
        assert.equal((await at.push(transport, repository, ['main'])).exitCode, 0);
      });
    }

    test('pushes to its own repository without its mark: its time is bounded', async () => {
      const at = hasty;
      const repository = await at.make();
      const url = at.url('http', repository.name);
      await at.setHook(repository.name, 'pre-receive', [
        'read old new ref',
        `git -c http.extraHeader= push "${url}" "$new:$ref" 2>&1 || exit 1`,
      ]);
      const before = await at.remoteTip(repository, 'refs/heads/main');
      const result = await at.push(transport, repository, ['main']);
      assert.equal(result.exitCode, 1);
      assert.match(result.stdout, /pre-receive hook declined: it took longer than 8 seconds/);
      assert.equal(await at.remoteTip(repository, 'refs/heads/main'), before);
      await at.removeHook(repository.name, 'pre-receive');
      assert.equal((await at.push(transport, repository, ['main'])).exitCode, 0);
    });
  });
}
