import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';

/** Reports that are known at once; a cluster with more copies to heal has other troubles than which one is read. */
const maxKnown = 10_000;
const retryMs = 3_000;

/**
 * The copies in which damage was found and not healed yet, as a front-end hears of them: it reads them last. Only a
 * hint: while it is late, or etcd does not answer, a damaged copy may be read, as before it was known to be damaged.
 */
export class KnownDamages {
  readonly #dependencies: {
    readonly coordinator: Coordinator;
    readonly clock: Clock;
    readonly logger: Logger;
  };
  readonly #closing = new AbortController();
  #keys = new Set<string>();
  #following: Promise<void> | undefined;

  constructor(dependencies: {
    readonly coordinator: Coordinator;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    this.#dependencies = dependencies;
  }

  has(repositoryId: string, storeId: string): boolean {
    return this.#keys.size > 0 && this.#keys.has(keys.damage(repositoryId, storeId));
  }

  start(): void {
    this.#following ??= this.#follow();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#following;
  }

  async #follow(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        await this.#followFrom(await this.#list());
      } catch (error) {
        const { code } = asQuorateError(error);
        logger.debug({ component: 'read', code }, 'damaged copies are listed again');
      }
      await clock.sleep(retryMs, signal);
    }
  }

  /** Returns the revision of what it read. */
  async #list(): Promise<number> {
    const { coordinator } = this.#dependencies;
    const { entries, revision } = await coordinator.range(keys.damages, {
      rangeEnd: prefixEnd(keys.damages),
      limit: maxKnown,
      keysOnly: true,
    });
    this.#keys = new Set(entries.map(({ key }) => key));
    return revision;
  }

  async #followFrom(revision: number): Promise<void> {
    const { coordinator } = this.#dependencies;
    const batches = coordinator.watch(keys.damages, {
      rangeEnd: prefixEnd(keys.damages),
      fromRevision: revision + 1,
      signal: this.#closing.signal,
    });
    for await (const { events } of batches) {
      for (const event of events) {
        if (event.type === 'delete') this.#keys.delete(event.key);
        else if (this.#keys.size < maxKnown) this.#keys.add(event.entry.key);
      }
    }
  }
}
