import type { ClusterControl, StoreView } from '../../../backends/contract/cluster.js';
import type {
  Backend,
  BackendStatus,
  LockInfo,
  MaintenanceProgress,
  MaintenanceReport,
} from '../../../backends/contract/backend.js';
import { QuorateError } from '../../../backends/contract/errors.js';
import {
  type NewRepository,
  type Repository,
  repositoryIdOf,
  type RepositoryOrId,
  type RepositoryRegistry,
} from '../../../backends/contract/repository.js';
import { isSettingKey } from '../../../backends/contract/settings.js';

interface LongWork {
  readonly signal: AbortSignal;
  readonly progress: (progress: MaintenanceProgress) => void;
}

/** A registry in a Map, and long work that tests steer. No Git: the admin API never asks for any. */
export class MemoryBackend implements Backend {
  readonly capabilities = {
    generations: true,
    renameIsInstant: true,
    inspectsPushes: true,
    forks: true,
  };
  /** Of one store that nobody asks much. */
  stores: StoreView | undefined = {
    nodes: () => Promise.resolve([]),
    known: () => [],
    replicas: () => Promise.resolve([]),
    verify: () => Promise.resolve([]),
    explain: (pushId) =>
      Promise.resolve({ pushId, repositoryId: 'r', actor: 'a', frontEnd: 'f', steps: [] }),
  };
  /** A cluster of one node, of which nothing is asked but whether one may. */
  cluster: ClusterControl | undefined = {
    replicationFactor: 1,
    mark: () => Promise.resolve(),
    remove: () => Promise.resolve(),
    recover: () =>
      Promise.resolve({
        generation: 1,
        copies: [],
        survivor: undefined,
        overruled: [],
        refusal: 'nothing is lost',
        recovered: undefined,
      }),
    move: () => Promise.resolve(),
    repairing: () => Promise.resolve(0),
    stranger: undefined,
    differingSettings: () => Promise.resolve([]),
    fillsGivenUp: () => Promise.resolve([]),
    copiesBehind: () => Promise.resolve({}),
    lagging: () => Promise.resolve(0),
    withoutMajority: () => Promise.resolve({ repositories: 0, nodes: [] }),
  };
  readonly recovery = undefined;
  readonly repositories: RepositoryRegistry;
  readonly records = new Map<string, Repository>();
  /** Of all lists together: how many names they would have given, had there been as many. */
  namesAsked = 0;
  readonly heads = new Map<string, string>();
  readonly refCounts = new Map<string, number>();
  readonly imported: { source: string; actor: string }[] = [];
  lockInfos: readonly LockInfo[] = [];
  /** What an import does; tests replace it. Answers the number of refs. */
  importing: (work: LongWork) => Promise<number> = async ({ progress }) => {
    progress({ step: 'receiving', done: 1, total: 2 });
    progress({ step: 'receiving', done: 2, total: 2 });
    return 3;
  };
  maintaining: (work: LongWork) => Promise<void> = async ({ progress }) => {
    progress({ step: 'repack', done: 1, total: 1 });
  };
  /** Removes what is kept about a repository elsewhere, if it can. */
  gone: (repository: Pick<Repository, 'id' | 'name'>) => Promise<boolean> = async () => true;
  #ids = 0;

  constructor() {
    this.repositories = {
      create: async (repository) => this.#create(repository),
      fork: async ({ objectFormat }, { name, access }) =>
        this.#create({ name, access, objectFormat, settings: {}, defaultBranch: 'main' }),
      get: async (name) => this.#named(name),
      getForReading: async (name) => this.#named(name),
      list: async ({ prefix = '', after = '', limit }) => {
        this.namesAsked += limit;
        return [...this.records.values()]
          .filter(({ name }) => name.startsWith(prefix) && name > after)
          .sort((a, b) => (a.name < b.name ? -1 : 1))
          .slice(0, limit);
      },
      whileNamed: (_repository, write) => write(),
      update: async (repository, change) => {
        const current = this.#open(repository);
        const { settings, access } = change(current);
        return this.#put({
          ...current,
          settings: settings === undefined ? current.settings : merged(current, settings),
          access: access ?? current.access,
        });
      },
      rename: async (repository, name) => {
        this.#refuseTaken(name);
        return this.#put({ ...this.#open(repository), name });
      },
      delete: async (repository, _by, { unlessPushed = false } = {}) => {
        const { id, name } = this.#open(repository);
        if (unlessPushed && (this.refCounts.get(id) ?? 0) > 0) {
          throw new QuorateError('failed-precondition', 'it was pushed to');
        }
        this.records.delete(id);
        return { isForgotten: await this.gone({ id, name }) };
      },
      setHead: async (repository, branch) => {
        const { id } = this.#open(repository);
        this.heads.set(id, branch);
      },
      stats: async (repository) => {
        const { id } = this.#open(repository);
        return {
          head: { symref: this.heads.get(id) ?? 'refs/heads/main' },
          generation: 1,
          refCount: this.refCounts.get(id) ?? 0,
          packCount: 0,
          looseObjectCount: 0,
          sizeBytes: 1536,
          sharedBytes: 2048,
          sharedBy: 3,
        };
      },
    };
  }

  async start(): Promise<void> {}

  async read(): Promise<never> {
    throw new QuorateError('unimplemented', 'no Git here');
  }

  async push(): Promise<never> {
    throw new QuorateError('unimplemented', 'no Git here');
  }

  async maintain(
    _repository: Repository,
    options: { signal: AbortSignal; progress?: (progress: MaintenanceProgress) => void },
  ): Promise<MaintenanceReport> {
    const progress = options.progress ?? (() => undefined);
    await this.maintaining({ signal: options.signal, progress });
    return {
      packsBefore: 3,
      packsAfter: 1,
      sizeBytesBefore: 2048,
      sizeBytesAfter: 1024,
      durationMs: 1500,
    };
  }

  async importFrom(
    repository: Repository,
    source: string,
    options: LongWork & { readonly actor: string },
  ): Promise<{ refs: number }> {
    this.imported.push({ source, actor: options.actor });
    if ((this.refCounts.get(repository.id) ?? 0) > 0) {
      throw new QuorateError('failed-precondition', `${repository.name} is not empty`);
    }
    const refs = await this.importing(options);
    this.refCounts.set(repository.id, refs);
    return { refs };
  }

  async locks(): Promise<readonly LockInfo[]> {
    return this.lockInfos;
  }

  async status(): Promise<BackendStatus> {
    return {
      backend: 'memory',
      repositories: this.records.size,
      objectEngine: 'none',
      pushesRunning: 0,
      maintenanceQueued: 0,
      quarantines: 0,
    };
  }

  async close(): Promise<void> {}

  #create(repository: NewRepository): Repository {
    this.#refuseTaken(repository.name);
    this.#ids += 1;
    const id = `r${this.#ids}`;
    this.heads.set(id, `refs/heads/${repository.defaultBranch}`);
    const { name, objectFormat, settings, access } = repository;
    return this.#put({ id, name, objectFormat, settings, access, createdAtMs: 0, epoch: 0 });
  }

  #put(repository: Repository): Repository {
    const stored = { ...repository, epoch: repository.epoch + 1 };
    this.records.set(stored.id, stored);
    return stored;
  }

  #named(name: string): Repository | undefined {
    return [...this.records.values()].find((repository) => repository.name === name);
  }

  #open(repository: RepositoryOrId): Repository {
    const found = this.records.get(repositoryIdOf(repository));
    if (found === undefined) throw new QuorateError('not-found', 'the repository is gone');
    return found;
  }

  #refuseTaken(name: string): void {
    if ([...this.records.values()].some((other) => nests(other.name, name))) {
      throw new QuorateError('already-exists', `${name} is taken`);
    }
  }
}

function nests(a: string, b: string): boolean {
  return a === b || a.startsWith(`${b}/`) || b.startsWith(`${a}/`);
}

function merged(
  { settings }: Repository,
  patch: Readonly<Record<string, string | null>>,
): Repository['settings'] {
  const entries = Object.entries({ ...settings, ...patch }).filter(
    (entry): entry is [string, string] => isSettingKey(entry[0]) && entry[1] !== null,
  );
  return Object.fromEntries(entries);
}
