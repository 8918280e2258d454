import { createHash } from 'node:crypto';
import { open, readdir, type FileHandle } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createInflate } from 'node:zlib';
import { refuseCancelled } from '../contract/errors.js';
import { alternatesOf } from './object-pool.js';
import { errorCode } from './repository-files.js';

/** Findings beyond this many say nothing new. */
const maxProblems = 100;
const chunkBytes = 1024 * 1024;
/** What a disk says of its data; anything else is about the machine. */
const damageCodes = new Set(['EIO', 'EUCLEAN', 'EBADMSG']);

/**
 * Packs, their indexes and loose objects that do not hold what their own checksums say, or that the disk does not give:
 * one line each. Needs a megabyte and one file at a time, so that it can tell of a bit that turned over where
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

async function* objectFiles(directory: string): AsyncGenerator<string> {
  for (const name of await readdir(directory)) {
    if (name !== 'pack' && !/^[0-9a-f]{2}$/.test(name)) continue;
    const wanted = name === 'pack' ? /^pack-[0-9a-f]{40,64}\.(?:pack|idx)$/ : /^[0-9a-f]{38,62}$/;
    for (const file of await readdir(join(directory, name))) {
      if (wanted.test(file)) yield join(directory, name, file);
    }
  }
}

async function problemOf(path: string, signal: AbortSignal): Promise<string | undefined> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    const isSound = /\.(?:pack|idx)$/.test(path)
      ? await endsWithItsHash(file, hashOf(path), signal)
      : await isNamedByItsHash(file, path);
    return isSound ? undefined : 'does not hold what its checksum says';
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
  const stored = Buffer.alloc(bytes);
  const { bytesRead } = await file.read(stored, 0, bytes, end);
  return bytesRead === bytes && hash.digest().equals(stored);
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
