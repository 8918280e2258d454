import { randomBytes } from 'node:crypto';
import { chmod, link, open, readFile, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import ssh2 from 'ssh2';
import type { Logger } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { makeDirectory } from '../make-directory.js';
import { sshFingerprint } from '../auth/ssh-public-key.js';

/** One host key, as files in OpenSSH's format hold it. */
export interface HostKey {
  /** Of its file, as OpenSSH calls it: `ssh_host_ed25519_key`. */
  readonly name: string;
  /** `ssh-ed25519`, `ecdsa-sha2-nistp256` or `ssh-rsa`. */
  readonly type: string;
  /** `SHA256:...`, for people to compare. */
  readonly fingerprint: string;
  /** One line as in a `.pub` or `known_hosts` file. */
  readonly publicLine: string;
  /** The private key. Never logged. */
  readonly privateKey: ssh2.ParsedKey;
}

/** Names of the files, as OpenSSH calls them, and how to make what belongs in them. */
export const hostKeyFiles = [
  { name: 'ssh_host_ed25519_key', generate: () => generate('ed25519', {}) },
  { name: 'ssh_host_ecdsa_key', generate: () => generate('ecdsa', { bits: 256 }) },
  { name: 'ssh_host_rsa_key', generate: () => generate('rsa', { bits: 3072 }) },
] as const;

/** Keys by the names of their files, which are in none yet. */
export type NewHostKeys = ReadonlyMap<string, Promise<GeneratedPair>>;

/**
 * Begins to make all keys, for who will lack them: the RSA key takes half a second, on a thread of its own, in which
 * there may be other work.
 */
export function beginHostKeys(): NewHostKeys {
  const begun = new Map<string, Promise<GeneratedPair>>();
  for (const { name, generate } of hostKeyFiles) {
    const pair = soundKeyPair(generate);
    // Whoever wants it is told.
    pair.catch(() => undefined);
    begun.set(name, pair);
  }
  return begun;
}

/**
 * Loads the host keys in `directory`, making those that are missing, or taking them from `begun`: private keys with mode
 * 0600, durable before they are used, public ones beside them. Two processes that start at once end up with the same
 * keys. Throws `failed-precondition` for a file that is no private key, `storage-failure` when the directory cannot be
 * used.
 */
export async function loadHostKeys(
  directory: string,
  logger: Logger,
  begun?: NewHostKeys,
): Promise<readonly HostKey[]> {
  try {
    await makeDirectory(directory);
    const keys: HostKey[] = [];
    for (const { name, generate } of hostKeyFiles) {
      const path = join(directory, name);
      const make = (): Promise<GeneratedPair> => begun?.get(name) ?? soundKeyPair(generate);
      const text = (await readPrivate(path, logger)) ?? (await create(path, make));
      keys.push(parseHostKey(text, name));
    }
    return keys;
  } catch (cause) {
    if (cause instanceof QuorateError) throw cause;
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new QuorateError(
      'storage-failure',
      `the SSH host keys in ${directory} can be neither read nor made (${code}): give another directory with ssh.hostKeys`,
      { cause },
    );
  }
}

export async function readPrivate(path: string, logger: Logger): Promise<string | undefined> {
  try {
    const { mode } = await stat(path);
    if ((mode & 0o077) !== 0) {
      logger.warn(
        { component: 'ssh', file: path },
        'host key was readable by others; now it is not',
      );
      await chmod(path, 0o600);
    }
    return await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

export interface GeneratedPair {
  readonly private: string;
  readonly public: string;
}

function generate(
  type: 'ed25519' | 'ecdsa' | 'rsa',
  options: { bits?: number },
): Promise<GeneratedPair> {
  const { generateKeyPair } = ssh2.utils;
  return new Promise((resolve, reject) => {
    const done = (error: Error | null, pair: GeneratedPair): void => {
      if (error === null || error === undefined) resolve(pair);
      else reject(error);
    };
    if (type === 'ed25519') generateKeyPair(type, { comment: 'quorate' }, done);
    else if (type === 'ecdsa') generateKeyPair(type, { bits: 256, comment: 'quorate' }, done);
    else generateKeyPair(type, { bits: options.bits ?? 3072, comment: 'quorate' }, done);
  });
}

/** A pair fails with a chance of 1 in 256: eight in a row do not happen. */
const maxGenerations = 8;

/**
 * A pair that can be read back. ssh2 1.17.0 strips leading zero bytes from ed25519 public keys and so writes a file
 * that neither it nor OpenSSH can read, once in 256 times.
 */
export async function soundKeyPair(make: () => Promise<GeneratedPair>): Promise<GeneratedPair> {
  for (let attempt = 0; attempt < maxGenerations; attempt++) {
    const pair = await make();
    const [key, publicKey] = [pair.private, pair.public].map((text) => ssh2.utils.parseKey(text));
    if (key === undefined || key instanceof Error) continue;
    if (publicKey === undefined || publicKey instanceof Error) continue;
    if (publicKey.getPublicSSH().equals(key.getPublicSSH())) return pair;
  }
  throw new QuorateError('internal', 'SSH host keys that were made cannot be read back');
}

/** Whole or not at all, and never over a file that is there: a link fails when another process was first. */
async function create(path: string, make: () => Promise<GeneratedPair>): Promise<string> {
  const pair = await make();
  const draft = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    await writeDurably(draft, pair.private, 0o600);
    await link(draft, path);
    await writeDurably(`${draft}.pub`, `${pair.public.trim()}\n`, 0o644);
    await unlink(`${path}.pub`).catch(() => undefined);
    await link(`${draft}.pub`, `${path}.pub`);
  } catch (error) {
    const lost = error instanceof Error && 'code' in error && error.code === 'EEXIST';
    if (!lost) throw error;
  } finally {
    await unlink(draft).catch(() => undefined);
    await unlink(`${draft}.pub`).catch(() => undefined);
  }
  return readFile(path, 'utf8');
}

async function writeDurably(path: string, text: string, mode: number): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

export function parseHostKey(text: string, file: string): HostKey {
  const parsed = ssh2.utils.parseKey(text);
  const key = Array.isArray(parsed) ? parsed[0] : parsed;
  if (key === undefined || key instanceof Error || !key.isPrivateKey()) {
    throw new QuorateError(
      'failed-precondition',
      `${file} is not an SSH private key without a passphrase`,
      {
        cause: key,
      },
    );
  }
  const blob = key.getPublicSSH();
  return {
    name: file,
    type: key.type,
    fingerprint: sshFingerprint(blob),
    publicLine: `${key.type} ${blob.toString('base64')}`,
    privateKey: key,
  };
}

/**
 * The keys as ssh2 is to offer them. Given an RSA key, ssh2 always offers `ssh-rsa` (SHA-1) as well, whatever the list
 * of algorithms says; so an RSA key is handed over once under each of its SHA-2 names (RFC 8332), which ssh2 takes for
 * key types of their own and signs with accordingly.
 */
export function offeredHostKeys(keys: readonly HostKey[]): readonly ssh2.ParsedKey[] {
  return keys.flatMap(({ privateKey }) => {
    if (privateKey.type !== 'ssh-rsa') return [privateKey];
    return ['rsa-sha2-512', 'rsa-sha2-256'].map((type): ssh2.ParsedKey => {
      return Object.create(privateKey, { type: { value: type } });
    });
  });
}
