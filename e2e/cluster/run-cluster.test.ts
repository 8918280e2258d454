import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { processesUsing, sendSignal } from '../processes.js';
import { mainScript } from '../server-process.js';
import { createScene, type Scene, waitFor } from '../harness.js';
import { pickPort } from '../../backends/contract/testing/ports.js';
import type { ClusterDescription } from './cluster.js';
import { MemberProcess } from './member-process.js';

const script = fileURLToPath(new URL('main.js', import.meta.url));
const root = fileURLToPath(new URL('../../..', import.meta.url));

/** What `npm run cluster` starts, once all of it serves. */
async function run(
  scene: Scene,
  ...flags: readonly string[]
): Promise<{
  readonly description: ClusterDescription;
  readonly said: () => string;
  stop(): Promise<number | null>;
  /** Alone: what it started goes on. */
  kill(): Promise<void>;
}> {
  const json = scene.path(`cluster-${Math.random()}.json`);
  const child = spawn(process.execPath, [script, '--json', json, ...flags], {
    env: { ...scene.env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  const text = await waitFor('the cluster to serve', async () => {
    assert.equal(child.exitCode, null, said);
    return readFile(json, 'utf8').catch(() => undefined);
  });
  return {
    description: JSON.parse(text),
    said: () => said,
    stop: async () => {
      const closed = once(child, 'close');
      // Ctrl-C comes twice under npm.
      child.kill('SIGINT');
      child.kill('SIGINT');
      await closed;
      return child.exitCode;
    },
    kill: async () => {
      const closed = once(child, 'close');
      child.kill('SIGKILL');
      await closed;
    },
  };
}

test('npm run cluster: tells where everything is, keeps its data, and stops all of it', async (t) => {
  const scene = await createScene(t);
  const flags = ['--data', scene.path('kept'), '--storage', '2', '--front-ends', '1'];
  const first = await run(scene, ...flags);
  const { etcd, storage, frontEnds, adminToken } = first.description;
  assert.deepEqual([etcd.length, storage.length, frontEnds.length], [3, 2, 1]);
  assert.deepEqual(
    storage.map(({ id }) => id),
    ['storage-1', 'storage-2'],
  );
  const pids = [...etcd, ...storage, ...frontEnds].map(({ pid }) => pid);
  for (const pid of pids) process.kill(pid, 0);
  const twice = await scene.run(process.execPath, [script, ...flags]);
  assert.equal(twice.exitCode, 1);
  assert.match(
    twice.stderr,
    /^cluster: the data directory is in use by another quorate server: \S+\n$/,
  );
  const push = /git push (http:\S+)\/demo\.git/.exec(first.said());
  assert.ok(push?.[1] !== undefined, first.said());
  for (const { ops } of [...storage, ...frontEnds]) {
    assert.equal((await fetch(`${ops}/healthz`)).status, 200);
    assert.ok(first.said().includes(`${ops}/metrics`), first.said());
  }
  const repository = await scene.makeRepository();
  // A front-end sees the storage nodes a little later than they serve; on a busy machine a push does not wait so long.
  await waitFor('a push to be taken', async () => {
    const pushing = ['push', '-q', `${push[1]}/demo.git`, 'HEAD:refs/heads/main'];
    return (await scene.tryGit(pushing, { cwd: repository })).exitCode === 0;
  });
  assert.equal(await first.stop(), 0);
  for (const pid of pids) assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' });

  const etcdFiles = scene.path('kept', 'etcd');
  await cp(etcdFiles, scene.path('older'), { recursive: true });

  const second = await run(scene, ...flags);
  process.kill(second.description.storage[1]?.pid ?? 0, 'SIGKILL');
  await waitFor('its end to be told', () =>
    /^storage-2 has ended \(SIGKILL\); to start it again, .*:\n {2}\S*node \S+main\.js serve --data \S+storage-2 .*$/m.test(
      second.said(),
    ),
  );
  process.kill(second.description.etcd[2]?.pid ?? 0, 'SIGKILL');
  const again = await waitFor('its end to be told', () => {
    const told =
      /^etcd-3 has ended \(SIGKILL\); to start it again, .*:\n {2}etcd (--name etcd-3 .*)$/m;
    return told.exec(second.said())?.[1];
  });
  const member = spawn('etcd', again.split(' '), { env: scene.env, stdio: 'ignore' });
  t.after(() => member.kill('SIGKILL'));
  const url = etcd[2]?.url ?? '';
  await waitFor('it to serve again', async () => {
    const health = await fetch(`${url}/health`).catch(() => undefined);
    return (await health?.text())?.includes('"true"');
  });
  const ended = once(member, 'close');
  member.kill('SIGKILL');
  await ended;
  assert.equal(second.description.adminToken, adminToken);
  assert.equal(second.description.frontEnds[0]?.http, frontEnds[0]?.http);
  await waitFor('what was pushed to be served', async () => {
    const { stdout } = await scene.tryGit(['ls-remote', `${push[1]}/demo.git`]);
    return stdout.includes('refs/heads/main');
  });
  assert.equal(await second.stop(), 0);

  await rm(etcdFiles, { recursive: true });
  await cp(scene.path('older'), etcdFiles, { recursive: true });
  const restored = await run(scene, ...flags);
  await waitFor('the words to be said', () => restored.said().includes('Ctrl-C'));
  assert.match(
    restored.said(),
    /\nThe coordinator is an older copy: .* Nothing is committed, .*\n\nTo put the latest copy of etcd back: /,
  );
  const recovers = /node dist\/server\/main\.js (--data \S+ recover) {2}/.exec(
    restored.said(),
  )?.[1];
  assert.ok(recovers !== undefined, restored.said());
  const args = [mainScript, ...recovers.split(' '), '--apply'];
  const recovered = await scene.run(process.execPath, args);
  const these = /^applied; restart these: front-end-1, storage-1, storage-2$/m;
  assert.match(recovered.stdout, these);
  // Also later, until they were.
  const asked = await scene.run(process.execPath, args.slice(0, -1));
  assert.match(asked.stdout, these);
  assert.equal(await restored.stop(), 0);
});

/** A storage node that somebody adds to a cluster, beside what `npm run cluster` started. */
async function addByHand(scene: Scene, directory: string, etcd: string): Promise<MemberProcess> {
  const dataDirectory = path.join(directory, 'by-hand');
  await mkdir(dataDirectory);
  const node = new MemberProcess({
    name: 'by-hand',
    dataDirectory,
    readyFile: 'node.json',
    env: scene.env,
    detached: false,
    flags: [
      '--role=storage',
      `--coordinator=${etcd.replace('http:', 'etcd:')}`,
      `--cluster-secret-file=${path.join(directory, 'cluster-secret')}`,
      `--node=127.0.0.1:${await pickPort()}`,
      `--ops=127.0.0.1:${await pickPort()}`,
    ],
  });
  return node.start().ready();
}

test('npm run cluster: what a cluster that was killed left running is named, and left alone', async (t) => {
  const scene = await createScene(t);
  const flags = ['--data', scene.path('orphans'), '--storage', '1', '--front-ends', '1'];
  const first = await run(scene, ...flags);
  await first.kill();
  const { etcd, storage, frontEnds } = first.description;
  const pids = [...etcd, ...storage, ...frontEnds].map(({ pid }) => pid);
  const byHand = await addByHand(scene, scene.path('orphans'), etcd[0]?.url ?? '');
  try {
    try {
      const { exitCode, stderr } = await scene.run(process.execPath, [script, ...flags]);
      assert.equal(exitCode, 1);
      const named =
        /^cluster: a cluster that was killed left .*: end them with kill ([\d ]+)\n$/.exec(stderr);
      assert.deepEqual(new Set(named?.[1]?.split(' ').map(Number)), new Set(pids), stderr);
      for (const pid of pids) process.kill(pid, 0);
    } finally {
      for (const group of [frontEnds, storage, etcd]) {
        for (const { pid } of group) sendSignal(pid, 'SIGTERM');
        await waitFor('them to end', async () => {
          const left = await processesUsing(scene.path('orphans'));
          return !left.some(({ pid }) => group.some((one) => one.pid === pid));
        });
      }
    }
    // What was started by hand, with the cluster's secret and in its directory, is no leftover.
    const second = await run(scene, ...flags);
    assert.ok(byHand.running);
    assert.equal(await second.stop(), 0);
  } finally {
    await byHand.kill();
  }
});

test('npm run cluster: ends with its npm, and takes its members along', async (t) => {
  const scene = await createScene(t);
  const json = scene.path('cluster.json');
  const flags = ['--data', scene.path('ended'), '--storage', '1', '--front-ends', '1'];
  const args = ['run', '--silent', 'cluster', '--', '--json', json, ...flags];
  // npm would leave the cache of its own compiled code in the directory of temporary files.
  const env = { ...scene.env, NODE_DISABLE_COMPILE_CACHE: '1' };
  const npm = spawn('npm', args, { cwd: root, env, stdio: 'ignore' });
  await waitFor('the cluster to serve', () => {
    assert.equal(npm.exitCode, null);
    return readFile(json, 'utf8').catch(() => undefined);
  });
  const members = (): ReturnType<typeof processesUsing> => processesUsing(scene.path('ended'));
  t.after(async () => {
    for (const { pid } of await members()) sendSignal(pid, 'SIGKILL');
  });
  npm.kill('SIGTERM');
  await waitFor('all of it to end', async () => (await members()).length === 0);
});

test('npm run cluster: wrong arguments are named', async (t) => {
  const scene = await createScene(t);
  for (const [flags, status, said] of [
    [['--storage', '0'], 2, /^error: option '--storage <n>' .* whole number from 1 to 10\.\n$/],
    [['--base-port', 'x'], 2, /^error: option '--base-port <p>' .* whole number .*\n$/],
    [['--nonsense'], 2, /^error: unknown option '--nonsense'\n$/],
    [
      ['--json', scene.path('nowhere', 'file')],
      1,
      /--json .*nowhere\/file cannot be written \(ENOENT\)/,
    ],
    [
      ['--data', script],
      1,
      /main\.js cannot be used \(EEXIST: a file is in its place\): choose another with --data/,
    ],
  ] as const) {
    const { exitCode, stderr } = await scene.run(process.execPath, [script, ...flags]);
    assert.equal(exitCode, status);
    assert.match(stderr, said);
  }
  const help = await scene.run(process.execPath, [script, '--help']);
  assert.equal(help.exitCode, 0);
  assert.match(help.stdout, /--front-ends <n>/);
});
