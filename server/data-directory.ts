import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { chmod, open, readFile, realpath, rename, rm, stat, unlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { QuorateError } from '../backends/contract/errors.js';
import { makeDirectory } from './make-directory.js';

/** What `server.json` says: how the command line finds the server that uses this data directory. */
export interface ServerFile {
  /** `http://127.0.0.1:8080`, `https://` with TLS; without a slash at the end. */
  readonly httpUrl: string;
  /** With TLS: the certificate's file, by which the command line on this machine knows the server. */
  readonly tlsCertFile?: string;
  /** `ssh://git@127.0.0.1:2222` */
  readonly sshUrl: string;
  readonly sshHost: string;
  readonly sshPort: number;
  readonly opsUrl: string;
  readonly pid: number;
  readonly version: string;
}

export interface DataDirectory {
  /** Absolute, without symbolic links. */
  readonly path: string;
  /** True until a server has once served on it: accounts and the admin's token are still to be made. */
  readonly fresh: boolean;
  /** Replaces a file atomically and durably, mode 0600. */
  write(name: string, content: string): Promise<void>;
  /** Lets another server use the directory. */
  release(): Promise<void>;
}

export const serverFileName = 'server.json';
/** Of a storage node: where it is. */
export const nodeFileName = 'node.json';
export const adminTokenFileName = 'admin-token';

/**
 * Makes the data directory (mode 0700) and locks it for this process. Throws `failed-precondition` when another
 * server uses it, `storage-failure` when it cannot be made or written.
 */
export async function openDataDirectory(directory: string): Promise<DataDirectory> {
  const place = await storage(directory, async () => {
    await makeDirectory(directory);
    return realpath(directory);
  });
  const release = await lock(place);
  try {
    return await storage(directory, async () => {
      await chmod(place, 0o700);
      return {
        path: place,
        fresh: !(await exists(path.join(place, serverFileName))),
        write: (name, content) => writeAtomically(place, name, content),
        release,
      };
    });
  } catch (error) {
    await release();
    throw error;
  }
}

async function storage<T>(directory: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code = codeOf(error);
    const why = code === 'EEXIST' || code === 'ENOTDIR' ? `${code}: a file is in its place` : code;
    throw new QuorateError(
      'storage-failure',
      `the data directory ${directory} cannot be used (${why}): choose another with --data DIR`,
      { cause: error },
    );
  }
}

function inUse(directory: string, details: Record<string, unknown> = {}): QuorateError {
  const message = `the data directory is in use by another quorate server: ${directory}`;
  return new QuorateError('failed-precondition', message, { details });
}

async function lock(directory: string): Promise<() => Promise<void>> {
  return process.platform === 'linux' ? lockBySocket(directory) : lockByFile(directory);
}

/**
 * A socket in Linux' abstract name space: it ends with the process however that ends, so there is no stale lock.
 * Named by device and inode, so that bind mounts and symbolic links lead to the same name. It reaches as far as the
 * network name space: two containers that mount one directory do not see each other's (LMDB's own lock and the
 * deployment have to keep those apart).
 */
async function lockBySocket(directory: string): Promise<() => Promise<void>> {
  const { dev, ino } = await stat(directory, { bigint: true });
  const hash = createHash('sha256').update(`${dev}:${ino}`).digest('hex');
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      reject(codeOf(error) === 'EADDRINUSE' ? inUse(directory) : error);
    });
    server.listen({ path: `\0quorate-data-${hash}` }, resolve);
  });
  return () => new Promise((resolve) => server.close(() => resolve()));
}

/**
 * Elsewhere: a file with the holder's process id. One whose process is gone is taken over; a process id that another
 * program got meanwhile needs the file removed by hand, which the message says.
 */
async function lockByFile(directory: string): Promise<() => Promise<void>> {
  const file = path.join(directory, 'server.lock');
  for (let attempt = 0; attempt < 2; attempt += 1) {
    try {
      const handle = await open(file, 'wx', 0o600);
      await handle.writeFile(String(process.pid));
      await handle.close();
      return () => unlink(file);
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
    }
    const pid = Number(await readFile(file, 'utf8').catch(() => ''));
    if (isAlive(pid)) break;
    await rm(file, { force: true });
  }
  throw inUse(directory, { lockFile: file });
}

function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}

async function writeAtomically(directory: string, name: string, content: string): Promise<void> {
  const temporary = path.join(directory, `.${name}.${randomBytes(6).toString('hex')}`);
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path.join(directory, name));
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  const handle = await open(directory, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
