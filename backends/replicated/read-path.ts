import type { ReadOptions, ReadSession } from '../contract/backend.js';
import { QuorateError, refuseCancelled } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { RefSnapshot } from '../contract/objects.js';
import type { PastReads } from '../contract/past-reads.js';
import type { LogReader } from '../contract/replica.js';
import type { HeadRecord, Repository } from '../contract/repository.js';
import { wordSetting } from '../contract/settings.js';
import { LateStores } from './late-stores.js';
import type { ReadRates } from './read-rates.js';
import { openRead, type ReadDependencies, readOfRefs } from './reads.js';
import { decodeRepository, type RepositoryRecord } from './records.js';
import { idOf } from './names.js';
import type { Registry } from './registry.js';

export interface ReadPathDependencies extends ReadDependencies {
  readonly log: LogReader;
  readonly registry: Pick<Registry, 'get' | 'recalledId'>;
  readonly record: (id: string) => Promise<RepositoryRecord>;
  readonly readConsistency: 'strong' | 'eventual';
  readonly knownSnapshot?: (repositoryId: string, head: HeadRecord) => RefSnapshot | undefined;
  readonly past?: PastReads;
  readonly rates: Pick<ReadRates, 'note'> | undefined;
}

interface ReadPathOptions extends ReadOptions {
  /** Asked for after the request came in: with the repository. It is asked anew where that failed. */
  readonly head?: Promise<HeadRecord> | undefined;
}

/** How a request to read finds its repository and its generation (docs/architecture.md, "A read"). */
export class ReadPath {
  readonly #dependencies: ReadPathDependencies;
  /** Asked for with a repository, for the request that looked it up. */
  readonly #heads = new WeakMap<Repository, Promise<HeadRecord>>();

  constructor(dependencies: ReadPathDependencies) {
    this.#dependencies = { late: new LateStores(dependencies.clock), ...dependencies };
  }

  async read(
    repository: Repository,
    signal: AbortSignal,
    options: ReadPathOptions,
  ): Promise<ReadSession> {
    const { refsOnly = false, atLeast = 0, strong = false } = options;
    const { log, record, knownSnapshot, rates } = this.#dependencies;
    refuseCancelled(signal);
    const { id } = repository;
    if (!strong && isRecord(repository) && this.#readsEventually(repository)) {
      rates?.note(id);
      const wanted = { generation: atLeast, signal, eventual: true };
      try {
        return await openRead(this.#dependencies, repository, wanted);
      } catch (error) {
        // Nobody has that generation: not for now, or is there no such one?
        const head = atLeast === 0 ? undefined : await log.head(id).catch(() => undefined);
        if (head === undefined || atLeast <= head.generation) throw error;
        throw noSuchGeneration(atLeast, head.generation);
      }
    }
    // A strong read: the head is read after the request came in, never before.
    const [head, found] = await Promise.all([
      (options.head ?? this.#heads.get(repository))?.catch(() => log.head(id)) ?? log.head(id),
      isRecord(repository) ? repository : record(id),
    ]);
    const { generation } = head;
    if (atLeast > generation) throw noSuchGeneration(atLeast, generation);
    const known = refsOnly ? knownSnapshot?.(id, head) : undefined;
    if (known !== undefined) return readOfRefs(repository, known);
    rates?.note(id);
    return openRead(this.#dependencies, found, { generation, signal });
  }

  /** `RepositoryRegistry.getForReading`. */
  async find(
    name: string,
    {
      recalled = false,
      refs = false,
    }: { readonly recalled?: boolean; readonly refs?: boolean } = {},
  ): Promise<Repository | undefined> {
    const { past } = this.#dependencies;
    const now = (): Promise<Repository | undefined> => this.#findNow(name, refs);
    if (past === undefined) return now();
    const recall = async (): Promise<Repository | undefined> => {
      const record = recalledRecord(name, past);
      if (record === undefined) return undefined;
      if (this.#readsEventually(record)) {
        return { ...record, recalled: { lostForMs: past.lostForMs ?? 0 } };
      }
      throw new QuorateError('unavailable', 'this repository is read with the coordinator only');
    };
    return recalled ? recall() : past.orPast(now, recall);
  }

  /**
   * With `refs`, the head is asked for in the same turn of the main loop, by the id that had the name last: one request
   * to the coordinator instead of two, one after the other.
   */
  async #findNow(name: string, refs: boolean): Promise<Repository | undefined> {
    const { log, registry, readConsistency } = this.#dependencies;
    const guess = refs && readConsistency === 'strong' ? registry.recalledId(name) : undefined;
    if (guess === undefined) return registry.get(name);
    const head = log.head(guess);
    // It may be the wrong id, and nobody may come back for it.
    head.catch(() => undefined);
    const record = await registry.get(name);
    if (record?.id !== guess) return record;
    // An object for this request alone: records that were decoded before are shared.
    const own = { ...record };
    this.#heads.set(own, head);
    return own;
  }

  #readsEventually({ settings }: RepositoryRecord): boolean {
    const word = wordSetting(settings, 'replication.readConsistency');
    return (word === 'default' ? this.#dependencies.readConsistency : word) === 'eventual';
  }
}

/** As it was when this process last read it. Throws `unavailable` when that is not known, or too long ago. */
function recalledRecord(name: string, past: PastReads): RepositoryRecord | undefined {
  const pointer = past.get(keys.name(name));
  const stored = pointer === undefined ? undefined : past.get(keys.repo(idOf(pointer)));
  const record = stored === undefined ? undefined : decodeRepository(stored);
  // Read apart from each other, and renamed in between.
  return record?.state === 'active' && record.name === name ? record : undefined;
}

/** What the registry hands out is a whole record. */
export function isRecord(repository: Repository): repository is RepositoryRecord {
  return 'voters' in repository;
}

function noSuchGeneration(atLeast: number, generation: number): QuorateError {
  return new QuorateError(
    'failed-precondition',
    `the repository is at generation ${generation}; ${atLeast} was asked for, which no push has made yet`,
  );
}
