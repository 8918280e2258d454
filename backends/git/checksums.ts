import { createHash } from 'node:crypto';
import { open, readdir, type FileHandle } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createInflate } from 'node:zlib';
import { refuseCancelled } from '../contract/errors.js';
import { alternatesOf } from './object-pool.js';
import { errorCode, isMissing } from './repository-files.js';

/** Findings beyond this many say nothing new. */
const maxProblems = 100;
const chunkBytes = 1024 * 1024;
/** What a disk says of its data; anything else is about the machine. */
const damageCodes = new Set(['EIO', 'EUCLEAN', 'EBADMSG']);

/**
 * Packs, their indexes and loose objects that do not hold what their own checksums say, do not fit together, or that the
 * disk does not give: one line each. Needs a megabyte and two files at a time, so that it can tell of a bit that turned over where
 * `git fsck` is short of memory or files; what is missing it does not see. Errors: `cancelled`, and those of the file
 * system that say nothing of the data.
 */
export async function findWrongChecksums(
  gitDir: string,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const problems: string[] = [];
  const own = join(gitDir, 'objects');
  for (const directory of [own, ...(await alternatesOf(own))]) {
    for await (const path of objectFiles(directory)) {
      refuseCancelled(signal);
      const problem = await problemOf(path, signal);
      if (problem !== undefined) problems.push(`${basename(path)} ${problem}`);
      if (problems.length === maxProblems) return problems;
    }
  }
  return problems;
}

/** Paths of the indexes of all packs, those of a lender included. */
export async function packIndexesOf(gitDir: string): Promise<readonly string[]> {
  const own = join(gitDir, 'objects');
  const paths: string[] = [];
  for (const directory of [own, ...(await alternatesOf(own))]) {
    for await (const path of objectFiles(directory)) if (path.endsWith('.idx')) paths.push(path);
  }
  return paths;
}

async function* objectFiles(directory: string): AsyncGenerator<string> {
  for (const name of await readdir(directory)) {
    if (name !== 'pack' && !/^[0-9a-f]{2}$/.test(name)) continue;
    const wanted = name === 'pack' ? /^pack-[0-9a-f]{40,64}\.(?:pack|idx)$/ : /^[0-9a-f]{38,62}$/;
    for (const file of await namesIn(join(directory, name))) {
      if (wanted.test(file)) yield join(directory, name, file);
    }
  }
}

/** Of a directory that a repack has emptied, and removed, none. */
async function namesIn(directory: string): Promise<readonly string[]> {
  return readdir(directory).catch((error: unknown) => {
    if (isMissing(error)) return [];
    throw error;
  });
}

async function problemOf(path: string, signal: AbortSignal): Promise<string | undefined> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    const isSound = /\.(?:pack|idx)$/.test(path)
      ? await endsWithItsHash(file, hashOf(path), signal)
      : await isNamedByItsHash(file, path);
    if (!isSound) return 'does not hold what its checksum says';
    const fits = !path.endsWith('.idx') || (await fitsItsPack(file, path));
    return fits ? undefined : 'is not the index of its pack';
  } catch (error) {
    const code = errorCode(error);
    if (damageCodes.has(code)) return `cannot be read from the disk (${code})`;
    // A repack took it away, whose new pack was or will be read in its place.
    if (code === 'ENOENT') return undefined;
    throw error;
  } finally {
    await file?.close();
  }
}

interface Hash {
  readonly algorithm: 'sha1' | 'sha256';
  readonly bytes: number;
}

/** Packs are named by hashes of the kind that names objects. */
function hashOf(path: string): Hash {
  const isLong = /[0-9a-f]{64}\.\w+$/.test(path);
  return isLong ? { algorithm: 'sha256', bytes: 32 } : { algorithm: 'sha1', bytes: 20 };
}

/** gitformat-pack(5): both kinds of files end with the hash of all that is before it. */
async function endsWithItsHash(
  file: FileHandle,
  { algorithm, bytes }: Hash,
  signal: AbortSignal,
): Promise<boolean> {
  const { size } = await file.stat();
  const end = size - bytes;
  if (end < 0) return false;
  const hash = createHash(algorithm);
  const chunk = Buffer.alloc(Math.min(chunkBytes, size));
  for (let at = 0; at < end;) {
    refuseCancelled(signal);
    const { bytesRead } = await file.read(chunk, 0, Math.min(chunk.length, end - at), at);
    if (bytesRead === 0) return false;
    hash.update(chunk.subarray(0, bytesRead));
    at += bytesRead;
  }
  return hash.digest().equals(await bytesAt(file, end, bytes));
}

/** gitformat-pack(5): an index holds the hash with which its pack ends, before its own. */
async function fitsItsPack(index: FileHandle, path: string): Promise<boolean> {
  const { bytes } = hashOf(path);
  const pack = await open(path.replace(/idx$/, 'pack'), 'r');
  try {
    const [{ size: indexBytes }, { size: packBytes }] = [await index.stat(), await pack.stat()];
    const named = await bytesAt(index, indexBytes - 2 * bytes, bytes);
    return named.equals(await bytesAt(pack, packBytes - bytes, bytes));
  } finally {
    await pack.close();
  }
}

/** Fewer at the end of the file, or when the place is none. */
async function bytesAt(file: FileHandle, at: number, bytes: number): Promise<Buffer> {
  if (at < 0) return Buffer.alloc(0);
  const found = Buffer.alloc(bytes);
  const { bytesRead } = await file.read(found, 0, bytes, at);
  return found.subarray(0, bytesRead);
}

/** A loose object is named by the hash of what it is when it is unpacked. */
async function isNamedByItsHash(file: FileHandle, path: string): Promise<boolean> {
  const name = path.split('/').slice(-2).join('');
  const hash = createHash(name.length === 64 ? 'sha256' : 'sha1');
  try {
    await pipeline(file.createReadStream({ autoClose: false }), createInflate(), hash);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'Z_MEM_ERROR' || !code.startsWith('Z_')) throw error;
    return false;
  }
  return hash.digest('hex') === name;
}
