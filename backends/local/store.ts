import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Random } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { QuarantineKey } from '../contract/replica.js';
import { type FileStep, noRoomCode, takeFileSteps, type TakeFileSteps } from '../git/file-steps.js';
import {
  errorCode,
  isMissing,
  removeHalfWritten,
  removeTree,
  replaceFile,
  syncDirectory,
  writeFileDurably,
} from '../git/repository-files.js';
import { idsInShards, type ShardedPage } from './shards.js';
import { SpareQuarantines } from './spare-quarantines.js';

const storeIdPattern = /^[0-9a-f]{32}$/;
const repositoryIdPattern = /^[0-9a-f]{32}$/;
const pushIdPattern = /^[A-Za-z0-9_-]{8,64}$/;

/**
 * What a push that is committed may still need: its intent and marker, loose refs of 4 KiB each, a new packed-refs (4
 * MiB at 50,000 refs), for some pushes at once. Below half of what readiness asks for, so that health tells first.
 */
const reservedBytes = 32 * 1024 * 1024;

/** What `.keep` files of ours hold; those that hold anything else belong to people and stay. */
export const keepReason = 'quorate: refs not written yet\n';

/** Beyond it whoever drops a quarantine waits for its files to go, so that a slow disk is not left behind. */
const maxGoings = 100;

/**
 * Where things lie below the store's root:
 *
 *     store-id                        random, written once: this disk and no other
 *     keep                            what the `.keep` files of packs are second names of
 *     repos/{id[0..2]}/{id}/git       a plain bare repository
 *     repos/{id[0..2]}/{id}/judging   links to packs while git judges them; emptied when it is opened first
 *     repos/{id[0..2]}/{id}/state     applied generation and digest
 *     repos/{id[0..2]}/{id}/intent    the entry being applied, or applied last
 *     repos/{id[0..2]}/{id}/whole-pack  the pack that a clone of everything may be given as it is
 *     pools/{id[0..2]}/{id}/git       objects that forks share, as a bare repository without refs
 *     pools/{id[0..2]}/{id}/borrowers/{repository}  who may borrow from it; a name stays when its repository goes
 *     quarantine/{id}.{push}.{n}/     a push's objects until its entry is applied
 *     spares/                         quarantines of applied pushes, for the next ones; emptied at every start
 *     views/                          ref views of running fetches; emptied at every start
 *     hooks/                          copies of hooks that ran; emptied at every start
 *     trash/                          repositories, pools and quarantines on their way out
 *     set-aside/{id}.{time}           copies that were found damaged and filled anew, or that a recovery went on without;
 *     set-aside/{id}.{push}.{n}.{time}  and what they had prepared; for people to look at and remove
 */
export class Store {
  /** Without a slash at its end: paths below it are put together as text, many for each push, where `join` is slow. */
  readonly #root: string;
  readonly #goings = new Set<Promise<void>>();
  readonly id: string;
  readonly take: TakeFileSteps;
  readonly spares: SpareQuarantines;
  /** `assertRoom` as a step; see `unlessFull`. */
  readonly needRoom: FileStep;

  private constructor(root: string, id: string, take: TakeFileSteps) {
    this.#root = dirname(join(root, 'store-id'));
    this.id = id;
    this.take = take;
    this.spares = new SpareQuarantines(`${this.#root}/spares`);
    this.needRoom = { do: 'need-room', path: this.#root, bytes: reservedBytes };
  }

  static async open(root: string, random: Random, take = takeFileSteps): Promise<Store> {
    await mkdir(root, { recursive: true, mode: 0o700 });
    await removeHalfWritten(root);
    const idPath = join(root, 'store-id');
    let id = await readFile(idPath, 'utf8').catch((error: unknown) => {
      if (isMissing(error)) return undefined;
      throw error;
    });
    if (id === undefined) {
      id = Buffer.from(random.bytes(16)).toString('hex');
      await writeFileDurably(idPath, id);
    }
    if (!storeIdPattern.test(id)) {
      throw new QuorateError('data-corrupt', `${idPath} does not hold a store id`);
    }
    const store = new Store(root, id, take);
    await replaceFile(store.keepPath, keepReason);
    await removeTree(store.viewsDirectory);
    await removeTree(store.hooksDirectory);
    await removeTree(join(root, 'spares'));
    for (const directory of [
      join(root, 'repos'),
      join(root, 'pools'),
      store.quarantineRoot,
      join(root, 'spares'),
      store.viewsDirectory,
      store.trashDirectory,
    ]) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    }
    await syncDirectory(root);
    await syncDirectory(dirname(root));
    for (const name of await readdir(store.trashDirectory)) {
      await removeTree(join(store.trashDirectory, name));
    }
    return store;
  }

  /**
   * Throws `storage-failure` when the disk is so full that a push might be committed and then not be applied: reads
   * would fail until there is room again.
   */
  assertRoom(): Promise<void> {
    return this.takeWithRoom([]);
  }

  /** Takes steps of a push, after `assertRoom`. */
  async takeWithRoom(steps: readonly FileStep[]): Promise<void> {
    await this.take([this.needRoom, ...steps]).catch((error: unknown) => {
      throw unlessFull(error);
    });
  }

  /** Whether what is written beside a repository is kept, as far as can be seen now. */
  async works(id: string): Promise<boolean> {
    try {
      await this.assertRoom();
      const path = join(this.repositoryDirectory(id), 'probe');
      await writeFileDurably(path, id);
      const kept = await readFile(path, 'utf8');
      await rm(path);
      return kept === id;
    } catch {
      return false;
    }
  }

  get viewsDirectory(): string {
    return `${this.#root}/views`;
  }

  /** A file with `keepReason`, made anew at each start. */
  get keepPath(): string {
    return `${this.#root}/keep`;
  }

  get quarantineRoot(): string {
    return `${this.#root}/quarantine`;
  }

  get hooksDirectory(): string {
    return `${this.#root}/hooks`;
  }

  get trashDirectory(): string {
    return `${this.#root}/trash`;
  }

  repositoryDirectory(id: string): string {
    if (!repositoryIdPattern.test(id)) {
      throw new QuorateError('invalid-argument', 'that is not the id of a repository');
    }
    return `${this.#root}/repos/${id.slice(0, 2)}/${id}`;
  }

  gitDirectory(id: string): string {
    return `${this.repositoryDirectory(id)}/git`;
  }

  objectsDirectory(id: string): string {
    return `${this.gitDirectory(id)}/objects`;
  }

  poolDirectory(poolId: string): string {
    if (!isPoolId(poolId)) {
      throw new QuorateError('invalid-argument', 'that is not the id of a pool');
    }
    return `${this.#root}/pools/${poolId.slice(0, 2)}/${poolId}`;
  }

  poolGitDirectory(poolId: string): string {
    return `${this.poolDirectory(poolId)}/git`;
  }

  /** Makes the directory of a repository, durably: a power cut must not take the name of what a push relies on. */
  async makeRepositoryDirectory(id: string): Promise<void> {
    await makeSharded(this.repositoryDirectory(id));
  }

  async makePoolDirectory(poolId: string): Promise<void> {
    await makeSharded(this.poolDirectory(poolId));
    await mkdir(this.#borrowersDirectory(poolId), { recursive: true, mode: 0o700 });
    await syncDirectory(this.poolDirectory(poolId));
  }

  /** Notes, durably and before they do, that repositories borrow from a pool. */
  async noteBorrowers(poolId: string, ids: readonly string[]): Promise<void> {
    const directory = this.#borrowersDirectory(poolId);
    for (const id of ids) await writeFile(join(directory, id), '');
    await syncDirectory(directory);
  }

  /** Repositories that borrowed from a pool some time; whether they still do is in their alternates. */
  async borrowers(poolId: string): Promise<readonly string[]> {
    try {
      const names = await readdir(this.#borrowersDirectory(poolId));
      return names.filter((name) => repositoryIdPattern.test(name));
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }

  #borrowersDirectory(poolId: string): string {
    return join(this.poolDirectory(poolId), 'borrowers');
  }

  /** Git directories that a killed process was making beside the one there is. */
  async removeHalfMade(directory: string): Promise<void> {
    for (const name of await readdir(directory)) {
      if (name.startsWith('git.creating-')) await removeTree(join(directory, name));
    }
  }

  /** Packs of pushes that are being judged, as links. */
  judgingDirectory(id: string): string {
    return `${this.repositoryDirectory(id)}/judging`;
  }

  wholePackPath(id: string): string {
    return `${this.repositoryDirectory(id)}/whole-pack`;
  }

  quarantineDirectory({ repositoryId, pushId, attempt }: QuarantineKey): string {
    if (!repositoryIdPattern.test(repositoryId) || !pushIdPattern.test(pushId)) {
      throw new QuorateError('invalid-argument', 'that is not the id of a push');
    }
    return `${this.quarantineRoot}/${repositoryId}.${pushId}.${Math.trunc(attempt)}`;
  }

  /** Ids of repositories of which something is on the disk, in order, after this one; about so many. */
  repositories(after: string, count: number): Promise<ShardedPage> {
    return idsInShards(join(this.#root, 'repos'), { after, count });
  }

  /** Every pool on the disk. */
  async pools(): Promise<readonly string[]> {
    return (await idsInShards(join(this.#root, 'pools'))).ids;
  }

  /** Every quarantine on the disk. */
  async quarantines(): Promise<readonly QuarantineKey[]> {
    return (await readdir(this.quarantineRoot)).flatMap((name) => {
      const [repositoryId = '', pushId = '', attempt = ''] = name.split('.');
      return repositoryIdPattern.test(repositoryId) && pushIdPattern.test(pushId)
        ? [{ repositoryId, pushId, attempt: Number(attempt) }]
        : [];
    });
  }

  /** Moves a copy, and quarantines of its, to where only people look. Durable on return. */
  async setAside(id: string, nowMs: number, quarantines: readonly QuarantineKey[]): Promise<void> {
    const aside = join(this.#root, 'set-aside');
    await mkdir(aside, { recursive: true, mode: 0o700 });
    const pushes = quarantines.map((key) => this.quarantineDirectory(key));
    const directory = this.repositoryDirectory(id);
    for (const from of [...pushes, directory]) {
      this.spares.forget(from);
      try {
        await rename(from, join(aside, `${basename(from)}.${nowMs}`));
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    }
    await syncDirectory(aside);
    // A new disk has nothing of it, not even the directory that it would be in.
    await syncDirectory(dirname(directory)).catch((error: unknown) => {
      if (!isMissing(error)) throw error;
    });
    // Also of what was applied before, and went unsynced: see `destroy`.
    await syncDirectory(this.quarantineRoot);
  }

  /**
   * Takes a quarantine whose packs were promoted out of sight in one rename; its files go in the background. Not
   * synced: what a power cut brings back, the next start removes.
   */
  async dropQuarantine(key: QuarantineKey): Promise<void> {
    const directory = this.quarantineDirectory(key);
    const trash = join(this.trashDirectory, basename(directory));
    if (!(await moveOver(directory, trash))) return;
    // What stays is removed at the next start.
    const going = rm(trash, { recursive: true, force: true })
      .catch(() => undefined)
      .finally(() => this.#goings.delete(going));
    this.#goings.add(going);
    if (this.#goings.size > maxGoings) await going;
  }

  /** Resolves when no quarantine is on its way out any more. */
  async close(): Promise<void> {
    await Promise.all(this.#goings);
  }

  /** Takes a repository out of sight in one rename, then removes its files. */
  async destroy(id: string): Promise<void> {
    // What an applied push leaves goes unsynced. Back after a power cut, it would wait for a repository that is gone.
    await syncDirectory(this.quarantineRoot);
    await this.#discard(this.repositoryDirectory(id), id);
  }

  async destroyPool(poolId: string): Promise<void> {
    await this.#discard(this.poolDirectory(poolId), `pool-${poolId}`);
  }

  async #discard(directory: string, name: string): Promise<void> {
    const trash = join(this.trashDirectory, name);
    await moveOver(directory, trash);
    await removeTree(trash);
  }
}

/** What went wrong; says so in words when that is `needRoom`. */
export function unlessFull(error: unknown): unknown {
  if (errorCode(error) !== noRoomCode) return error;
  return new QuorateError('storage-failure', 'the disk is full; nothing changed');
}

/** Pools are named as repositories are. */
export function isPoolId(text: string): boolean {
  return repositoryIdPattern.test(text);
}

/** Renames a directory, if it is there; one that an earlier removal, which failed half-way, left in its way goes first. */
async function moveOver(from: string, to: string): Promise<boolean> {
  const move = (): Promise<boolean> => rename(from, to).then(() => true);
  try {
    return await move().catch(async (error: unknown) => {
      if (!['ENOTEMPTY', 'EEXIST'].includes(errorCode(error))) throw error;
      await removeTree(to);
      return move();
    });
  } catch (error) {
    if (!isMissing(error)) throw error;
    return false;
  }
}

async function makeSharded(directory: string): Promise<void> {
  const shard = dirname(directory);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await syncDirectory(shard);
  await syncDirectory(dirname(shard));
}
