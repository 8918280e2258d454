import type { Readable } from 'node:stream';
import type { GitStream, StoredPack, StoreShape, UploadPackRun } from '../contract/backend.js';
import { QuorateError } from '../contract/errors.js';
import type { VisibleRefs } from '../contract/visible-refs.js';
import type { Oid, RefSnapshot } from '../contract/objects.js';
import type { ReplicaRead } from '../contract/replica.js';
import { firstUnreachable } from '../git/ancestry.js';
import { type GitRunner, pacedTimeoutMs } from '../git/git-runner.js';
import type { ObjectReader } from '../git/object-reader.js';
import type { OpenRepository } from './open-repository.js';
import type { RefViews } from './ref-views.js';
import { UploadPacks } from './upload-packs.js';
import { openWholePack } from './whole-pack.js';

/** Of larger repositories, the commits that a git has read would be too much to keep. */
const maxSharedObjects = 1_000_000;

export interface ReadDependencies {
  readonly git: GitRunner;
  readonly objects: ObjectReader;
  readonly views: RefViews;
  readonly uploadPacks: UploadPacks;
  /** Told of each clone of everything for which there is no stored pack. */
  readonly missedClone: (repository: OpenRepository) => void;
  /** Told of a repository over which a git failed that nobody ended. */
  readonly suspect: ((repositoryId: string) => void) | undefined;
}

/** A read pinned to the generation that was current when it was made. */
export class LocalRead implements ReplicaRead {
  readonly snapshot: RefSnapshot;
  readonly digest: string;
  readonly #repository: OpenRepository;
  readonly #dependencies: ReadDependencies;
  readonly #onRelease: () => void;
  #released = false;

  constructor(dependencies: ReadDependencies, repository: OpenRepository, onRelease: () => void) {
    this.#dependencies = dependencies;
    this.#repository = repository;
    this.#onRelease = onRelease;
    this.snapshot = repository.snapshot;
    this.digest = repository.digest;
  }

  async firstForbiddenWant(wants: readonly Oid[], visible: VisibleRefs): Promise<Oid | undefined> {
    const generations = [
      this.snapshot,
      ...this.#repository.retained.filter(
        ({ generation }) => generation < this.snapshot.generation,
      ),
    ];
    const unknown = wants.filter(
      (want) => !generations.some((snapshot) => visibleTips(snapshot, visible).has(want)),
    );
    if (unknown.length === 0) return undefined;
    const infos = await this.#dependencies.objects.info(this.#repository.gitDirectory, unknown);
    const commits: Oid[] = [];
    for (const [index, want] of unknown.entries()) {
      const type = infos[index]?.type;
      if (type === undefined) return want;
      if (type === 'commit' || type === 'tag') commits.push(want);
    }
    if (commits.length === 0) return undefined;
    const tips = new Set(generations.flatMap((snapshot) => [...visibleTips(snapshot, visible)]));
    return firstUnreachable({
      git: this.#dependencies.git,
      objects: this.#dependencies.objects,
      gitDir: this.#repository.gitDirectory,
      wants: commits,
      tips: [...tips],
    });
  }

  async objectSizes(oids: readonly Oid[]): Promise<readonly (number | undefined)[]> {
    const infos = await this.#dependencies.objects.info(this.#repository.gitDirectory, oids);
    return infos.map((info) => info?.sizeBytes);
  }

  async uploadPack(run: UploadPackRun): Promise<GitStream> {
    const stream = (await this.#serveNext(run)) ?? (await this.#runUploadPack(run));
    void this.#watch(stream, run.signal);
    return stream;
  }

  /** git also fails of what a client sends: whether it was the copy, a verification says. Never rejects. */
  async #watch({ exited }: GitStream, signal: AbortSignal): Promise<void> {
    const { exitCode } = await exited;
    if (exitCode === null || exitCode === 0 || signal.aborted) return;
    this.#dependencies.suspect?.(this.#repository.id);
  }

  /** By a git that serves one request after another; undefined when there is none for this one. */
  async #serveNext(run: UploadPackRun): Promise<GitStream | undefined> {
    const { input } = run;
    if (!(input instanceof Uint8Array) || !UploadPacks.serves(run)) return undefined;
    if ((await this.#repository.shape()).objectCount > maxSharedObjects) return undefined;
    const { views, uploadPacks } = this.#dependencies;
    const view = await views.acquire(this.#repository, this.snapshot, run.visible);
    try {
      return await uploadPacks.serve(view, { ...run, input });
    } catch (error) {
      // There may be too many conversations; streams wait for their turn.
      if (error instanceof QuorateError && error.code === 'resource-exhausted') return undefined;
      throw error;
    }
  }

  async #runUploadPack(run: UploadPackRun): Promise<GitStream> {
    const args = ['upload-pack', '--strict', ...(run.stateless ? ['--stateless-rpc'] : [])];
    return this.#overView(run.visible, (directory) =>
      this.#dependencies.git.stream({
        args: [...args, directory],
        env: { GIT_PROTOCOL: run.protocol === 2 ? 'version=2' : 'version=0' },
        config: run.config,
        stdin: run.input,
        signal: run.signal,
        timeoutMs: pacedTimeoutMs,
      }),
    );
  }

  async wholePack(): Promise<StoredPack | undefined> {
    const { generation } = this.snapshot;
    const pack = await openWholePack(this.#repository, { generation, digest: this.digest });
    if (pack === undefined) this.#dependencies.missedClone(this.#repository);
    return pack;
  }

  shape(): Promise<StoreShape> {
    return this.#repository.shape();
  }

  async uploadArchive(run: {
    readonly input: Readable;
    readonly visible: VisibleRefs;
    readonly signal: AbortSignal;
  }): Promise<GitStream> {
    return this.#overView(run.visible, (directory) =>
      this.#dependencies.git.stream({
        args: ['upload-archive', directory],
        stdin: run.input,
        signal: run.signal,
        timeoutMs: pacedTimeoutMs,
      }),
    );
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#onRelease();
  }

  /** Runs git over a view of the pinned refs and gives the view back when git has exited. */
  async #overView(
    visible: VisibleRefs,
    start: (directory: string) => Promise<GitStream>,
  ): Promise<GitStream> {
    const view = await this.#dependencies.views.acquire(this.#repository, this.snapshot, visible);
    try {
      const stream = await start(view.directory);
      void stream.exited.then(view.release, view.release);
      return stream;
    } catch (error) {
      view.release();
      throw error;
    }
  }
}

const tipsBySnapshot = new WeakMap<RefSnapshot, Map<string, ReadonlySet<Oid>>>();

/** Values and peeled values of the refs that may be seen. */
function visibleTips(snapshot: RefSnapshot, visible: VisibleRefs): ReadonlySet<Oid> {
  let byKey = tipsBySnapshot.get(snapshot);
  if (byKey === undefined) {
    byKey = new Map();
    tipsBySnapshot.set(snapshot, byKey);
  }
  let tips = byKey.get(visible.key);
  if (tips === undefined) {
    const seen = snapshot.refs.filter(({ name }) => visible.test(name));
    tips = new Set(
      seen.flatMap(({ oid, peeled }) => (peeled === undefined ? [oid] : [oid, peeled])),
    );
    byKey.set(visible.key, tips);
  }
  return tips;
}
