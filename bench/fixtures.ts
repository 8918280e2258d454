import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { git } from './commands.js';
import { importHistory } from './fixture-history.js';

/** Change it when the fixtures' content changes, so that none of an older version is used. */
const version = 1;
const refCount = 50_000;
const megabyte = 1024 ** 2;

export type FixtureName = 'small' | 'mid' | 'large' | 'refs';

/** A bare repository, repacked with a bitmap, that every peer gets a copy of. Nobody writes to it. */
export interface Fixture {
  /** Of the repository at the peers. */
  readonly name: string;
  readonly path: string;
  readonly facts: {
    readonly packBytes: number;
    readonly objects: number;
    readonly commits: number;
    readonly refs: number;
  };
}

export interface FixtureOptions {
  /** Directory that keeps them between runs. */
  readonly cache: string;
  /** A repository to be `mid` and `large`, in place of made ones. */
  readonly repository: string | undefined;
  /** Size of `large`'s pack. */
  readonly largeBytes: number;
  readonly progress: (message: string) => void;
}

/** A branch of `refs`, by its number. */
export function branchOfRefs(index: number): string {
  return `refs/heads/topic/${String(index % refCount).padStart(5, '0')}`;
}

export async function openFixture(name: FixtureName, options: FixtureOptions): Promise<Fixture> {
  await mkdir(options.cache, { recursive: true });
  if (options.repository !== undefined && (name === 'mid' || name === 'large')) {
    const source = resolve(options.repository);
    const refs = await git(['for-each-ref'], { cwd: source });
    const key = createHash('sha256').update(`${source}\n${refs}`).digest('hex').slice(0, 16);
    return cached(name, `given-${key}`, options, async (path) => {
      await git(['clone', '--quiet', '--mirror', '--no-hardlinks', source, path]);
    });
  }
  if (name === 'refs') {
    const small = await openFixture('small', options);
    return cached(name, 'refs', options, (path) => manyRefs(path, small.path));
  }
  const packBytes = { small: megabyte, mid: 12 * megabyte, large: options.largeBytes }[name];
  return cached(name, `${name}-${Math.round(packBytes / megabyte)}`, options, async (path) => {
    await git(['init', '--quiet', '--bare', '-b', 'main', path]);
    await importHistory(path, {
      packBytes,
      progress: (done) =>
        options.progress(`making ${name}: ${Math.min(99, Math.round((100 * done) / packBytes))} %`),
    });
  });
}

/** Makes it beside its place and moves it there when it is whole, so that a run that was cut off leaves no half one. */
async function cached(
  name: FixtureName,
  key: string,
  { cache, progress }: FixtureOptions,
  make: (path: string) => Promise<void>,
): Promise<Fixture> {
  const place = join(cache, `${key}.v${version}`);
  const factsFile = join(place, 'facts.json');
  const known = await readFile(factsFile, 'utf8').catch(() => undefined);
  if (known !== undefined) return { name, path: join(place, 'bare.git'), facts: JSON.parse(known) };
  const making = await mkdtemp(join(cache, 'making-'));
  try {
    const path = join(making, 'bare.git');
    progress(`making ${name}`);
    await make(path);
    progress(`making ${name}: repacking`);
    await git(['repack', '--quiet', '-a', '-d', '-f', '--write-bitmap-index'], { cwd: path });
    await git(['pack-refs', '--all'], { cwd: path });
    await git(['commit-graph', 'write', '--reachable'], { cwd: path });
    const facts = await factsOf(path);
    await writeFile(join(making, 'facts.json'), JSON.stringify(facts));
    await rm(place, { recursive: true, force: true });
    await rename(making, place);
    return { name, path: join(place, 'bare.git'), facts };
  } catch (error) {
    await rm(making, { recursive: true, force: true });
    throw error;
  }
}

async function factsOf(path: string): Promise<Fixture['facts']> {
  const counts = await git(['count-objects', '-v'], { cwd: path });
  const field = (key: string): number =>
    Number(new RegExp(`^${key}: (\\d+)$`, 'm').exec(counts)?.[1] ?? 0);
  const refs = await git(['for-each-ref', '--format=x'], { cwd: path });
  return {
    packBytes: field('size-pack') * 1024,
    objects: field('in-pack'),
    commits: Number(await git(['rev-list', '--count', '--all'], { cwd: path })),
    refs: refs.split('\n').length,
  };
}

/** `small` with 50,000 branches more, spread over its commits. */
async function manyRefs(path: string, small: string): Promise<void> {
  await git(['clone', '--quiet', '--mirror', '--no-hardlinks', small, path]);
  const commits = (await git(['rev-list', 'main'], { cwd: path })).split('\n');
  const lines = [`${commits[0]} refs/heads/main`];
  for (let i = 0; i < refCount; i++)
    lines.push(`${commits[i % commits.length]} ${branchOfRefs(i)}`);
  const header = '# pack-refs with: peeled fully-peeled sorted ';
  await writeFile(join(path, 'packed-refs'), [header, ...lines, ''].join('\n'));
}
