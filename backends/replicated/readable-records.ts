import type { Coordinator } from '../contract/coordinator.js';
import type { Logger } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { decodeRepository, type RepositoryRecord, scan } from './records.js';

/** Unreadable ones that are remembered as told; those beyond are told of each time. */
const maxTold = 1_000;

/**
 * The records of all repositories, for what keeps them up. One that cannot be read is damaged, or of a later version:
 * nothing is done for its repository, and everything for the others.
 */
export class ReadableRecords {
  readonly #coordinator: Coordinator;
  readonly #logger: Logger;
  readonly #component: string;
  /** Revisions that the log was told of, by key. */
  readonly #told = new Map<string, number>();

  constructor(
    { coordinator, logger }: { readonly coordinator: Coordinator; readonly logger: Logger },
    component: string,
  ) {
    this.#coordinator = coordinator;
    this.#logger = logger;
    this.#component = component;
  }

  /** In the order of their ids, page by page. */
  async *all(): AsyncGenerator<RepositoryRecord> {
    for await (const entry of scan(this.#coordinator, keys.repos)) {
      let record: RepositoryRecord;
      try {
        record = decodeRepository(entry);
      } catch (error) {
        this.#tell(entry, error);
        continue;
      }
      yield record;
    }
  }

  #tell(
    { key, modRevision }: { readonly key: string; readonly modRevision: number },
    error: unknown,
  ): void {
    if (this.#told.get(key) === modRevision) return;
    if (this.#told.size < maxTold) this.#told.set(key, modRevision);
    this.#logger.error(
      { component: this.#component, key, err: asQuorateError(error) },
      'the record of a repository cannot be read: its copies are left as they are',
    );
  }
}
