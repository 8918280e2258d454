import { rmSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Case } from './case.js';
import { killDaemons } from './commands.js';
import { openCpuAccounting } from './cpu-accounting.js';
import type { CpuAccounting } from './cpu-accounting.js';
import { openFixture } from './fixtures.js';
import type { Fixture } from './fixtures.js';
import { describeMachine, formatMachine } from './machine.js';
import { interleave } from './measure.js';
import type { Measured } from './measure.js';
import { provideNeeds } from './needs.js';
import { parseOptions } from './options.js';
import type { Options } from './options.js';
import type { Peer } from './peers/peer.js';
import { startPeers } from './peers/start-peers.js';
import { createProgress } from './progress.js';
import type { Progress } from './progress.js';
import { benchReplicated } from './replicated/main.js';
import { formatReport } from './report.js';
import { compare } from './statistics.js';
import type { CaseResult } from './statistics.js';

/** How many rounds, and for how long rounds may begin. */
interface Effort {
  readonly warmUps: number;
  readonly rounds: number;
  readonly budgetMs: number;
}

function effortFor({ heavy, warmUps = 5 }: Case, { quick, runs }: Options): Effort {
  if (heavy === true) {
    return quick
      ? { warmUps: 0, rounds: runs ?? 2, budgetMs: 6_000 }
      : { warmUps: 1, rounds: runs ?? 5, budgetMs: 240_000 };
  }
  return quick
    ? { warmUps: 1, rounds: runs ?? 3, budgetMs: 4_000 }
    : { warmUps, rounds: runs ?? 9, budgetMs: 240_000 };
}

interface Stage {
  readonly options: Options;
  readonly peers: readonly Peer[];
  readonly cpu: CpuAccounting;
  readonly directory: string;
  readonly progress: Progress;
  /** Which fixtures each peer has a copy of. */
  readonly loaded: Set<string>;
}

async function runCase(benchmark: Case, stage: Stage): Promise<CaseResult> {
  const { options, progress } = stage;
  const step = (message: string): void => progress.show(`${benchmark.title}: ${message}`);
  const made = await openFixture(benchmark.fixture, {
    cache: options.cache,
    repository: options.repo,
    largeBytes: (options.quick ? 25 : 100) * 1024 ** 2,
    progress: step,
  });
  const { effort, able, unable } = planFor(benchmark, stage);
  if (benchmark.startsEmpty !== true) {
    for (const peer of able) {
      if (stage.loaded.has(`${peer.name} ${made.name}`)) continue;
      step(`loading into ${peer.name}`);
      await peer.load(made.name, made.path);
      stage.loaded.add(`${peer.name} ${made.name}`);
    }
  }
  const directory = join(stage.directory, benchmark.key);
  await mkdir(directory);
  const prepared = await benchmark.prepare({
    fixture: made,
    rounds: effort.warmUps + effort.rounds,
    directory,
    quick: options.quick,
  });
  const measured = await interleave(benchmark, {
    prepared,
    peers: able,
    cpu: stage.cpu,
    ...effort,
    progress: step,
  });
  await rm(directory, { recursive: true, force: true });
  return {
    key: benchmark.key,
    title: benchmark.title,
    repository: describeFixture(made),
    peers: compare([...measured, ...unable]),
  };
}

function planFor(
  benchmark: Case,
  { peers, options }: Stage,
): { effort: Effort; able: readonly Peer[]; unable: readonly Measured[] } {
  const able: Peer[] = [];
  const unable: Measured[] = [];
  for (const peer of peers) {
    const failure = benchmark.impossibleFor?.(peer);
    if (failure === undefined) able.push(peer);
    else unable.push({ peer, samples: [], failure });
  }
  return { effort: effortFor(benchmark, options), able, unable };
}

function describeFixture({ facts }: Pick<Fixture, 'facts'>): string {
  const { packBytes, objects, commits, refs } = facts;
  const megabytes = (packBytes / 1024 ** 2).toFixed(1);
  return `${megabytes} MiB packed, ${objects} objects, ${commits} commits, ${refs} refs`;
}

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  if (!provideNeeds(options.peers)) {
    process.exitCode = 1;
    return;
  }
  const machine = await describeMachine();
  const progress = createProgress(process.stderr);
  const directory = await mkdtemp(join(tmpdir(), 'quorate-bench-'));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      killDaemons();
      rmSync(directory, { recursive: true, force: true });
      process.exit(130);
    });
  }
  let peers: readonly Peer[] = [];
  let cpu: CpuAccounting | undefined;
  try {
    peers = await startPeers(options.peers, directory);
    cpu = openCpuAccounting(peers);
    const clients = join(directory, 'clients');
    await mkdir(clients);
    const stage: Stage = {
      options,
      peers,
      cpu,
      directory: clients,
      progress,
      loaded: new Set(),
    };
    const results: CaseResult[] = [];
    for (const benchmark of options.cases) results.push(await runCase(benchmark, stage));
    progress.end();
    process.stdout.write(
      `${formatReport(results)}\n\n${cpu.description}\n${formatMachine(machine)}\n`,
    );
    if (options.json !== undefined) {
      const { quick, repo } = options;
      const written = { machine, cpuAccounting: cpu.description, quick, repo, cases: results };
      await writeFile(options.json, `${JSON.stringify(written, undefined, 2)}\n`);
    }
    if (results.some(({ peers }) => peers.some(failed))) process.exitCode = 1;
  } finally {
    progress.end();
    for (const peer of peers) await peer.stop();
    await cpu?.close();
    await rm(directory, { recursive: true, force: true });
  }
}

/** Quorate has to get through every case; what other servers cannot do is a line in the report. */
function failed({ peer, note, samples }: CaseResult['peers'][number]): boolean {
  return peer.startsWith('Quorate') && note !== undefined && samples.length === 0;
}

if (process.argv[2] === 'replicated') await benchReplicated(process.argv.slice(3));
else await main();
