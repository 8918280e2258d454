import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  FrontEndClient,
  type FrontEnd,
  transports,
} from '../backends/conformance/front-end-ground.js';
import { startFrontEnd } from '../backends/conformance/front-end-suite.js';

/**
 * One push of the script: its options and refspecs. Not among them: deleting a ref that does not exist, which git takes
 * with a warning and the local backend refuses.
 */
const script: readonly (readonly string[])[] = [
  ['main'],
  ['main~2:refs/heads/topic/one', 'v1', 'refs/tags/light'],
  ['main~1:main'],
  ['+main~1:main', 'main~4:refs/heads/other'],
  ['main', ':refs/heads/other'],
  [':main'],
  ['main:refs/heads/topic', 'main:refs/heads/good'],
  ['main:refs/heads/topic/one/below'],
  ['--atomic', 'main:refs/heads/atomic', ':main'],
  ['--atomic', 'main:refs/heads/atomic', 'main:refs/notes/x'],
  ['--force-with-lease=good:main~3', '+main~3:good'],
  [':refs/tags/light', '+main~3:refs/tags/v1'],
  ['main:refs/hidden/x', 'main:refs/heads/beside-hidden'],
  ['--mirror'],
];

/** What became of the script on one server. */
interface Outcome {
  /** For each push its exit status and its line for each ref (git-push(1), "--porcelain"). */
  readonly pushes: readonly string[];
  readonly refs: string;
  /** Ids of everything that a mirror clone holds. */
  readonly objects: string;
}

// The directory backend lets git itself receive: what it says is right.
describe('the local backend does as git does in the directory backend', () => {
  let servers: readonly FrontEnd[] = [];
  before(async () => {
    servers = await Promise.all([
      startFrontEnd((scene) => scene.startServer()),
      startFrontEnd((scene) => scene.startServer({ backend: 'directory' })),
    ]);
  });
  after(async () => {
    for (const { scene } of servers) await scene.close();
  });

  for (const transport of transports) {
    test(`over ${transport.name}`, async () => {
      const [local, directory] = await Promise.all(
        servers.map((frontEnd) => runScript(new FrontEndClient(transport, () => frontEnd))),
      );
      assert.ok(local !== undefined && directory !== undefined);
      assert.deepEqual(local, directory);
      assert.ok(directory.objects.length > 1000);
      const refused = directory.pushes.filter((lines) => lines.includes('\n!\t'));
      assert.ok(refused.length >= 6, 'the script holds pushes that are refused');
    });
  }
});

async function runScript(client: FrontEndClient): Promise<Outcome> {
  const name = client.freshName();
  const source = await client.scene.makeRepository({
    commits: 10,
    files: { 'a/b.txt': 'text\n'.repeat(500) },
  });
  const dates = { GIT_COMMITTER_DATE: '1700000100 +0000', GIT_AUTHOR_DATE: '1700000100 +0000' };
  await client.git(['tag', '-a', '-m', 'One', 'v1', 'main~3'], { cwd: source, env: dates });
  await client.git(['tag', 'light', 'main'], { cwd: source });
  await client.admin('repo', 'create', name);
  await client.admin('repo', 'set', name, 'transfer.hideRefs=refs/hidden');
  const pushes: string[] = [];
  for (const specs of script) {
    const args = ['push', '--porcelain', client.url(name), ...specs];
    const { exitCode, stdout } = await client.try(args, { cwd: source });
    const lines = stdout.split('\n').filter((line) => /^[ +*!=-]\t/.test(line));
    pushes.push([`${exitCode} ${specs.join(' ')}`, ...lines.map(withoutOurWords)].join('\n'));
  }
  const mirror = await client.clone(name, '--mirror');
  await client.git(['fsck', '--strict'], { cwd: mirror });
  return {
    pushes,
    refs: await client.git(['for-each-ref', '--format=%(objectname) %(refname) %(symref)'], {
      cwd: mirror,
    }),
    objects: (
      await client.git(['rev-list', '--objects', '--all', '--no-object-names'], { cwd: mirror })
    )
      .split('\n')
      .sort()
      .join('\n'),
  };
}

/** Both say no to the same refs; why, each may say in words of its own. */
function withoutOurWords(line: string): string {
  return line.replace(/(\[remote rejected\]) \(.*\)$/, '$1');
}
