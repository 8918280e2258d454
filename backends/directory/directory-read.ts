import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { GitStream, ReadSession, StoreShape, UploadPackRun } from '../contract/backend.js';
import type { VisibleRefs } from '../contract/visible-refs.js';
import type { Oid, RefSnapshot } from '../contract/objects.js';
import type { Repository } from '../contract/repository.js';
import { firstUnreachable } from '../git/ancestry.js';
import { type GitRunner, pacedTimeoutMs } from '../git/git-runner.js';
import { writeRefView } from '../git/ref-view.js';
import { readStoreShape } from '../git/store-shape.js';
import { createSingleRunReader } from './single-run-reader.js';

export interface DirectoryReadOptions {
  readonly git: GitRunner;
  readonly repository: Repository;
  readonly gitDir: string;
  readonly snapshot: RefSnapshot;
  /** Rejects when `gitDir` is not that repository any more: another one may have its name by now. */
  readonly confirm: () => Promise<unknown>;
  /** A path that does not exist yet, for refs to be shown to one git. */
  readonly viewPath: () => Promise<string>;
}

/**
 * A read of a repository that other tools may write. Its refs are those of one listing; what is fetched is run by git
 * in the repository itself, by the repository's own configuration.
 */
export class DirectoryRead implements ReadSession {
  readonly repository: Repository;
  readonly snapshot: RefSnapshot;
  readonly refsOnly = false;
  readonly #options: DirectoryReadOptions;

  constructor(options: DirectoryReadOptions) {
    this.#options = options;
    this.repository = options.repository;
    this.snapshot = options.snapshot;
  }

  async firstForbiddenWant(wants: readonly Oid[], visible: VisibleRefs): Promise<Oid | undefined> {
    const tips = new Set<Oid>();
    for (const { name, oid, peeled } of this.snapshot.refs) {
      if (!visible.test(name)) continue;
      tips.add(oid);
      if (peeled !== undefined) tips.add(peeled);
    }
    const { head } = this.snapshot;
    if ('oid' in head) tips.add(head.oid);
    const unknown = [...new Set(wants)].filter((want) => !tips.has(want));
    if (unknown.length === 0) return undefined;
    const { git, gitDir } = this.#options;
    const objects = createSingleRunReader(git);
    const infos = await objects.info(gitDir, unknown);
    const missing = unknown.find((_, index) => infos[index] === undefined);
    if (missing !== undefined) return missing;
    const commits = unknown.filter((_, index) => /^(?:commit|tag)$/.test(infos[index]?.type ?? ''));
    return firstUnreachable({ git, objects, gitDir, wants: commits, tips: [...tips] });
  }

  async objectSizes(oids: readonly Oid[]): Promise<readonly (number | undefined)[]> {
    const { git, gitDir } = this.#options;
    const infos = await createSingleRunReader(git).info(gitDir, oids);
    return infos.map((info) => info?.sizeBytes);
  }

  /** Hidden refs are hidden by the repository's own configuration, which is where `visible` comes from. */
  async uploadPack(run: UploadPackRun): Promise<GitStream> {
    const { git, gitDir, confirm } = this.#options;
    await confirm();
    return git.stream({
      args: ['upload-pack', '--strict', ...(run.stateless ? ['--stateless-rpc'] : []), gitDir],
      env: { GIT_PROTOCOL: run.protocol === 2 ? 'version=2' : 'version=0' },
      config: run.config,
      stdin: run.input,
      signal: run.signal,
      timeoutMs: pacedTimeoutMs,
    });
  }

  /** Other tools may write refs at any time: no pack is known to be what they reach. */
  wholePack(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  shape(): Promise<StoreShape> {
    const { gitDir, repository } = this.#options;
    return readStoreShape(join(gitDir, 'objects'), repository.objectFormat);
  }

  /** `git upload-archive` knows no hidden refs: where there are some, it is shown the others alone. */
  async uploadArchive(run: {
    readonly input: Readable;
    readonly visible: VisibleRefs;
    readonly signal: AbortSignal;
  }): Promise<GitStream> {
    const { git, gitDir, confirm } = this.#options;
    await confirm();
    const hides = this.snapshot.refs.some(({ name }) => !run.visible.test(name));
    const view = hides ? await this.#writeView(run.visible) : undefined;
    const remove = async (): Promise<void> => {
      if (view !== undefined) await rm(view, { recursive: true, force: true });
    };
    try {
      const stream = await git.stream({
        args: ['upload-archive', view ?? gitDir],
        stdin: run.input,
        signal: run.signal,
        timeoutMs: pacedTimeoutMs,
      });
      void stream.exited.then(remove).catch(() => {}); // The next start removes it.
      return stream;
    } catch (error) {
      await remove();
      throw error;
    }
  }

  /** Nothing is held. */
  release(): void {}

  async #writeView(visible: VisibleRefs): Promise<string> {
    const { gitDir, snapshot, repository, viewPath } = this.#options;
    const directory = await viewPath();
    await writeRefView({
      directory,
      snapshot,
      visible,
      objectsDir: join(gitDir, 'objects'),
      objectFormat: repository.objectFormat,
    });
    return directory;
  }
}
