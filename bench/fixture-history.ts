import { spawn } from 'node:child_process';
import { lstat, readFile, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { deflateSync } from 'node:zlib';
import { clientEnvironment } from './commands.js';

const filesPerCommit = 40;
/** Text files of which the following commits change some. */
const rememberedFiles = 600;
const largestChangedFileBytes = 128 * 1024;
const largestTextBytes = 4 * 1024 ** 2;
const largestBinaryBytes = 256 * 1024;
/** Measured: what git's pack takes of the sources' size at deflate level 1. */
const packedShare = 0.75;
const firstCommitAt = 1_700_000_000;

interface SourceFile {
  /** Inside the repository. */
  readonly path: string;
  readonly mode: '100644' | '100755';
  readonly content: Buffer;
  readonly text: boolean;
}

/** A tree of files that belongs together: an npm package, or what a Debian package keeps in one directory. */
interface Source {
  readonly name: string;
  readonly directory: string;
}

function byName(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

/** Where real sources are found: first what this package depends on, then npm itself, then the system's. */
async function findSources(): Promise<readonly Source[]> {
  const packageRoot = fileURLToPath(new URL('../../', import.meta.url));
  const npm = [
    join(packageRoot, 'node_modules'),
    join(dirname(process.execPath), '../lib/node_modules'),
  ];
  const sources: Source[] = [];
  for (const root of npm) sources.push(...(await npmPackages(root)));
  const system = ['/usr/include', '/usr/share/perl', '/usr/share/perl5', '/usr/share/vim'];
  const lib = await readdir('/usr/lib').catch(() => []);
  const python = lib.filter((name) => name.startsWith('python3')).map((name) => `/usr/lib/${name}`);
  for (const root of [...system, ...python.sort(byName), '/usr/share/doc']) {
    const names = await readdir(root).catch(() => []);
    const inRoot = names.sort(byName).map((name) => ({
      name: `debian${root}/${name}`,
      directory: join(root, name),
    }));
    sources.push(...inRoot);
  }
  return sources;
}

async function npmPackages(root: string): Promise<readonly Source[]> {
  const sources: Source[] = [];
  for (const name of (await readdir(root).catch(() => [])).sort(byName)) {
    if (name.startsWith('.')) continue;
    const names = name.startsWith('@')
      ? (await readdir(join(root, name))).sort(byName).map((inScope) => `${name}/${inScope}`)
      : [name];
    sources.push(...names.map((n) => ({ name: `npm/${n}`, directory: join(root, n) })));
  }
  return sources;
}

/** Regular files below, in a stable order. Symbolic links, what git reserves and what is overly large stay out. */
async function* filesIn({ name, directory }: Source): AsyncGenerator<SourceFile> {
  const stat = await lstat(directory);
  const isFile = stat.isFile();
  if (!isFile && !stat.isDirectory()) return;
  const entries = isFile ? [''] : (await readdir(directory, { recursive: true })).sort(byName);
  for (const entry of entries) {
    // Quotes and control characters would have to be quoted for fast-import.
    if (/["\\\p{Cc}]|(^|\/)(\.git|node_modules\/)/u.test(entry)) continue;
    const path = isFile ? directory : join(directory, entry);
    const found = await lstat(path);
    if (!found.isFile() || found.size > largestTextBytes || found.size === 0) continue;
    const content = await readFile(path);
    const text = !content.subarray(0, 8000).includes(0);
    if (!text && content.length > largestBinaryBytes) continue;
    const mode = (found.mode & 0o100) === 0 ? '100644' : '100755';
    yield { path: isFile ? name : `${name}/${entry}`, mode, content, text };
  }
}

/** Small, seeded: the same machine makes the same history twice. */
function pseudoRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A change as people make them: some lines taken out, written twice, or taken over from another file. */
function changed(content: Buffer, other: Buffer, random: (below: number) => number): Buffer {
  const lines = content.toString('latin1').split('\n');
  const others = other.toString('latin1').split('\n');
  const at = random(lines.length);
  const length = 1 + random(12);
  const from = random(others.length);
  const inserted = [[], lines.slice(at, at + length), others.slice(from, from + length)];
  const removed = random(2) * length;
  lines.splice(at, removed, ...(inserted[random(3)] ?? []), `${random(1e9)}`);
  return Buffer.from(lines.join('\n'), 'latin1');
}

function dataCommand(content: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`data ${content.length}\n`), content, Buffer.from('\n')]);
}

export interface HistoryOptions {
  /** Size of the pack to aim at; it ends earlier when there are no more sources. */
  readonly packBytes: number;
  readonly progress: (doneBytes: number) => void;
}

/** The history as the input of `git fast-import` (its manual page has the grammar). */
async function* history({ packBytes, progress }: HistoryOptions): AsyncGenerator<Buffer> {
  const random = pseudoRandom(packBytes);
  const remembered: SourceFile[] = [];
  let commits = 0;
  let estimate = 0;
  const commit = (message: string, files: readonly SourceFile[]): Buffer => {
    const at = firstCommitAt + commits++ * 3600;
    const who = `Bench <bench@example.org> ${at} +0000`;
    const head = `commit refs/heads/main\nauthor ${who}\ncommitter ${who}\n`;
    const changes = files.flatMap(({ path, mode, content }) => [
      Buffer.from(`M ${mode} inline ${path}\n`),
      dataCommand(content),
    ]);
    return Buffer.concat([Buffer.from(head), dataCommand(Buffer.from(message)), ...changes]);
  };
  const change = (): Buffer => {
    const count = Math.min(remembered.length, 1 + random(5));
    const files = new Map<string, SourceFile>();
    for (let i = 0; i < count; i++) {
      const index = random(remembered.length);
      const file = remembered[index];
      const other = remembered[random(remembered.length)];
      if (file === undefined || other === undefined) continue;
      const next = { ...file, content: changed(file.content, other.content, random) };
      remembered[index] = next;
      files.set(file.path, next);
    }
    return commit(`Change ${files.size} files\n`, [...files.values()]);
  };
  for (const source of await findSources()) {
    let batch: SourceFile[] = [];
    for await (const file of filesIn(source)) {
      batch.push(file);
      // Level 1 stores more than git does, and deltas save as much again: see `packedShare`.
      estimate += deflateSync(file.content, { level: 1 }).length * packedShare;
      if (file.text && file.content.length <= largestChangedFileBytes) {
        if (remembered.length < rememberedFiles) remembered.push(file);
        else remembered[random(rememberedFiles)] = file;
      }
      if (batch.length === filesPerCommit) {
        yield commit(`Add ${source.name}\n`, batch);
        batch = [];
        yield change();
        progress(estimate);
      }
      if (estimate >= packBytes) break;
    }
    if (batch.length > 0) yield commit(`Add ${source.name}\n`, batch);
    if (remembered.length > 0) yield change();
    progress(estimate);
    if (estimate >= packBytes) break;
  }
  for (let i = 0; i < 50; i++) yield change();
  yield Buffer.from('done\n');
}

/** Fills `main` of an empty bare repository with a history of real sources. */
export async function importHistory(repository: string, options: HistoryOptions): Promise<void> {
  const child = spawn('git', ['fast-import', '--quiet', '--done'], {
    cwd: repository,
    env: clientEnvironment,
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  await Promise.all([pipeline(Readable.from(history(options)), child.stdin), exited]);
  if ((await exited) !== 0) throw new Error('git fast-import failed');
}
