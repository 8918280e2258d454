import type { PushRequest } from '../contract/backend.js';
import type { PackAllowance, PushPipeline } from '../contract/pipeline.js';
import type { LogReader } from '../contract/replica.js';
import type { HeadRecord, Repository } from '../contract/repository.js';
import { readUploadGround, type UploadGround } from './push-upload.js';
import { isRecord } from './read-path.js';
import type { RepositoryRecord } from './records.js';
import type { Registry } from './registry.js';

export interface PushAheadDependencies {
  readonly pipeline: Pick<PushPipeline, 'allowance' | 'foreseeAllowance'>;
  readonly log: Pick<LogReader, 'head'>;
  readonly registry: Pick<Registry, 'get' | 'recalledId'>;
  readonly record: (id: string) => Promise<RepositoryRecord>;
}

/** What was asked for a push when its repository was looked up. */
interface Begun {
  readonly head: Promise<HeadRecord>;
  readonly allowance: (repository: Repository) => Promise<PackAllowance | undefined>;
}

/** What a push begins with. */
export interface PushBeginning {
  readonly repository: RepositoryRecord;
  /** Undefined: there is nothing to upload. */
  readonly ground: UploadGround | undefined;
}

/**
 * Asks what a push begins with in the turn of the main loop in which its repository is looked up, by the id that had
 * the name last: one request to the coordinator instead of two, one after the other. All of it is of a time after the
 * push came in, which is what it has to be; what it is judged by is read under its locks.
 */
export class PushesAhead {
  readonly #dependencies: PushAheadDependencies;
  readonly #begun = new WeakMap<Repository, Begun>();

  constructor(dependencies: PushAheadDependencies) {
    this.#dependencies = dependencies;
  }

  /** `RepositoryRegistry.getForPushing`. */
  async find(name: string): Promise<RepositoryRecord | undefined> {
    const { registry } = this.#dependencies;
    const guess = registry.recalledId(name);
    const begun = guess === undefined ? undefined : this.#begin({ id: guess, name });
    const record = await registry.get(name);
    if (record === undefined || begun === undefined || record.id !== guess) return record;
    // An object for this push alone: records that were decoded before are shared.
    const own = { ...record };
    this.#begun.set(own, begun);
    return own;
  }

  /** The head that was asked for with it: a client that is told the refs before it pushes is told those. */
  headOf(repository: Repository): Promise<HeadRecord> | undefined {
    return this.#begun.get(repository)?.head;
  }

  /** What is known for the push that the repository was looked up for, once; else it is read now. */
  async beginning(repository: Repository, request: PushRequest): Promise<PushBeginning> {
    const begun = this.#begun.get(repository);
    this.#begun.delete(repository);
    if (begun !== undefined && isRecord(repository)) {
      if (request.pack === undefined) return { repository, ground: undefined };
      const ground = await groundOf(begun, repository).catch(() => undefined);
      if (ground !== undefined) return { repository, ground };
    }
    const [record, ground] = await Promise.all([
      this.#dependencies.record(repository.id),
      readUploadGround(this.#dependencies, repository, request),
    ]);
    return { repository: record, ground };
  }

  #begin(about: Pick<Repository, 'id' | 'name'>): Begun {
    const { pipeline, log } = this.#dependencies;
    const head = log.head(about.id);
    // It may be the wrong id, and nobody may come back for it.
    head.catch(() => undefined);
    const allowance =
      pipeline.foreseeAllowance?.(about) ??
      ((repository: Repository) => pipeline.allowance(repository));
    return { head, allowance };
  }
}

async function groundOf(
  { head, allowance }: Begun,
  repository: RepositoryRecord,
): Promise<UploadGround> {
  const [{ generation: basis }, allowed] = await Promise.all([head, allowance(repository)]);
  return { allowance: allowed, basis };
}
