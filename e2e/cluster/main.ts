import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openDataDirectory } from '../../server/data-directory.js';
import { processesUsing, wasStartedWith } from '../processes.js';
import { Cluster, type ClusterDescription } from './cluster.js';
import { makeDeveloper } from './developer.js';
import { parseOptions } from './options.js';

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  const stopped = stopSignal();
  if (options.json !== undefined) await makeWay(options.json);
  // Locked, so that a second cluster on it does not meddle with the members of the first.
  const place = await openDataDirectory(
    path.resolve(options.data ?? (await mkdtemp(path.join(tmpdir(), 'quorate-cluster-')))),
  );
  const directory = place.path;
  try {
    await refuseOrphans(directory);
    process.env[runVariable] = directory;
    process.stdout.write(`starting a cluster in ${directory} ...\n`);
    const cluster = await Cluster.start({
      directory,
      storageNodes: options.storage,
      frontEnds: options.frontEnds,
      env: memberEnvironment(),
      detached: true,
      // As recommended for one region: pushes pause for half as long when etcd's leader dies.
      etcdElectionMs: 500,
      ...(options.basePort === undefined ? {} : { basePort: options.basePort }),
    });
    try {
      const description = await cluster.describe();
      process.stdout.write(await greeting(description, directory));
      tellOfEnds(cluster, stopped);
      if (options.json !== undefined) await writeWhole(options.json, description);
      await stopped;
      process.stdout.write('\nstopping ...\n');
    } finally {
      await cluster.stop();
    }
  } finally {
    await place.release();
    if (options.data === undefined) await rm(directory, { recursive: true, force: true });
  }
}

/** Whoever kills a member to see what happens wants it back, too. */
function tellOfEnds(cluster: Cluster, stopped: Promise<void>): void {
  let isStopping = false;
  void stopped.then(() => (isStopping = true));
  for (const member of [...cluster.etcd.members, ...cluster.storage, ...cluster.frontEnds]) {
    member.onEnd((how) => {
      if (isStopping) return;
      process.stdout.write(
        `${member.name} has ended (${how}); to start it again, apart from this command:\n  ${member.command.join(' ')}\n`,
      );
    });
  }
}

const isMember = / serve |(?:^|\/)etcd /;
/** In the environment of what this command starts, and of nothing that people start by hand. */
const runVariable = 'CLUSTER_RUN_DIRECTORY';

/**
 * Members whose `npm run cluster` was killed go on, and have the ports and files that this one's would have. Nodes that
 * were started by hand with the cluster's secret are none of those.
 */
async function refuseOrphans(directory: string): Promise<void> {
  if (process.platform !== 'linux') return;
  const pids: number[] = [];
  for (const { pid, commandLine } of await processesUsing(directory)) {
    if (!isMember.test(commandLine)) continue;
    if (await wasStartedWith(pid, runVariable, directory)) pids.push(pid);
  }
  if (pids.length === 0) return;
  throw new Error(
    `a cluster that was killed left processes on ${directory}, which still run: end them with kill ${pids.join(' ')}`,
  );
}

/** Ctrl-C also arrives by way of npm: it is heard once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => resolve());
    }
  });
}

/** The members' own, less what would configure them. */
function memberEnvironment(): Readonly<Record<string, string>> {
  const kept = Object.entries(process.env).filter(
    (entry): entry is [string, string] =>
      entry[1] !== undefined && !entry[0].startsWith('QUORATE_'),
  );
  return Object.fromEntries(kept);
}

/** Nobody takes an earlier cluster's file for this one's; and what cannot be written is said before the start. */
async function makeWay(file: string): Promise<void> {
  const draft = `${file}.${process.pid}`;
  try {
    await rm(file, { force: true });
    await writeFile(draft, '', { mode: 0o600 });
    await rm(draft);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new Error(`--json ${file} cannot be written (${code}): name another file`, {
      cause: error,
    });
  }
}

/** Whoever waits for the file never reads half of it. */
async function writeWhole(file: string, description: ClusterDescription): Promise<void> {
  const draft = `${file}.${process.pid}`;
  await writeFile(draft, `${JSON.stringify(description, undefined, 2)}\n`, { mode: 0o600 });
  await rename(draft, file);
}

/** What people are told; also when the cluster commits nothing, since its etcd was put back from an older snapshot. */
async function greeting(description: ClusterDescription, directory: string): Promise<string> {
  try {
    const token = await makeDeveloper(description);
    return announcement(description, { token, directory });
  } catch (error) {
    const frozen = await whyFrozen(description);
    if (frozen === undefined) throw error;
    return frozenAnnouncement(description, { frozen, directory });
  }
}

/** Of a front-end that does not believe the coordinator. */
async function whyFrozen({ frontEnds }: ClusterDescription): Promise<string | undefined> {
  const [first] = frontEnds;
  if (first === undefined) return undefined;
  const answer: { readonly warnings?: { readonly coordinator?: string } } = JSON.parse(
    await (await fetch(`${first.ops}/readyz`)).text(),
  );
  return answer.warnings?.coordinator;
}

function addresses({ etcd, storage, frontEnds }: ClusterDescription): readonly string[] {
  return [
    ...frontEnds.map(
      ({ http, ssh, ops }, n) => `front-end ${n + 1}   ${http}  ${ssh}  ${ops}/metrics`,
    ),
    ...storage.map(
      ({ id, url: node, ops, pid }) => `${id}     ${node}  ${ops}/metrics  (process ${pid})`,
    ),
    `etcd          ${etcd.map(({ url: member }) => member).join(' ')}`,
  ];
}

function adminOf(directory: string): string {
  return `node dist/server/main.js --data ${path.join(directory, 'front-end-1')}`;
}

function frozenAnnouncement(
  description: ClusterDescription,
  { frozen, directory }: { readonly frozen: string; readonly directory: string },
): string {
  const admin = adminOf(directory);
  return [
    '',
    ...addresses(description),
    '',
    `${frozen.slice(0, 1).toUpperCase()}${frozen.slice(1)}.`,
    '',
    'To put the latest copy of etcd back: Ctrl-C, put it into',
    `  ${path.join(directory, 'etcd')}`,
    'and start the cluster again. If there is none, the storage nodes know the rest:',
    `  ${admin} recover            (shows what they hold, and changes nothing)`,
    `  ${admin} recover --apply    (goes on from it; then Ctrl-C, and start again)`,
    '',
    'Ctrl-C stops all of it.',
    '',
  ].join('\n');
}

function announcement(
  description: ClusterDescription,
  { token, directory }: { readonly token: string; readonly directory: string },
): string {
  const [first] = description.frontEnds;
  const withToken = (first?.http ?? '').replace('://', `://dev:${token}@`);
  const admin = adminOf(directory);
  return [
    '',
    ...addresses(description),
    '',
    'user `dev`, which may create repositories; in any Git repository:',
    `  git push ${withToken}/demo.git HEAD:refs/heads/main`,
    `  git clone ${withToken}/demo.git`,
    `user \`admin\`: token ${description.adminToken}`,
    `  ${admin} status`,
    `  ${admin} node list`,
    `  ${admin} repo replicas demo`,
    `  ${admin} key add dev ~/.ssh/id_ed25519.pub`,
    '',
    'Ctrl-C stops all of it.',
    '',
  ].join('\n');
}

main().catch((error: unknown) => {
  process.stderr.write(`cluster: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
