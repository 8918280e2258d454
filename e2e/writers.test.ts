import assert from 'node:assert/strict';
import { Agent } from 'node:http';
import { test } from 'node:test';
import { countFrom } from './checker/seeded.js';
import { Observer } from './checker/observer.js';
import { createScene } from './harness.js';
import type { Scene } from './harness.js';

interface Writer {
  /** Commits whose push was acknowledged, in order. */
  readonly won: readonly string[];
  readonly rejections: number;
}

const branch = 'refs/heads/main';
const writers = 8;

test(`${writers} writers on one branch: its history is exactly what was acknowledged`, async (t) => {
  const seconds = countFrom('WRITERS_SECONDS', 60);
  const scene = await createScene(t);
  const server = await scene.startServer();
  const url = server.httpUrl('team/app');
  const first = await scene.makeRepository();
  const root = (await scene.git(['rev-parse', 'HEAD'], { cwd: first })).trim();
  await scene.git(['push', '-q', url, 'main'], { cwd: first });
  const agent = new Agent({ keepAlive: true });
  t.after(() => agent.destroy());
  const observer = new Observer({ scene, server, agent });
  const generation = await observer.generation('team/app');

  const deadline = performance.now() + seconds * 1000;
  const results = await Promise.all(
    Array.from({ length: writers }, (_, index) => write({ scene, url, index, deadline })),
  );

  const won = results.flatMap((writer) => writer.won);
  const rejections = results.reduce((sum, writer) => sum + writer.rejections, 0);
  t.diagnostic(
    `${won.length} pushes acknowledged (${(won.length / seconds).toFixed(1)} a second), ` +
      `${rejections} rejected; each writer: ${results.map((writer) => writer.won.length).join(' ')}`,
  );
  const check = scene.path('work', 'check');
  await scene.git(['clone', '-q', '--bare', url, check]);
  const history = (await scene.git(['rev-list', branch], { cwd: check })).trim().split('\n');
  assert.deepEqual([...won, root].sort(), [...history].sort());
  const merges = await scene.git(['rev-list', '--min-parents=2', branch], { cwd: check });
  assert.equal(merges, '', 'each winner stands on the one before');
  assert.equal((await observer.generation('team/app')) - generation, won.length);
  assert.ok(won.length > 0);
});

/** Commits and pushes until the deadline, at least once; rejected, it fetches, rebases and pushes again, as people do. */
async function write(options: {
  readonly scene: Scene;
  readonly url: string;
  readonly index: number;
  readonly deadline: number;
}): Promise<Writer> {
  const { scene, url, index, deadline } = options;
  const cwd = scene.path('work', `writer-${index}`);
  await scene.git(['clone', '-q', url, cwd]);
  const won: string[] = [];
  let rejections = 0;
  for (let n = 1; n === 1 || performance.now() < deadline; n += 1) {
    await scene.commit(cwd, `writer-${index}-${n}`, `${n}\n`);
    for (let pushed = false; !pushed;) {
      const commit = (await scene.git(['rev-parse', 'HEAD'], { cwd })).trim();
      const push = await scene.tryGit(['push', '--porcelain', 'origin', 'main'], { cwd });
      pushed = push.exitCode === 0;
      if (pushed) {
        won.push(commit);
        break;
      }
      assert.match(
        push.stdout,
        /^!\trefs\/heads\/main:refs\/heads\/main\t\[.*rejected\]/m,
        push.stderr,
      );
      rejections += 1;
      // The last commit of a writer that never gets through is given up: nobody acknowledged it.
      if (performance.now() > deadline) return { won, rejections };
      await scene.git(['fetch', '-q', 'origin'], { cwd });
      await scene.git(['rebase', '-q', 'origin/main'], { cwd });
    }
  }
  return { won, rejections };
}
