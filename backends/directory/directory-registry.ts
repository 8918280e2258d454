import assert from 'node:assert/strict';
import { lstat, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Random } from '../contract/environment.js';
import { type ErrorCode, QuorateError, retrySoon } from '../contract/errors.js';
import {
  type NewRepository,
  type Repository,
  repositoryIdOf,
  type RepositoryOrId,
  type RepositoryPatch,
  type RepositoryRegistry,
  type RepositoryStats,
} from '../contract/repository.js';
import type { GitRunner } from '../git/git-runner.js';
import { readRefSnapshot } from '../git/ref-snapshot.js';
import {
  readObjectStoreStats,
  removeTree,
  syncDirectory,
  syncTree,
} from '../git/repository-files.js';
import { SerialQueue } from '../local/serial-queue.js';
import type { AccessRecord } from './access-records.js';
import type { RepositoryConfigs } from './repository-config.js';
import { type NameChange, NameChanges, type NameChangesOptions } from './name-changes.js';
import { wasNeverPushedTo } from './never-pushed.js';
import { directoryIdentity, type FoundRepository } from './repository-paths.js';
import { RunningPushes } from './running-pushes.js';

export interface DirectoryRegistryOptions extends Omit<NameChangesOptions, 'queue'> {
  readonly configs: RepositoryConfigs;
  readonly git: GitRunner;
  readonly random: Random;
}

/** A lost race means that somebody else's change went through; this many in a row do not happen by chance. */
const maxRaces = 30;
/** Repositories of one page whose configuration is read at once. */
const pageConcurrency = 8;

/**
 * The registry of what lies below the root. The disk says what exists, the repository's configuration how it is set,
 * the coordinator who may use it. Changes made here come one after the other; changes by other tools are found by
 * looking, never remembered.
 */
export class DirectoryRegistry implements RepositoryRegistry {
  readonly #options: DirectoryRegistryOptions;
  readonly #changes = new SerialQueue();
  readonly #names: NameChanges;
  readonly #pushes = new RunningPushes();
  readonly #removals = new Set<Promise<void>>();

  constructor(options: DirectoryRegistryOptions) {
    this.#options = options;
    this.#names = new NameChanges({ ...options, queue: this.#changes });
  }

  getForReading(name: string): Promise<Repository | undefined> {
    return this.get(name);
  }

  async get(name: string): Promise<Repository | undefined> {
    const found = await this.#options.paths.find(name);
    return found === undefined ? undefined : this.#describe(found);
  }

  /** Undefined for what is gone, is not served just now, or is damaged: others are listed all the same. */
  async #listed(found: FoundRepository): Promise<Repository | undefined> {
    if (this.#names.isOfAnother(found)) return undefined;
    return this.#describe(found).catch((error: unknown) => {
      if (this.#names.isOfAnother(found) || hasCode(error, 'not-found')) return undefined;
      if (!hasCode(error, 'data-corrupt')) throw error;
      this.#options.logger.warn(
        { component: 'registry', repo: found.name, err: error },
        'a repository is damaged, and left out of a list',
      );
      return undefined;
    });
  }

  /** `not-found` when it is gone, or another one has its name. */
  async locate(repository: RepositoryOrId): Promise<FoundRepository> {
    const found = await this.#options.paths.find(repositoryIdOf(repository));
    const isOther =
      typeof repository !== 'string' &&
      repository.directory !== undefined &&
      repository.directory !== found?.directory;
    if (found === undefined || isOther) {
      throw new QuorateError('not-found', 'there is no such repository, or not any more');
    }
    return found;
  }

  whileNamed<T>(repository: Repository, write: () => Promise<T>): Promise<T> {
    return this.#changes.run(async () => {
      await this.locate(repository);
      return write();
    });
  }

  /** Runs a push to a repository: what is deleted unless it was pushed to stays. */
  pushing<T>({ id }: Repository, push: () => Promise<T>): Promise<T> {
    return this.#pushes.run(id, push);
  }

  async list(page: {
    readonly prefix?: string;
    readonly after?: string;
    readonly limit: number;
  }): Promise<readonly Repository[]> {
    const listed: Repository[] = [];
    const walk = this.#options.paths.walk({ ...page, count: page.limit });
    // One may go meanwhile: others take its place, since a short page is the last one.
    for (let isOver = false; !isOver && listed.length < page.limit;) {
      const part: FoundRepository[] = [];
      const count = Math.min(pageConcurrency, page.limit - listed.length);
      while (!isOver && part.length < count) {
        const next = await walk.next();
        if (next.done === true) isOver = true;
        else part.push(next.value);
      }
      const described = await Promise.all(part.map((found) => this.#listed(found)));
      listed.push(...described.filter((each) => each !== undefined));
    }
    return listed;
  }

  create(repository: NewRepository): Promise<Repository> {
    return this.#changes.run(async () => {
      const { name } = repository;
      const { paths, access, configs, random, clock } = this.#options;
      await this.#refuseTaken(name);
      const building = join(await paths.ownDirectory('new'), hex(random));
      let change: NameChange | undefined;
      try {
        await this.#init(building, repository);
        await configs.write(building, repository.settings);
        await syncTree(building);
        await this.#names.clear(name);
        change = { made: name, directory: await directoryIdentity(building) };
        await this.#names.note(change);
        const record = { ...repository.access, createdAtMs: clock.nowMs(), epoch: 1 };
        const place = await this.#placeFor(name);
        await access.put(name, record);
        await moveTo(building, place);
      } catch (error) {
        await rm(building, { recursive: true, force: true });
        if (change !== undefined) await this.#names.settle(change);
        throw error;
      }
      await this.#names.settle(change);
      return this.#describe(await this.locate(name));
    });
  }

  update(
    repository: RepositoryOrId,
    change: (current: Repository) => RepositoryPatch,
  ): Promise<Repository> {
    const id = repositoryIdOf(repository);
    return this.#changes.run(async () => {
      const { access, configs } = this.#options;
      for (let race = 0; race < maxRaces; race += 1) {
        const found = await this.locate(repository);
        const stored = await access.get(id);
        const patch = change(await this.#compose(found, stored.record));
        const record = { ...stored.record, ...patch.access, epoch: stored.record.epoch + 1 };
        const swap = (): Promise<boolean> => access.swap(id, stored, record);
        const isDone = await configs.write(found.gitDir, patch.settings ?? {}, swap);
        if (isDone) return this.#describe(found);
      }
      throw new QuorateError('aborted', 'the repository is being changed by others; try again');
    });
  }

  /** Renames the directory. The record is written first: without it the new name would be open to nobody. */
  rename(repository: RepositoryOrId, name: string): Promise<Repository> {
    const id = repositoryIdOf(repository);
    return this.#changes.run(async () => {
      const { access } = this.#options;
      const { place, directory } = await this.locate(repository);
      if (place === undefined) throw hasWorkingTree(id);
      await this.#refuseTaken(name, id);
      await this.#names.catchUp(id);
      await this.#names.clear(name);
      const { record } = await access.get(id);
      const change = { from: id, to: name, directory };
      try {
        await this.#names.note(change);
        const target = await this.#placeFor(name);
        await access.put(name, { ...record, epoch: record.epoch + 1 });
        await moveTo(place, target);
        await syncDirectory(dirname(place));
      } finally {
        await this.#names.settle(change);
      }
      return this.#describe(await this.locate(name));
    });
  }

  delete(
    repository: RepositoryOrId,
    _by?: string,
    { unlessPushed = false }: { readonly unlessPushed?: boolean } = {},
  ): Promise<{ readonly isForgotten: boolean }> {
    const id = repositoryIdOf(repository);
    return this.#changes.run(async () => {
      const found = await this.locate(repository);
      if (found.place === undefined) throw hasWorkingTree(id);
      await this.#names.catchUp(id);
      if (!unlessPushed) return this.#remove(found);
      return this.#pushes.whileNone(id, async () => {
        await this.#refusePushedTo(found, found.gitDir);
        return this.#remove(found, (trash) => this.#refusePushedTo(found, trash));
      });
    });
  }

  /** Moves it to our trash. Where `inTrash` rejects, it goes back, and this rejects as well. */
  async #remove(
    { name, place, directory }: FoundRepository,
    inTrash?: (trash: string) => Promise<void>,
  ): Promise<{ readonly isForgotten: boolean }> {
    const { paths, random } = this.#options;
    assert(place !== undefined, 'what has a working tree is not moved');
    const change = { from: name, trash: hex(random), directory };
    const trash = join(await paths.ownDirectory('trash'), change.trash);
    let isForgotten = false;
    try {
      await this.#names.note(change);
      await rename(place, trash).catch((cause: unknown) => {
        const why = 'the repository could not be moved away';
        throw new QuorateError('storage-failure', why, { cause });
      });
      await inTrash?.(trash).catch(async (error: unknown) => {
        await moveBack(trash, place);
        throw error;
      });
      this.#removeLater(trash);
      await syncDirectory(dirname(trash));
      await syncDirectory(dirname(place));
    } finally {
      isForgotten = await this.#names.settle(change);
    }
    return { isForgotten };
  }

  async #refusePushedTo({ name }: FoundRepository, gitDir: string): Promise<void> {
    const { git, configs } = this.#options;
    const { objectFormat } = await configs.read(gitDir);
    if (await wasNeverPushedTo({ git, gitDir, objectFormat })) return;
    throw new QuorateError('failed-precondition', `${name} is not deleted: it was pushed to`);
  }

  setHead(repository: RepositoryOrId, branch: string): Promise<void> {
    return this.#changes.run(async () => {
      const { git } = this.#options;
      const { gitDir } = await this.locate(repository);
      const valid = await git.run({ args: ['check-ref-format', branch] });
      if (!branch.startsWith('refs/heads/') || valid.exitCode !== 0) {
        throw new QuorateError('invalid-argument', 'HEAD names a branch: refs/heads/...');
      }
      const result = await git.run({
        args: ['symbolic-ref', '--', 'HEAD', branch],
        env: { GIT_DIR: gitDir },
      });
      if (result.exitCode !== 0) {
        throw new QuorateError('storage-failure', 'HEAD could not be written', {
          details: { stderr: result.stderr },
        });
      }
      await syncDirectory(join(gitDir, 'HEAD')); // A file, here: it opens and syncs either.
      await syncDirectory(gitDir);
    });
  }

  /** Whatever other tool deletes a repository here would take the objects of its forks along. */
  fork(): Promise<never> {
    return Promise.reject(
      new QuorateError(
        'unimplemented',
        'the directory backend makes no forks, since other tools may remove what they would share; import the repository under another name',
      ),
    );
  }

  async stats(repository: RepositoryOrId): Promise<RepositoryStats> {
    const { git, configs } = this.#options;
    const { gitDir } = await this.locate(repository);
    const { objectFormat } = await configs.read(gitDir);
    const snapshot = await readRefSnapshot({ git, gitDir, generation: 0, objectFormat });
    const store = await readObjectStoreStats(join(gitDir, 'objects'));
    return {
      head: snapshot.head,
      generation: 0,
      refCount: snapshot.refs.length,
      packCount: store.packCount + store.cruftPackCount,
      looseObjectCount: store.looseObjectCount,
      sizeBytes: store.sizeBytes,
      sharedBytes: 0,
    };
  }

  /** Finishes what a crash cut short, and removes what it left of our own work. Nothing of ours may be running. */
  async cleanUp(): Promise<void> {
    await this.#names.resume();
    await removeTree(this.#options.paths.ownRoot);
  }

  /** Waits for files that are being removed. What is left then goes at the next start. */
  async close(): Promise<void> {
    await this.#names.close();
    await Promise.all(this.#removals);
  }

  #placeFor(name: string): Promise<string> {
    const { paths, made } = this.#options;
    return paths.placeFor(name, (path) => made.remember(path));
  }

  #removeLater(directory: string): void {
    const removal = rm(directory, { recursive: true, force: true, maxRetries: 3 })
      .catch(() => {}) // The next start tries again.
      .finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
  }

  async #init(directory: string, { objectFormat, defaultBranch }: NewRepository): Promise<void> {
    const { exitCode, stderr } = await this.#options.git.run({
      args: [
        'init',
        '--quiet',
        '--bare',
        '--template=',
        `--object-format=${objectFormat}`,
        `--initial-branch=${defaultBranch}`,
        '--end-of-options',
        directory,
      ],
    });
    if (exitCode === 0) return;
    throw new QuorateError('storage-failure', 'git init failed', { details: { stderr } });
  }

  /** `except`: the name that is being given up. */
  async #refuseTaken(name: string, except?: string): Promise<void> {
    const { paths } = this.#options;
    const parts = name.split('/');
    const candidates = parts.map((_, index) => parts.slice(0, index + 1).join('/'));
    for (const candidate of candidates.filter((each) => each !== except)) {
      if ((await paths.find(candidate)) !== undefined) throw taken(name, candidate);
    }
    for await (const below of paths.walk({ prefix: `${name}/`, count: 2 })) {
      if (below.name !== except) throw taken(name, below.name);
    }
  }

  async #describe(found: FoundRepository): Promise<Repository> {
    this.#refuseUnsettled(found);
    const { record } = await this.#options.access.get(found.name);
    this.#refuseUnsettled(found);
    return this.#compose(found, record);
  }

  #refuseUnsettled(found: FoundRepository): void {
    if (!this.#names.isOfAnother(found)) return;
    throw new QuorateError(
      'unavailable',
      `what was kept about another repository named ${found.name} is being removed; try again`,
      { details: { ...retrySoon } },
    );
  }

  async #compose(found: FoundRepository, record: AccessRecord): Promise<Repository> {
    const { objectFormat, settings } = await this.#options.configs.read(found.gitDir);
    const exported = (): Promise<boolean> =>
      lstat(join(found.gitDir, 'git-daemon-export-ok')).then(
        () => true,
        () => false,
      );
    return {
      id: found.name,
      name: found.name,
      directory: found.directory,
      objectFormat,
      settings,
      access: { public: record.public ?? (await exported()), grants: record.grants },
      createdAtMs: record.createdAtMs ?? Math.floor((await stat(found.gitDir)).birthtimeMs),
      epoch: record.epoch,
    };
  }
}

function hasCode(error: unknown, code: ErrorCode): boolean {
  return error instanceof QuorateError && error.code === code;
}

/** Renames onto a free name. (A rename would replace an empty directory; no repository is empty.) */
async function moveTo(from: string, to: string): Promise<void> {
  await rename(from, to).catch((cause: unknown) => {
    throw new QuorateError('already-exists', 'something else has this name on the disk', { cause });
  });
  await syncDirectory(dirname(to));
}

/** Out of our trash. */
async function moveBack(trash: string, place: string): Promise<void> {
  await rename(trash, place).catch((cause: unknown) => {
    throw new QuorateError(
      'storage-failure',
      `something else is at ${place}; what was there, and was pushed to, is ${trash} until the next start: move it`,
      { cause },
    );
  });
  await syncDirectory(dirname(place));
}

function hex(random: Random): string {
  return Buffer.from(random.bytes(8)).toString('hex');
}

/** Whoever asks knows what is above the name, and need not know what is below it. */
function taken(name: string, by: string): QuorateError {
  const isAbove = by.startsWith(`${name}/`);
  const why = isAbove
    ? `${name} cannot be a repository: there are repositories below it`
    : `${name} cannot be a repository: ${by} is one, and one path would lie inside the other`;
  return new QuorateError(
    'already-exists',
    name === by ? `a repository named ${name} exists already` : why,
  );
}

function hasWorkingTree(name: string): QuorateError {
  return new QuorateError(
    'failed-precondition',
    `${name} is the repository of a working tree; move or remove that on the server itself`,
  );
}
