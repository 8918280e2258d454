import type { PushRequest } from '../contract/backend.js';
import type { Coordinator, KeyValue } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { PackAllowance, PushPipeline } from '../contract/pipeline.js';
import type { HeadRecord, Repository } from '../contract/repository.js';
import { type Basis, basisFrom, deleted, type StoredRecord } from './basis.js';
import type { UploadGround } from './push-upload.js';
import {
  decodeHead,
  rememberedRecords,
  rememberingDecoder,
  type RepositoryRecord,
} from './records.js';
import type { Registry } from './registry.js';

export interface PushAheadDependencies {
  readonly pipeline: Pick<PushPipeline, 'allowance' | 'foreseeAllowance'>;
  readonly coordinator: Pick<Coordinator, 'range'>;
  readonly registry: Pick<Registry, 'lookUp' | 'recalledId'>;
  readonly stored: (id: string) => Promise<StoredRecord>;
}

/** What was asked for a push when its repository was looked up. */
interface Begun {
  readonly head: Promise<KeyValue>;
  readonly allowance: (repository: Repository) => Promise<PackAllowance | undefined>;
}

/** What a push begins with. */
export interface PushBeginning {
  readonly repository: RepositoryRecord;
  /** Undefined: there is nothing to upload. */
  readonly ground: UploadGround | undefined;
  /** As it is at some time after the push came in. */
  readonly ahead: Basis;
}

/**
 * Asks what a push begins with in the turn of the main loop in which its repository is looked up, by the id that had
 * the name last: one request to the coordinator instead of two, one after the other. All of it is of a time after the
 * push came in, which is what it has to be; what it is judged by is read under its locks, or is compared by its commit.
 */
export class PushesAhead {
  readonly #dependencies: PushAheadDependencies;
  readonly #begun = new WeakMap<Repository, Begun & StoredRecord>();
  readonly #decodeHead = rememberingDecoder(decodeHead, rememberedRecords);

  constructor(dependencies: PushAheadDependencies) {
    this.#dependencies = dependencies;
  }

  /** `RepositoryRegistry.getForPushing`. */
  async find(name: string): Promise<RepositoryRecord | undefined> {
    const { registry } = this.#dependencies;
    const guess = registry.recalledId(name);
    const begun = guess === undefined ? undefined : this.#begin({ id: guess, name });
    const found = await registry.lookUp(name);
    if (found === undefined || begun === undefined || found.record.id !== guess) {
      return found?.record;
    }
    // An object for this push alone: records that were decoded before are shared.
    const record = { ...found.record };
    this.#begun.set(record, { ...begun, record, revision: found.revision });
    return record;
  }

  /** The head that was asked for with it: a client that is told the refs before it pushes is told those. */
  headOf(repository: Repository): Promise<HeadRecord> | undefined {
    return this.#begun.get(repository)?.head.then(this.#decodeHead);
  }

  /** What is known for the push that the repository was looked up for, once; else it is read now. */
  async beginning(repository: Repository, request: PushRequest): Promise<PushBeginning> {
    const begun = this.#begun.get(repository);
    this.#begun.delete(repository);
    if (begun !== undefined) {
      const beginning = await beginningOf(begun, begun, request).catch(() => undefined);
      if (beginning !== undefined) return beginning;
    }
    const { pipeline } = this.#dependencies;
    // In one turn of the main loop.
    const [stored, head, allowed] = await Promise.all([
      this.#dependencies.stored(repository.id),
      this.#head(repository.id),
      request.pack === undefined ? undefined : pipeline.allowance(repository),
    ]);
    const now = { head: Promise.resolve(head), allowance: () => Promise.resolve(allowed) };
    return beginningOf(stored, now, request);
  }

  #begin(about: Pick<Repository, 'id' | 'name'>): Begun {
    const { pipeline } = this.#dependencies;
    const head = this.#head(about.id);
    // It may be the wrong id, and nobody may come back for it.
    head.catch(() => undefined);
    const allowance =
      pipeline.foreseeAllowance?.(about) ??
      ((repository: Repository) => pipeline.allowance(repository));
    return { head, allowance };
  }

  async #head(id: string): Promise<KeyValue> {
    // As a range, of which the revision is known: that a coordinator went back has to be noticed before the commit.
    const { entries } = await this.#dependencies.coordinator.range(keys.head(id));
    const [head] = entries;
    if (head === undefined) throw deleted(id);
    return head;
  }
}

async function beginningOf(
  stored: StoredRecord,
  begun: Begun,
  { pack }: PushRequest,
): Promise<PushBeginning> {
  const { record: repository } = stored;
  const [head, allowance] = await Promise.all([
    begun.head,
    pack === undefined ? undefined : begun.allowance(repository),
  ]);
  const ahead = basisFrom(stored, head);
  const ground = pack === undefined ? undefined : { allowance, basis: ahead.head.generation };
  return { repository, ground, ahead };
}
