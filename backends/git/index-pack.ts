import { open, readdir, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { orAborted, QuorateError } from '../contract/errors.js';
import type { ObjectFormat } from '../contract/objects.js';
import { isIgnorableFsckId } from '../contract/fsck-messages.js';
import { type GitRunner, pacedTimeoutMs } from './git-runner.js';
import { troubleOf } from './machine-trouble.js';
import type { IndexedPack } from './pack-indexer.js';
import { PackFeed, type PackSource } from './pack-source.js';
import { syncDirectory } from './repository-files.js';

export interface IndexPackRun {
  readonly git: GitRunner;
  readonly source: PackSource;
  readonly quarantinePackDir: string;
  readonly objectsDir: string;
  readonly objectFormat: ObjectFormat;
  readonly maxObjectBytes: number;
  readonly fsck: { readonly enabled: boolean; readonly ignore: readonly string[] };
  readonly signal: AbortSignal;
  readonly progress: (text: Uint8Array) => void;
  readonly threads: number;
  readonly memoryLimitBytes: number;
  /** Which limit that is, for messages: its setting, if it has one. */
  readonly memoryLimitName: string;
  /** For how long git may work, or the sender be silent, since git took the last piece of the pack. */
  readonly timeoutMs: number;
}

/**
 * Indexes a pack with `git index-pack`, as git receive-pack does: GIT_OBJECT_DIRECTORY is the quarantine, the
 * repository's objects are its alternate. Errors as `PackIndexer` says; what git left in the directory is for the
 * caller to remove.
 */
export async function indexPackWithGit(run: IndexPackRun): Promise<IndexedPack> {
  const stopping = new AbortController();
  let timedOut = false;
  let timer: NodeJS.Timeout | undefined;
  const wait = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      timedOut = true;
      stopping.abort();
    }, run.timeoutMs);
  };
  wait();
  const feed = new PackFeed(run.source, wait);
  feed.finished.catch(() => stopping.abort());
  let result: GitEnd;
  try {
    result = await runGit(run, feed, AbortSignal.any([run.signal, stopping.signal]));
  } catch (error) {
    await throwFeedError(feed, stopping.signal, timedOut);
    throw error;
  } finally {
    clearTimeout(timer);
    feed.stream.destroy();
  }
  await throwFeedError(feed, stopping.signal, timedOut);
  if (run.signal.aborted) throw new QuorateError('cancelled', 'the push was given up');
  const sound = result.exitCode === 0 || (run.fsck.enabled && result.exitCode === notSelfContained);
  if (!sound) throw await refusal(run, result);
  return accept(run, feed, result);
}

/** As a stream, not a run: it is paced by the sender, and must not take the place of short runs. */
async function runGit(run: IndexPackRun, feed: PackFeed, signal: AbortSignal): Promise<GitEnd> {
  const child = await run.git.stream({
    args: [
      'index-pack',
      '--stdin',
      '--fix-thin',
      '--show-resolving-progress',
      `--threads=${run.threads}`,
      ...strictness(run.fsck),
    ],
    env: quarantineEnvironment(run),
    config: {
      // Whatever the repository's own config says: the pack is on disk when git exits.
      'core.fsync': 'committed',
      'core.fsyncMethod': 'fsync',
      // A third file that nothing here reads yet.
      'pack.writeReverseIndex': 'false',
      // Larger blobs are hashed piecewise instead of being held in memory (git's default: 512m).
      'core.bigFileThreshold': '64m',
    },
    stdin: feed.stream,
    signal,
    // The sender sets the pace: the caller's timer counts from its last piece.
    timeoutMs: pacedTimeoutMs,
    memoryLimitBytes: run.memoryLimitBytes,
    onStderr: run.progress,
  });
  const chunks: Buffer[] = [];
  let stdoutBytes = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    stdoutBytes += chunk.byteLength;
    if (stdoutBytes <= MAX_STDOUT_BYTES) chunks.push(chunk);
  });
  child.stdout.on('error', () => {});
  const { exitCode, stderr } = await child.exited;
  return { exitCode, stdout: Buffer.concat(chunks).toString('latin1'), stderr };
}

interface GitEnd {
  /** null when a signal ended it. */
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** One line, and what git had in its buffer of 4 KiB beyond the pack. */
const MAX_STDOUT_BYTES = 64 * 1024;

/** git's environment for writing into a quarantine. Objects are looked up in both, written to the first. */
export function quarantineEnvironment(paths: {
  readonly quarantinePackDir: string;
  readonly objectsDir: string;
}): Record<string, string> {
  if (basename(paths.quarantinePackDir) !== 'pack') {
    throw new Error('a quarantine keeps its packs in a directory named pack');
  }
  return {
    GIT_DIR: dirname(paths.objectsDir),
    GIT_OBJECT_DIRECTORY: dirname(paths.quarantinePackDir),
    // A list separated by colons; a quoted path may hold them (git(1)).
    GIT_ALTERNATE_OBJECT_DIRECTORIES: `"${paths.objectsDir.replace(/["\\]/g, '\\$&')}"`,
  };
}

/**
 * `--strict` also checks that what the pack's objects name is there, as receive-pack with transfer.fsckObjects. Then it
 * costs nothing more to be told whether all of that is in the pack itself.
 */
function strictness(fsck: IndexPackRun['fsck']): string[] {
  if (!fsck.enabled) return [];
  const ignored = fsck.ignore.filter(isIgnorableFsckId).map((id) => `${id}=ignore`);
  return [
    ignored.length === 0 ? '--strict' : `--strict=${ignored.join(',')}`,
    '--check-self-contained-and-connected',
  ];
}

/** git-index-pack(1): with that option, 1 says that the pack is sound, and names objects that it does not bring. */
const notSelfContained = 1;

/** Throws why the feed broke off, or that time ran out; returns when neither is the reason. */
async function throwFeedError(
  feed: PackFeed,
  stopping: AbortSignal,
  timedOut: boolean,
): Promise<void> {
  if (timedOut) {
    throw new QuorateError('deadline-exceeded', 'indexing the pack took too long');
  }
  if (stopping.aborted) await feed.finished;
}

async function accept(
  run: IndexPackRun,
  feed: PackFeed,
  { stdout, exitCode }: GitEnd,
): Promise<IndexedPack> {
  // The line is followed by what git read beyond the pack.
  const match = /^pack\t([0-9a-f]{40,64})\n([^]*)$/.exec(stdout);
  if (match === null) throw new QuorateError('internal', 'git index-pack named no pack');
  const wholeSourceRead = await orAborted(feed.finished, run.signal);
  const name = `pack-${match[1] ?? ''}`;
  const packPath = join(run.quarantinePackDir, `${name}.pack`);
  const { size: sizeBytes } = await stat(packPath);
  const objectCount = await storedObjectCount(run, name, sizeBytes);
  if (match[2] !== '' || !wholeSourceRead || objectCount === undefined) {
    throw new QuorateError('invalid-argument', 'the pack has junk at its end');
  }
  if (objectCount === 0) return { name: undefined, objectCount, sizeBytes: 0, engine: 'git' };
  if (run.maxObjectBytes > 0) await requireSmallObjects(run);
  await syncDirectory(run.quarantinePackDir);
  // The bases that git appended to a thin pack came from the repository, where they may be leftovers.
  const selfContained =
    run.fsck.enabled && exitCode === 0 && objectCount === run.source.declaredObjects;
  return { name, objectCount, sizeBytes, engine: 'git', ...(selfContained && { selfContained }) };
}

/** Up to and with the fan-out table, whose last entry is the number of objects (gitformat-pack(5), version 2). */
const INDEX_HEADER_BYTES = 8 + 256 * 4;
const CHUNK_BYTES = 64 * 1024;

/**
 * Objects in the stored pack; undefined when bytes came between the objects and the checksum, or behind it, that git
 * left alone. A thick pack is stored as it came; in a thin one, the first base that git appended sits where the
 * checksum was.
 */
async function storedObjectCount(
  run: IndexPackRun,
  name: string,
  sizeBytes: number,
): Promise<number | undefined> {
  const oidBytes = run.objectFormat === 'sha1' ? 20 : 32;
  const index = await open(join(run.quarantinePackDir, `${name}.idx`));
  try {
    const header = Buffer.alloc(INDEX_HEADER_BYTES);
    await index.read(header, 0, INDEX_HEADER_BYTES, 0);
    const stored = header.readUInt32BE(INDEX_HEADER_BYTES - 4);
    const appended = stored - run.source.declaredObjects;
    if (appended === 0) return sizeBytes === run.source.sizeBytes ? stored : undefined;
    const end = run.source.sizeBytes - oidBytes;
    // Offsets from 2 GiB on are kept in another table. What git left in its buffer has been looked at anyway.
    if (end >= 2 ** 31) return stored;
    let beyond = 0;
    let atEnd = 0;
    const chunk = Buffer.alloc(CHUNK_BYTES);
    let at = INDEX_HEADER_BYTES + stored * (oidBytes + 4);
    const tableEnd = at + stored * 4;
    while (at < tableEnd) {
      const { bytesRead } = await index.read(chunk, 0, Math.min(CHUNK_BYTES, tableEnd - at), at);
      if (bytesRead === 0) throw new QuorateError('internal', 'git index-pack cut its index short');
      for (let i = 0; i + 4 <= bytesRead; i += 4) {
        const offset = chunk.readUInt32BE(i);
        if (offset >= end) beyond += 1;
        if (offset === end) atEnd += 1;
      }
      at += bytesRead - (bytesRead % 4);
    }
    return atEnd === 1 && beyond === appended ? stored : undefined;
  } finally {
    await index.close();
  }
}

/** git index-pack knows no limit for objects; their sizes are asked for afterwards, from their headers. */
async function requireSmallObjects(run: IndexPackRun): Promise<void> {
  const { GIT_DIR = '', GIT_OBJECT_DIRECTORY = '' } = quarantineEnvironment(run);
  const sizes = await run.git.stream({
    args: ['cat-file', '--batch-all-objects', '--unordered', '--batch-check=%(objectsize)'],
    // Without the alternate, so that these are the objects of the pack only.
    env: { GIT_DIR, GIT_OBJECT_DIRECTORY },
    signal: run.signal,
    timeoutMs: run.timeoutMs,
  });
  try {
    let largest = 0;
    let rest = '';
    // Of numbers without leading zeros only those with as many digits as the limit can be larger; few have.
    const candidates = new RegExp(`\\d{${String(run.maxObjectBytes).length},}`, 'g');
    for await (const chunk of sizes.stdout) {
      const text = rest + String(chunk);
      const end = text.lastIndexOf('\n') + 1;
      rest = text.slice(end);
      for (const [size] of text.slice(0, end).matchAll(candidates)) {
        largest = Math.max(largest, Number(size));
      }
    }
    const { exitCode } = await sizes.exited;
    if (run.signal.aborted) throw new QuorateError('cancelled', 'the push was given up');
    if (exitCode !== 0) throw new QuorateError('internal', 'git cat-file could not list the pack');
    if (largest > run.maxObjectBytes) throw objectTooLarge(largest, run.maxObjectBytes);
  } finally {
    sizes.kill();
  }
}

export function objectTooLarge(objectBytes: number, limitBytes: number): QuorateError {
  return new QuorateError(
    'resource-exhausted',
    `an object of ${objectBytes} bytes is larger than the limit of ${limitBytes} bytes (receive.maxObjectSize)`,
  );
}

/** Why git refused. Its exit status is 128 for a bad pack and a full disk alike: the disk is asked. */
async function refusal(run: IndexPackRun, result: GitEnd): Promise<QuorateError> {
  const problem = await storageProblem(run.quarantinePackDir, run.source.sizeBytes);
  if (problem !== undefined) return problem;
  if (result.exitCode === null) {
    return new QuorateError('resource-exhausted', 'git index-pack was killed: too much memory?');
  }
  const trouble = troubleOf({ ...result, signal: null, stderr: ownWords(result.stderr) });
  // Its own memory is limited, far below the machine's.
  if (trouble !== undefined && /memory/i.test(trouble)) return tooMuchMemory(run, trouble);
  if (trouble !== undefined) {
    return new QuorateError('storage-failure', 'git could not index the pack', {
      details: { trouble },
    });
  }
  return new QuorateError('invalid-argument', gitWords(run, result.stderr));
}

const MIB = 1024 ** 2;

/** Whether the pack is sound nobody knows then, nor whether it would be with more. */
function tooMuchMemory(
  { memoryLimitBytes, memoryLimitName }: IndexPackRun,
  trouble: string,
): QuorateError {
  const limit = `${Math.floor(memoryLimitBytes / MIB)} MiB (${memoryLimitName})`;
  return new QuorateError(
    'resource-exhausted',
    `to index the pack git needs more memory than this server gives it, ${limit}; ` +
      'large files that are sent whole need less: git -c pack.depth=0 push',
    { details: { trouble, memoryLimitBytes } },
  );
}

/**
 * Without what fsck quotes of the pack: names and addresses that a pusher chose may read like words of the machine, and
 * hold newlines. Nothing at all where fsck found what is wrong in itself; that something is missing may be for want of
 * files.
 */
function ownWords(stderr: string): string {
  // Progress ends with a carriage return.
  const lines = stderr.trimEnd().split(/[\r\n]+/);
  const found = lines.filter((line) => aboutObject.test(line));
  const wrong = found.some((line) => !/^\S+ \S+ \S+ \w+Missing: /.test(line));
  if (wrong && lines.at(-1)?.startsWith('fatal: fsck error in ') === true) return '';
  return lines.filter((line) => !aboutObject.test(line)).join('\n');
}

const aboutObject = /^(?:error|warning): object [0-9a-f]{40,64}: /;

const PROBE_BYTES = 4096;

/**
 * A disk that takes no small synced file, or has less room than the pack needed, is taken for the cause of a failure.
 * Undefined when it is well.
 */
export async function storageProblem(
  directory: string,
  neededBytes: number,
): Promise<QuorateError | undefined> {
  const probe = join(directory, 'probe');
  try {
    await writeFile(probe, Buffer.alloc(PROBE_BYTES), { flush: true });
    const { bavail, bsize } = await statfs(directory);
    if (bavail * bsize > neededBytes) return undefined;
    return new QuorateError('storage-failure', 'the disk is full');
  } catch (cause) {
    return new QuorateError('storage-failure', 'the disk takes no files', { cause });
  } finally {
    await rm(probe, { force: true }).catch(() => {});
  }
}

const MAX_WORDS = 1000;

/** git's complaints for the pusher: without progress, and without this machine's paths. */
function gitWords(run: IndexPackRun, stderr: string): string {
  const { GIT_DIR = '', GIT_OBJECT_DIRECTORY = '' } = quarantineEnvironment(run);
  const words = stderr
    .replaceAll(GIT_OBJECT_DIRECTORY, '')
    .replaceAll(GIT_DIR, '')
    .split(/[\r\n]+/)
    .filter((line) => /^(?:error|fatal|warning): /.test(line))
    .join('; ')
    .slice(-MAX_WORDS);
  return words === '' ? 'git index-pack refused the pack' : words;
}

/** Removes everything in a quarantine's pack directory. */
export async function emptyDirectory(directory: string): Promise<void> {
  for (const file of await readdir(directory)) {
    await rm(join(directory, file), { recursive: true, force: true });
  }
}
