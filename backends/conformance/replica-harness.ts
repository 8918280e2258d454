import { randomBytes } from 'node:crypto';
import type { GitStream } from '../contract/backend.js';
import type { Head, Oid, RefCommand } from '../contract/objects.js';
import type { PrepareRequest, QuarantineKey, Replica, ReplicaRead } from '../contract/replica.js';
import type { HeadRecord } from '../contract/repository.js';
import type { StoredSettings } from '../contract/settings.js';
import { zeroOid } from './backend-harness.js';
import type { SourceRepository } from './source-repository.js';

/** A push log in the hands of the test. */
export interface ReplicaLog {
  readonly committed: HeadRecord;
  /** Commits an entry and returns its generation. */
  commit(
    pushId: string,
    updates: readonly RefCommand[],
    more?: {
      readonly head?: { readonly old: Head; readonly new: Head };
      readonly updatesDigest?: string;
    },
  ): number;
}

/** A replica under test, on storage of its own, with one empty repository of which the log knows. */
export interface ReplicaHarness {
  readonly replica: Replica;
  /** Another store that is empty and asks the first for what it lacks. */
  readonly second: () => Promise<Replica>;
  readonly repositoryId: string;
  readonly log: ReplicaLog;
  /** Quarantines on the disk. */
  readonly quarantines: () => readonly string[];
  readonly dispose: () => Promise<void>;
}

export interface ReplicaSpace extends ReplicaHarness {
  readonly source: SourceRepository;
}

export const main = 'refs/heads/main';
export const signal = (): AbortSignal => new AbortController().signal;

export function newKey({ repositoryId }: { readonly repositoryId: string }): QuarantineKey {
  return { repositoryId, pushId: randomBytes(12).toString('hex'), attempt: 1 };
}

export async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  await Promise.resolve();
  yield bytes;
}

export interface PreparedPush {
  readonly key: QuarantineKey;
  readonly refused: ReadonlyMap<string, string>;
}

/** Uploads what the commands need and has them judged. */
export async function prepare(
  space: ReplicaSpace,
  commands: readonly RefCommand[],
  options: {
    readonly have?: readonly Oid[];
    readonly head?: { readonly old: Head; readonly new: Head };
    readonly settings?: StoredSettings;
  } = {},
): Promise<PreparedPush> {
  const { replica, source } = space;
  const key = newKey(space);
  const wants = commands.map(({ newOid }) => newOid).filter((oid) => oid !== zeroOid);
  if (wants.length > 0) {
    const pack = once(await source.pack(wants, options.have ?? []));
    await replica.upload(key, pack, {
      settings: {},
      signal: signal(),
      progress: () => undefined,
    });
  }
  const { refused } = await replica.prepare({
    ...requestOf(space, commands, key),
    ...(options.head === undefined ? {} : { head: options.head }),
    settings: options.settings ?? {},
  });
  return { key, refused };
}

/** What a store is asked to judge, at what is committed now. */
export function requestOf(
  space: ReplicaSpace,
  commands: readonly RefCommand[],
  key = newKey(space),
): PrepareRequest {
  return {
    key,
    basis: space.log.committed.generation,
    commands,
    settings: {},
    shallow: [],
    lockRevisions: [{ key: 'locks/some', createRevision: 7 }],
    signal: signal(),
  };
}

/** A push from upload to its applied entry. Returns its generation. */
export async function push(
  space: ReplicaSpace,
  commands: readonly RefCommand[],
  have: readonly Oid[] = [],
): Promise<number> {
  const { key } = await prepare(space, commands, { have });
  const generation = space.log.commit(key.pushId, commands);
  await space.replica.apply(space.repositoryId, generation);
  return generation;
}

/** Ref -> value at the committed generation. */
export async function refsOf(
  { repositoryId, log }: ReplicaSpace,
  replica: Replica,
): Promise<Record<string, Oid>> {
  const read = await replica.read(repositoryId, log.committed.generation);
  read.release();
  return Object.fromEntries(read.snapshot.refs.map(({ name, oid }) => [name, oid]));
}

export async function reading<T>(
  { replica, repositoryId, log }: ReplicaSpace,
  use: (read: ReplicaRead) => Promise<T>,
): Promise<T> {
  const read = await replica.read(repositoryId, log.committed.generation);
  try {
    return await use(read);
  } finally {
    read.release();
  }
}

/** What git wrote, and how it ended. */
export async function outputOf(
  git: GitStream,
): Promise<{ readonly output: Buffer; readonly exitCode: number | null }> {
  const parts: Buffer[] = [];
  for await (const part of git.stdout as AsyncIterable<Buffer>) parts.push(part);
  return { output: Buffer.concat(parts), exitCode: (await git.exited).exitCode };
}
