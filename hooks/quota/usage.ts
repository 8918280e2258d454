import type {
  Compare,
  Coordinator,
  KeyValue,
  Operation,
  OperationResult,
} from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';
import type { Repository, RepositoryRegistry } from '../../backends/contract/repository.js';
import {
  type Claims,
  claimsSchema,
  decode,
  encode,
  ownerOf,
  type Quota,
  quotaSchema,
  usageSchema,
} from './quota.js';

export interface UsageOptions {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  /** Read when it is needed: the backend is made after the stages of its pushes. */
  readonly repositories: () => Pick<RepositoryRegistry, 'get' | 'list' | 'stats'>;
}

/** What was measured last, and the revision of the record of it. */
interface Noted {
  readonly bytes: number;
  readonly revision: number;
}

/** A change to a record of what was measured, and what that has to be until then. */
interface Correction {
  readonly compare: Compare;
  readonly operation: Operation;
}

/** What a push is judged by. */
export interface Account {
  readonly owner: string;
  readonly repositoryQuota: Quota | undefined;
  readonly ownerQuota: Quota | undefined;
  /** Stored bytes by repository id, as last measured. */
  readonly usages: ReadonlyMap<string, Noted>;
  /** Those that have not run out. */
  readonly claims: Claims;
  /** Of the claims' record; 0: there is none. */
  readonly claimsRevision: number;
}

/** Repositories looked up, or records written, at a time. */
const pageSize = 100;

/**
 * Stored bytes of repositories, and those that pushes are about to add, in the coordinator: so that pushes through
 * several front-ends are judged by the same numbers. Kept only for owners that a quota concerns.
 */
export class Usage {
  readonly #options: UsageOptions;

  constructor(options: UsageOptions) {
    this.#options = options;
  }

  /** Undefined when no quota concerns the repository, which one transaction says. */
  async account({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<Account | undefined> {
    const owner = ownerOf(name);
    const { coordinator } = this.#options;
    const { results } = await coordinator.transaction({
      compares: [],
      success: [
        { type: 'get', key: keys.repositoryQuota(id) },
        { type: 'get', key: keys.ownerQuota(owner) },
        { type: 'get', key: keys.quotaClaims(owner) },
      ],
      failure: [],
    });
    const [own, owners, claims] = results.map(firstEntry);
    if (own === undefined && owners === undefined) return undefined;
    return {
      owner,
      repositoryQuota: own === undefined ? undefined : decode(quotaSchema, own),
      ownerQuota: owners === undefined ? undefined : decode(quotaSchema, owners),
      usages: await this.#usagesOf(owner),
      claims: claims === undefined ? { claims: {} } : this.#live(decode(claimsSchema, claims)),
      claimsRevision: claims?.modRevision ?? 0,
    };
  }

  /** Writes the claims of an account, if nobody has since it was read. */
  async writeClaims(
    { owner, claimsRevision }: Account,
    claims: Claims,
    further: readonly Operation[] = [],
  ): Promise<boolean> {
    const key = keys.quotaClaims(owner);
    const { succeeded } = await this.#options.coordinator.transaction({
      compares: [{ key, target: 'modRevision', op: '=', operand: claimsRevision }],
      success: [{ type: 'put', key, value: encode(claims) }, ...further],
      failure: [],
    });
    return succeeded;
  }

  /**
   * Stored bytes of a repository, measured now. What it shares with forks is divided among them: so nothing is counted
   * twice, and forking oneself makes no room.
   */
  async measure(id: string): Promise<number> {
    const { sizeBytes, sharedBytes, sharedBy = 1 } = await this.#options.repositories().stats(id);
    return Math.ceil(sizeBytes + sharedBytes / sharedBy);
  }

  recordOf(owner: string, id: string, bytes: number): Operation {
    return { type: 'put', key: keys.quotaUsage(owner, id), value: encode({ bytes }) };
  }

  /**
   * Measures all repositories of an owner and forgets those that are no longer its own. What a push has noted in the
   * meantime was measured later, and stays.
   */
  async recount(owner: string): Promise<void> {
    const known = await this.#usagesOf(owner);
    const corrections: Correction[] = [];
    const seen = (id: string): Compare => ({
      key: keys.quotaUsage(owner, id),
      target: 'modRevision',
      op: '=',
      operand: known.get(id)?.revision ?? 0,
    });
    const own = new Set<string>();
    for await (const { id } of this.#repositoriesOf(owner)) {
      // Gone since it was listed.
      const bytes = await this.measure(id).catch(ignoreMissing);
      if (bytes === undefined) continue;
      own.add(id);
      if (known.get(id)?.bytes === bytes) continue;
      corrections.push({ compare: seen(id), operation: this.recordOf(owner, id, bytes) });
    }
    for (const id of known.keys()) {
      if (own.has(id)) continue;
      const operation: Operation = { type: 'delete', key: keys.quotaUsage(owner, id) };
      corrections.push({ compare: seen(id), operation });
    }
    for (let from = 0; from < corrections.length; from += pageSize) {
      const page = corrections.slice(from, from + pageSize);
      if (await this.#correct(page)) continue;
      for (const correction of page) await this.#correct([correction]);
    }
  }

  /** All of them, or none when a record is another than was seen. */
  async #correct(corrections: readonly Correction[]): Promise<boolean> {
    const { succeeded } = await this.#options.coordinator.transaction({
      compares: corrections.map(({ compare }) => compare),
      success: corrections.map(({ operation }) => operation),
      failure: [],
    });
    return succeeded;
  }

  /** Stored bytes of all repositories of an owner, as last measured. */
  async ofOwner(owner: string): Promise<number> {
    const usages = await this.#usagesOf(owner);
    return [...usages.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Stored bytes of a repository as last measured; measured now when that never was. */
  async ofRepository({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<number> {
    const key = keys.quotaUsage(ownerOf(name), id);
    const known = await this.#options.coordinator.get(key);
    return known === undefined ? this.measure(id) : decode(usageSchema, known).bytes;
  }

  /** Notes the size of a repository for its owner. */
  async note({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<void> {
    const record = this.recordOf(ownerOf(name), id, await this.measure(id));
    await this.#options.coordinator.transaction({ compares: [], success: [record], failure: [] });
  }

  /** Of a repository that is gone, or has another owner now. */
  async forget({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<void> {
    const key = keys.quotaUsage(ownerOf(name), id);
    await this.#options.coordinator.transaction({
      compares: [],
      success: [{ type: 'delete', key }],
      failure: [],
    });
  }

  /** Without those of processes that died. */
  #live(claims: Claims): Claims {
    const nowMs = this.#options.clock.nowMs();
    const live = Object.entries(claims.claims).filter(([, { untilMs }]) => untilMs > nowMs);
    return { ...claims, claims: Object.fromEntries(live) };
  }

  async #usagesOf(owner: string): Promise<ReadonlyMap<string, Noted>> {
    const prefix = keys.quotaUsages(owner);
    const { entries } = await this.#options.coordinator.range(prefix, {
      rangeEnd: prefixEnd(prefix),
    });
    return new Map(
      entries.map((entry) => [
        decodeURIComponent(entry.key.slice(prefix.length)),
        { bytes: decode(usageSchema, entry).bytes, revision: entry.modRevision },
      ]),
    );
  }

  async *#repositoriesOf(owner: string): AsyncGenerator<Repository> {
    const repositories = this.#options.repositories();
    const alone = await repositories.get(owner);
    if (alone !== undefined) yield alone;
    let after: string | undefined;
    for (;;) {
      const page = await repositories.list({
        prefix: `${owner}/`,
        limit: pageSize,
        ...(after === undefined ? {} : { after }),
      });
      yield* page;
      after = page.at(-1)?.name;
      if (page.length === 0) return;
    }
  }
}

function firstEntry(result: OperationResult): KeyValue | undefined {
  return result.type === 'get' ? result.entries[0] : undefined;
}

function ignoreMissing(error: unknown): undefined {
  if (error instanceof QuorateError && error.code === 'not-found') return undefined;
  throw error;
}
