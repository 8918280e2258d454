import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { runProcess } from '../run-process.js';

/* What lies on the server's disk, read without the server: with git, and as files. */

export interface RepositoryOnDisk {
  /** The directory that holds `git/` and `state`. */
  readonly directory: string;
  readonly id: string;
  readonly generation: number;
  readonly refs: ReadonlyMap<string, string>;
}

type Environment = Readonly<Record<string, string>>;

export async function repositoriesOnDisk(
  dataDirectory: string,
  env: Environment,
): Promise<readonly RepositoryOnDisk[]> {
  const root = path.join(dataDirectory, 'store', 'repos');
  const shards = await readdir(root);
  const directories = await Promise.all(
    shards.map(async (shard) =>
      (await readdir(path.join(root, shard))).map((id) => path.join(root, shard, id)),
    ),
  );
  return Promise.all(directories.flat().map((directory) => readRepository(directory, env)));
}

async function readRepository(directory: string, env: Environment): Promise<RepositoryOnDisk> {
  const { generation, intended } = await readMarker(directory);
  if (intended > generation) throw new Error(`${directory}/intent holds an unfinished entry`);
  const listed = await runProcess(
    'git',
    ['--git-dir', path.join(directory, 'git'), 'for-each-ref', '--format=%(objectname) %(refname)'],
    { env },
  );
  if (listed.exitCode !== 0) throw new Error(listed.stderr);
  const refs = new Map<string, string>();
  for (const line of listed.stdout.trim().split('\n')) {
    const [oid = '', ref = ''] = line.split(' ');
    if (ref !== '') refs.set(ref, oid);
  }
  return { directory, id: path.basename(directory), generation, refs };
}

/** The generation of a repository, and the one to which the last apply was to take it. */
export async function readMarker(
  directory: string,
): Promise<{ readonly generation: number; readonly intended: number; readonly digest: string }> {
  const marker = await firstLine(path.join(directory, 'state'));
  if (typeof marker !== 'object' || marker === null) {
    throw new Error(`${directory}/state is damaged`);
  }
  const { generation, digest }: { generation?: unknown; digest?: unknown } = marker;
  const intent = JSON.stringify((await firstLine(path.join(directory, 'intent'))) ?? {});
  const intended = [...intent.matchAll(/"generation":(\d+)/g)].map((match) => Number(match[1]));
  return {
    generation: Number(generation),
    intended: Math.max(0, ...intended),
    digest: String(digest),
  };
}

/** What stands in it; undefined when it is empty. */
async function firstLine(file: string): Promise<unknown> {
  const [line = ''] = (await readFile(file, 'utf8')).split('\n', 1);
  return line === '' ? undefined : JSON.parse(line);
}

/** What `git fsck` complains of; empty when all is well. Objects that nothing reaches are no complaint. */
export async function fsck(
  { directory }: RepositoryOnDisk,
  env: Environment,
  depth: 'connectivity' | 'full',
): Promise<readonly string[]> {
  const result = await runProcess(
    'git',
    [
      '--git-dir',
      path.join(directory, 'git'),
      'fsck',
      '--full',
      '--strict',
      '--no-dangling',
      '--no-progress',
      ...(depth === 'connectivity' ? ['--connectivity-only'] : []),
    ],
    { env },
  );
  // HEAD names a branch that need not be born.
  const lines = `${result.stdout}\n${result.stderr}`
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('notice:'));
  const failed = result.exitCode === 0 ? [] : [`fsck exited with ${result.exitCode}`];
  return [...failed, ...lines].map((line) => `${directory}: ${line}`);
}

/** Files that only exist while something runs: quarantines, locks, `.keep`, temporary files. */
export async function leftovers(dataDirectory: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const place of ['store/quarantine', 'store/trash', 'scratch']) {
    const names = await readdir(path.join(dataDirectory, place)).catch(() => []);
    found.push(...names.map((name) => `${place}/${name}`));
  }
  const spares = await readdir(path.join(dataDirectory, 'store/spares')).catch(() => []);
  for (const spare of spares) {
    const packs = await readdir(path.join(dataDirectory, 'store/spares', spare, 'pack'));
    found.push(...packs.map((name) => `store/spares/${spare}/pack/${name}`));
  }
  const repositories = path.join(dataDirectory, 'store', 'repos');
  const names = new Set(await readdir(repositories, { recursive: true }).catch(() => []));
  for (const name of names) {
    const half = name.replace(/\.pack$/, '.idx');
    if (isTransient(path.basename(name)) || !names.has(half)) found.push(name);
  }
  const pools = await readdir(path.join(dataDirectory, 'store', 'pools'), {
    recursive: true,
  }).catch(() => []);
  found.push(...pools.filter((name) => isTransient(path.basename(name))));
  return found;
}

/** Object directories of the pools on the disk. */
export async function poolsOnDisk(dataDirectory: string): Promise<readonly string[]> {
  const root = path.join(dataDirectory, 'store', 'pools');
  const shards = await readdir(root).catch(() => []);
  const pools = await Promise.all(
    shards.map(async (shard) =>
      (await readdir(path.join(root, shard))).map((id) =>
        path.join(root, shard, id, 'git', 'objects'),
      ),
    ),
  );
  return pools.flat();
}

function isTransient(file: string): boolean {
  return (
    /\.(?:lock|keep|new)$/.test(file) ||
    /^\.?tmp[-_]/.test(file) ||
    /\.(?:tmp|creating)-/.test(file) ||
    file.startsWith('incoming-')
  );
}
