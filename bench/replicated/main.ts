import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { createClusterScene, type ClusterScene } from '../../e2e/cluster/cluster-scene.js';
import { wipe } from '../../e2e/cluster/faults.js';
import type { MemberProcess } from '../../e2e/cluster/member-process.js';
import { waitFor } from '../../e2e/wait.js';
import { git } from '../commands.js';
import { describeMachine, formatMachine } from '../machine.js';
import { provideNeeds } from '../needs.js';
import { endWith, wholeNumber } from '../options.js';
import { startNginx } from '../peers/nginx.js';
import type { Peer } from '../peers/peer.js';
import { cpuByKind, cpuForEach } from './cpu-by-kind.js';
import { type Failover, measureFailover } from './failover.js';
import { pushFor, type Throughput } from './pushers.js';

/*
 * What replication costs, and what a failure costs: a cluster of three storage nodes, two front-ends and three members
 * of etcd, all on this machine.
 */

interface Line {
  readonly what: string;
  readonly measured: string;
  readonly goal: string;
}

interface Effort {
  readonly rounds: number;
  readonly kills: number;
  readonly durationMs: number;
  readonly refillBytes: number;
}

/** As many as the other benchmarks leave out of small pushes. */
const warmUpRounds = 15;

async function smallPushes(ground: ClusterScene, nginx: Peer, { rounds }: Effort): Promise<Line> {
  const { scene } = ground;
  const source = await scene.makeRepository({ commits: 50 });
  await nginx.create('small');
  const urls = { quorate: ground.httpUrl(0, 'bench/small'), nginx: nginx.url('small') };
  const times: Record<'quorate' | 'nginx', number[]> = { quorate: [], nginx: [] };
  for (let round = -warmUpRounds; round < rounds; round++) {
    await scene.commit(source, 'file', `${round}\n`);
    for (const peer of ['quorate', 'nginx'] as const) {
      const startedMs = performance.now();
      await git(['push', '--quiet', urls[peer], 'main'], {
        cwd: source,
        env: { ...scene.env, ...(peer === 'nginx' ? nginx.env : {}) },
      });
      if (round >= 0) times[peer].push(performance.now() - startedMs);
    }
  }
  const [ours, theirs] = [median(times.quorate), median(times.nginx)];
  return {
    what: 'small push, 3 replicas, against a single nginx + git http-backend',
    measured: `${ours.toFixed(0)} ms, ${theirs.toFixed(0)} ms: x${(ours / theirs).toFixed(2)} wall`,
    goal: '<= x1.0',
  };
}

/** Until what the processes run most is compiled. */
const warmUpMs = 5_000;

async function throughput(
  ground: ClusterScene,
  { durationMs }: Effort,
  repositories: number,
): Promise<Line> {
  const names = Array.from({ length: repositories }, (_, n) => `bench/many-${repositories}-${n}`);
  for (const name of names) await ground.admin(0, 'repo', 'create', name);
  const urls = names.map((name, index) => ground.httpUrl(index % 2, name));
  const options = { connections: repositories === 1 ? 8 : 32, durationMs };
  const spread = repositories === 1 ? [0, 1].map((n) => ground.httpUrl(n, names[0] ?? '')) : urls;
  await pushFor(spread, { ...options, durationMs: warmUpMs });
  const before = cpuByKind(ground);
  const { perSecond, failed, pushes }: Throughput = await pushFor(spread, options);
  const cpu = cpuForEach(before, cpuByKind(ground), pushes);
  return {
    what: `pushes a second, raw protocol client, ${repositories === 1 ? 'one repository' : `${repositories} repositories`}`,
    measured: `${perSecond.toFixed(0)}/s${failed > 0 ? `, ${failed} failed` : ''}\n    CPU for each push: ${cpu}`,
    goal: repositories === 1 ? '>= 20/s' : '>= 200/s',
  };
}

async function restarted(member: MemberProcess): Promise<void> {
  member.start();
  await member.ready();
}

async function failovers(ground: ClusterScene, { kills }: Effort): Promise<readonly Line[]> {
  const { cluster } = ground;
  const repository = 'bench/small';
  const kinds: { what: string; kill: (round: number) => Promise<() => Promise<unknown>> }[] = [
    {
      what: 'a storage node, the preferred one',
      kill: async (round) => {
        const node = cluster.storageNode(round % cluster.storage.length);
        await node.kill();
        return () => restarted(node);
      },
    },
    {
      what: 'a front-end, with a client that asks the other',
      kill: async (round) => {
        const frontEnd = cluster.frontEnd(round % 2);
        await frontEnd.kill();
        return () => restarted(frontEnd);
      },
    },
    {
      what: "etcd's leader",
      kill: async () => {
        const leader = await cluster.etcd.killLeader();
        return async () => {
          leader.start();
          await cluster.etcd.ready();
        };
      },
    },
  ];
  const lines: Line[] = [];
  for (const { what, kill } of kinds) {
    const measured: Failover[] = [];
    for (let round = 0; round < kills; round++) {
      let mend: (() => Promise<unknown>) | undefined;
      measured.push(
        await measureFailover(ground, repository, async () => {
          mend = await kill(round);
        }),
      );
      await mend?.();
      await sleep(500);
    }
    const gaps = measured.map(({ writeGapMs }) => writeGapMs).sort((a, b) => a - b);
    const failed = measured.reduce((sum, { readsFailed }) => sum + readsFailed, 0);
    const reads = measured.reduce((sum, one) => sum + one.reads, 0);
    lines.push({
      what: `first push after SIGKILL of ${what}, ${kills} kills`,
      measured: `median ${median(gaps).toFixed(0)} ms, p99 ${(gaps.at(-1) ?? 0).toFixed(0)} ms; ${failed} of ${reads} reads failed twice`,
      goal: 'p99 <= 3 s, no read',
    });
  }
  return lines;
}

async function refill(ground: ClusterScene, { refillBytes }: Effort): Promise<Line> {
  const { scene, cluster } = ground;
  const source = await scene.makeRepository({ commits: 1 });
  const file = join(source, 'noise');
  const noise = Buffer.alloc(refillBytes);
  for (let at = 0; at < noise.length; at += 4)
    noise.writeUInt32LE((Math.random() * 2 ** 32) >>> 0, at);
  await writeFile(file, noise);
  await git(['add', 'noise'], { cwd: source, env: scene.env });
  await git(['commit', '--quiet', '-m', 'noise'], { cwd: source, env: scene.env });
  await git(['push', '--quiet', ground.httpUrl(0, 'bench/noise'), 'main'], {
    cwd: source,
    env: scene.env,
  });
  const startedMs = performance.now();
  await wipe(cluster.storageNode(0));
  const restartedMs = performance.now();
  await waitFor(
    'the wiped node to be filled again',
    async () => {
      const shown = await ground.admin(0, '--json', 'repo', 'replicas', 'bench/noise');
      const copies: readonly { role: string; sound?: boolean }[] = JSON.parse(shown);
      return copies.length === 3 && copies.every(({ role, sound }) => role === 'voter' && sound);
    },
    300_000,
  );
  const seconds = (performance.now() - restartedMs) / 1000;
  const { size } = await stat(file);
  return {
    what: `refill of a wiped node, ${(size / 1024 ** 2).toFixed(0)} MiB`,
    measured: `${seconds.toFixed(1)} s after its restart (${((restartedMs - startedMs) / 1000).toFixed(1)} s): ${(size / 1024 ** 2 / seconds).toFixed(0)} MiB/s`,
    goal: '',
  };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? NaN;
}

interface Flags {
  readonly quick?: true;
  readonly kills?: number;
  readonly json?: string;
}

function parseFlags(words: readonly string[]): Flags {
  return new Command('npm run bench -- replicated')
    .description(
      'Measures what replication costs, and what a failure costs, in a cluster on this machine.',
    )
    .option('--quick', 'fewer rounds and kills (3), and a smaller repository')
    .option('--kills <n>', 'kills of each kind of process (default: 20)', wholeNumber)
    .option('--json <file>', 'write what was measured there')
    .helpOption('--help')
    .allowExcessArguments(false)
    .exitOverride(endWith)
    .parse([...words], { from: 'user' })
    .opts<Flags>();
}

/** Rejects when it is to end before its time, or nobody reads what it says any more. */
function broken(): Promise<never> {
  return new Promise((_resolve, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => reject(new Error(`ended by ${signal}`)));
    }
    process.stdout.on('error', reject);
  });
}

/** `npm run bench -- replicated [--quick] [--kills N] [--json FILE]` */
export async function benchReplicated(words: readonly string[]): Promise<void> {
  const { quick = false, kills = quick ? 3 : 20, json } = parseFlags(words);
  if (!provideNeeds(['nginx'])) throw new Error('nginx is needed');
  const effort: Effort = {
    rounds: quick ? 10 : 40,
    kills,
    durationMs: quick ? 3_000 : 10_000,
    refillBytes: (quick ? 32 : 256) * 1024 ** 2,
  };
  const machine = await describeMachine();
  const directory = await mkdtemp(join(tmpdir(), 'quorate-bench-'));
  const lines: Line[] = [];
  const tell = (line: Line): void => {
    lines.push(line);
    const goal = line.goal === '' ? '' : `  (goal ${line.goal})`;
    process.stdout.write(`${line.what}\n    ${line.measured}${goal}\n`);
  };
  const nginx = await startNginx({ directory });
  const ground = await createClusterScene({
    // As docs/operations.md recommends for one region.
    etcdElectionMs: 500,
    storageFlags: ['--set=log.level=warn'],
    frontEndFlags: ['--set=log.level=warn', '--set=repair.downAfter=2s', '--set=repair.after=5s'],
  });
  const measure = async (): Promise<void> => {
    tell(await smallPushes(ground, nginx, effort));
    tell(await throughput(ground, effort, 1));
    tell(await throughput(ground, effort, 100));
    for (const line of await failovers(ground, effort)) tell(line);
    tell(await refill(ground, effort));
  };
  try {
    await Promise.race([measure(), broken()]);
    process.stdout.write(`\n${formatMachine(machine)}\n`);
    if (json !== undefined) {
      await writeFile(json, `${JSON.stringify({ machine, lines }, undefined, 2)}\n`);
    }
  } finally {
    await ground.close();
    await nginx.stop();
    await rm(directory, { recursive: true, force: true });
  }
}
