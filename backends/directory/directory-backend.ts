import { join } from 'node:path';
import type {
  Backend,
  BackendStatus,
  LockInfo,
  MaintenanceProgress,
  MaintenanceReport,
  PushRequest,
  PushResult,
  ReadSession,
} from '../contract/backend.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { Repository, RepositoryRegistry } from '../contract/repository.js';
import type { GitRunner } from '../git/git-runner.js';
import { readRefSnapshot } from '../git/ref-snapshot.js';
import { importRepository } from '../replicated/import.js';
import { AccessRecords } from './access-records.js';
import { DirectoryMaintenance } from './directory-maintenance.js';
import { judgePush } from './judge-push.js';
import { DirectoryRead } from './directory-read.js';
import { DirectoryRegistry } from './directory-registry.js';
import { runReceivePack } from './receive-pack.js';
import { MadeDirectories } from './made-directories.js';
import { RepositoryConfigs } from './repository-config.js';
import { RepositoryPaths } from './repository-paths.js';

export interface DirectoryBackendOptions {
  /** Directory of bare repositories; has to exist. */
  readonly root: string;
  /** Keeps who may use which repository. */
  readonly coordinator: Coordinator;
  /** Only its update stage is asked, before git has seen anything of the push. */
  readonly pipeline: PushPipeline;
  readonly git: GitRunner;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
}

/** Serves plain bare repositories below a root that other tools may write too. */
export function createDirectoryBackend(options: DirectoryBackendOptions): Backend {
  return new DirectoryBackend(options);
}

/** How long pushes that were cut off at the end of a close may take to find that out. */
const cutOffGraceMs = 5_000;

interface Serving {
  readonly paths: RepositoryPaths;
  readonly registry: DirectoryRegistry;
}

type State =
  | { readonly name: 'stopped' }
  | ({ readonly name: 'serving' } & Serving)
  | { readonly name: 'closed' };

class DirectoryBackend implements Backend {
  readonly stores = undefined;
  readonly cluster = undefined;
  readonly recovery = undefined;
  readonly capabilities = {
    generations: false,
    renameIsInstant: false,
    inspectsPushes: false,
    forks: false,
  } as const;
  readonly #options: DirectoryBackendOptions;
  readonly #configs: RepositoryConfigs;
  readonly #maintenance: DirectoryMaintenance;
  /** Pushes and imports that run. */
  readonly #writes = new Set<Promise<unknown>>();
  readonly #cutOff = new AbortController();
  #state: State = { name: 'stopped' };
  #reads = 0;

  constructor(options: DirectoryBackendOptions) {
    this.#options = options;
    this.#configs = new RepositoryConfigs(options.git);
    this.#maintenance = new DirectoryMaintenance(options);
    options.meter.gauge('queue_depth', { queue: 'maintenance' }, () => this.#maintenance.queued);
  }

  get repositories(): RepositoryRegistry {
    return this.#serving.registry;
  }

  async start(): Promise<void> {
    if (this.#state.name !== 'stopped') return;
    const paths = await RepositoryPaths.open(this.#options.root);
    const access = new AccessRecords(this.#options.coordinator);
    const registry = new DirectoryRegistry({
      ...this.#options,
      paths,
      access,
      made: new MadeDirectories(paths.root, this.#options.coordinator),
      configs: this.#configs,
    });
    await registry.cleanUp();
    this.#state = { name: 'serving', paths, registry };
  }

  async read(repository: Repository, signal: AbortSignal): Promise<ReadSession> {
    const { registry, paths } = this.#serving;
    const { git, random } = this.#options;
    const { gitDir } = await registry.locate(repository);
    this.#reads += 1;
    const snapshot = await readRefSnapshot({
      git,
      gitDir,
      generation: this.#reads,
      objectFormat: repository.objectFormat,
      signal,
    });
    // What was read is this repository's if it is still there.
    const confirm = (): Promise<unknown> => registry.locate(repository);
    await confirm();
    return new DirectoryRead({
      git,
      repository,
      gitDir,
      snapshot,
      confirm,
      viewPath: async () =>
        join(await paths.ownDirectory('views'), Buffer.from(random.bytes(8)).toString('hex')),
    });
  }

  push(repository: Repository, request: PushRequest): Promise<PushResult> {
    return this.#write(() => this.#push(repository, request));
  }

  async maintain(
    repository: Repository,
    options: {
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<MaintenanceReport> {
    const { gitDir } = await this.#serving.registry.locate(repository);
    return this.#maintenance.run(gitDir, options);
  }

  importFrom(
    repository: Repository,
    source: string,
    options: {
      readonly actor: string;
      readonly signal: AbortSignal;
      readonly progress: (progress: MaintenanceProgress) => void;
    },
  ): Promise<{ readonly refs: number }> {
    return this.#write(async () =>
      importRepository(
        {
          ...this.#options,
          backend: this,
          scratchDirectory: await this.#serving.paths.ownDirectory('import'),
        },
        { ...options, repository, source },
      ),
    );
  }

  /** git locks refs itself, for milliseconds. */
  locks(): Promise<readonly LockInfo[]> {
    return Promise.resolve([]);
  }

  async status(): Promise<BackendStatus> {
    let repositories = 0;
    for await (const found of this.#serving.paths.walk())
      repositories += found === undefined ? 0 : 1;
    return {
      backend: 'directory',
      repositories,
      objectEngine: `git ${this.#options.git.version}`,
      pushesRunning: this.#writes.size,
      maintenanceQueued: this.#maintenance.queued,
      quarantines: 0,
    };
  }

  async close(graceMs: number): Promise<void> {
    const { clock } = this.#options;
    const state = this.#state;
    this.#state = { name: 'closed' };
    const written = Promise.allSettled(this.#writes);
    await Promise.race([written, clock.sleep(graceMs)]);
    this.#cutOff.abort();
    await Promise.race([written, clock.sleep(cutOffGraceMs)]);
    await this.#maintenance.close();
    if (state.name === 'serving') await state.registry.close();
  }

  async #push(repository: Repository, request: PushRequest): Promise<PushResult> {
    const refused = await judgePush(this.#options.pipeline, repository, request);
    const doomed = request.atomic && refused.size > 0;
    const commands = doomed ? [] : request.commands.filter(({ ref }) => !refused.has(ref));
    if (commands.length === 0) {
      const refs = request.commands.map(({ ref }) => ({
        ref,
        status: 'refused' as const,
        reason: refused.get(ref) ?? 'atomic push failure',
      }));
      return { unpack: 'ok', refs };
    }
    const { registry } = this.#serving;
    const result = await registry.pushing(repository, () =>
      this.#receive(repository, request, commands),
    );
    const outcomes = new Map(result.refs.map((outcome) => [outcome.ref, outcome]));
    const refs = request.commands.map(
      ({ ref }) =>
        outcomes.get(ref) ?? {
          ref,
          status: 'refused' as const,
          reason: refused.get(ref) ?? 'git did not report it',
        },
    );
    return { unpack: result.unpack, refs };
  }

  /** Hands what is left of a push to git. */
  async #receive(
    repository: Repository,
    request: PushRequest,
    commands: readonly RefCommand[],
  ): Promise<PushResult> {
    const { git, pipeline, clock } = this.#options;
    const { registry } = this.#serving;
    const { gitDir } = await registry.locate(repository);
    const config = await this.#configs.read(gitDir);
    const signal = AbortSignal.any([request.signal, this.#cutOff.signal]);
    const allowance = request.pack === undefined ? undefined : await pipeline.allowance(repository);
    let changed = false;
    try {
      const result = await runReceivePack({
        git,
        clock,
        gitDir,
        config,
        request: { ...request, signal },
        commands,
        confirm: () => registry.locate(repository),
        ...(allowance === undefined ? {} : { allowance }),
      });
      changed = result.refs.some(({ status }) => status === 'ok');
      return result;
    } finally {
      await allowance?.settle(request.pushId, changed);
    }
  }

  async #write<T>(task: () => Promise<T>): Promise<T> {
    // An import pushes: the first of the two counts for both.
    const running = this.#serving && task();
    this.#writes.add(running);
    try {
      return await running;
    } finally {
      this.#writes.delete(running);
    }
  }

  get #serving(): Serving {
    if (this.#state.name === 'serving') return this.#state;
    const why = this.#state.name === 'closed' ? 'is shutting down' : 'has not started yet';
    throw new QuorateError('unavailable', `the server ${why}`);
  }
}
