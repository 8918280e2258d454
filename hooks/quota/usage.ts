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

/** A change to the record of what was measured, and what that has to be until then. */
export interface Note {
  readonly compare: Compare;
  readonly operation: Operation;
}

/** What an owner's pushes are judged by. */
export interface OwnerAccount {
  readonly owner: string;
  readonly ownerQuota: Quota | undefined;
  /** By repository id, of those that were asked for and have one. */
  readonly repositoryQuotas: ReadonlyMap<string, Quota>;
  /** Stored bytes by repository id, as last measured: of all repositories, or of those that were asked for. */
  readonly usages: ReadonlyMap<string, Noted>;
  /** Those that have not run out. */
  readonly claims: Claims;
  /** Of the claims' record; 0: there is none. */
  readonly claimsRevision: number;
}

/** The same for one of the owner's repositories. */
export type Account = Omit<OwnerAccount, 'repositoryQuotas'> & {
  readonly repositoryQuota: Quota | undefined;
};

/** Repositories looked up, or records written, at a time. */
const pageSize = 100;
/** Repositories measured at a time: each is a question to a store. */
const measuredAtATime = 8;

/**
 * Stored bytes of repositories, and those that pushes are about to add, in the coordinator: so that pushes through
 * several front-ends are judged by the same numbers. Kept only for owners that a quota concerns.
 */
export class Usage {
  readonly #options: UsageOptions;

  constructor(options: UsageOptions) {
    this.#options = options;
  }

  /** Whether any quota concerns the repository. */
  async concerns({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<boolean> {
    const { results } = await this.#options.coordinator.transaction({
      compares: [],
      success: [
        { type: 'get', key: keys.repositoryQuota(id) },
        { type: 'get', key: keys.ownerQuota(ownerOf(name)) },
      ],
      failure: [],
    });
    return results.some((result) => firstEntry(result) !== undefined);
  }

  /** With what is stored in all of the owner's repositories. Undefined when no quota concerns this one. */
  async account({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<Account | undefined> {
    return accountOf(await this.ofOwnersRepositories(ownerOf(name), [id]), id);
  }

  /** For some repositories of an owner, 50 at most. `all`: with what is stored in the others, if that matters. */
  async ofOwnersRepositories(
    owner: string,
    ids: readonly string[],
    { all = true }: { readonly all?: boolean } = {},
  ): Promise<OwnerAccount> {
    const read = [
      keys.ownerQuota(owner),
      keys.quotaClaims(owner),
      ...ids.map((id) => keys.repositoryQuota(id)),
      ...ids.map((id) => keys.quotaUsage(owner, id)),
    ];
    const { results } = await this.#options.coordinator.transaction({
      compares: [],
      success: read.map((key) => ({ type: 'get', key })),
      failure: [],
    });
    const [owners, claims, ...rest] = results.map(firstEntry);
    const quotas = ids.flatMap((id, index): [string, Quota][] => {
      const entry = rest[index];
      return entry === undefined ? [] : [[id, decode(quotaSchema, entry)]];
    });
    const own = ids.flatMap((id, index): [string, Noted][] => {
      const entry = rest[ids.length + index];
      return entry === undefined ? [] : [[id, noted(entry)]];
    });
    return {
      owner,
      repositoryQuotas: new Map(quotas),
      ownerQuota: owners === undefined ? undefined : decode(quotaSchema, owners),
      usages: all && owners !== undefined ? await this.#usagesOf(owner) : new Map(own),
      claims: claims === undefined ? { claims: {} } : this.#live(decode(claimsSchema, claims)),
      claimsRevision: claims?.modRevision ?? 0,
    };
  }

  /** Writes the claims of an account, with what was measured, if nobody has written any of it since it was read. */
  async writeClaims(
    { owner, claimsRevision }: Pick<OwnerAccount, 'owner' | 'claimsRevision'>,
    claims: Claims,
    notes: readonly Note[],
  ): Promise<boolean> {
    const key = keys.quotaClaims(owner);
    const { succeeded } = await this.#options.coordinator.transaction({
      compares: [
        { key, target: 'modRevision', op: '=', operand: claimsRevision },
        ...notes.map(({ compare }) => compare),
      ],
      success: [
        { type: 'put', key, value: encode(claims) },
        ...notes.map(({ operation }) => operation),
      ],
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

  /** What was measured of a repository, in the place of what the account says was measured before. */
  noteOf(
    { owner, usages }: Pick<OwnerAccount, 'owner' | 'usages'>,
    id: string,
    bytes: number,
  ): Note {
    return this.#noteOf({ owner, usages }, id, {
      type: 'put',
      key: keys.quotaUsage(owner, id),
      value: encode({ bytes }),
    });
  }

  #noteOf(
    { owner, usages }: Pick<OwnerAccount, 'owner' | 'usages'>,
    id: string,
    operation: Operation,
  ): Note {
    const key = keys.quotaUsage(owner, id);
    const operand = usages.get(id)?.revision ?? 0;
    return { compare: { key, target: 'modRevision', op: '=', operand }, operation };
  }

  /**
   * Measures all repositories of an owner and forgets those that are no longer its own. What a push has noted in the
   * meantime was measured later, and stays.
   */
  async recount(owner: string): Promise<void> {
    const known = await this.#usagesOf(owner);
    const before = { owner, usages: known };
    const corrections: Note[] = [];
    const own = new Set<string>();
    for await (const page of this.#pagesOf(owner)) {
      for (const { id, bytes } of await this.#measureAll(page)) {
        own.add(id);
        if (known.get(id)?.bytes === bytes) continue;
        corrections.push(this.noteOf(before, id, bytes));
      }
    }
    for (const id of known.keys()) {
      if (own.has(id)) continue;
      const operation: Operation = { type: 'delete', key: keys.quotaUsage(owner, id) };
      corrections.push(this.#noteOf(before, id, operation));
    }
    for (let from = 0; from < corrections.length; from += pageSize) {
      const page = corrections.slice(from, from + pageSize);
      if (await this.#correct(page)) continue;
      for (const correction of page) await this.#correct([correction]);
    }
  }

  /** Without those that are gone since they were listed. */
  async #measureAll(
    page: readonly Repository[],
  ): Promise<readonly { readonly id: string; readonly bytes: number }[]> {
    const measured: { readonly id: string; readonly bytes: number }[] = [];
    for (let from = 0; from < page.length; from += measuredAtATime) {
      const part = page.slice(from, from + measuredAtATime).map(async ({ id }) => {
        const bytes = await this.measure(id).catch(ignoreMissing);
        return bytes === undefined ? [] : [{ id, bytes }];
      });
      measured.push(...(await Promise.all(part)).flat());
    }
    return measured;
  }

  /** All of them, or none when a record is another than was seen. */
  async #correct(corrections: readonly Note[]): Promise<boolean> {
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

  /** What was measured last; undefined when nothing was. */
  async noted({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<Noted | undefined> {
    const entry = await this.#options.coordinator.get(keys.quotaUsage(ownerOf(name), id));
    return entry === undefined ? undefined : noted(entry);
  }

  /** Stored bytes of a repository as last measured; measured now when that never was. */
  async ofRepository({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<number> {
    const key = keys.quotaUsage(ownerOf(name), id);
    const known = await this.#options.coordinator.get(key);
    return known === undefined ? this.measure(id) : decode(usageSchema, known).bytes;
  }

  /** Notes the size of a repository for its owner. */
  async note({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<void> {
    const owner = ownerOf(name);
    const value = encode({ bytes: await this.measure(id) });
    const key = keys.quotaUsage(owner, id);
    await this.#options.coordinator.transaction({
      compares: [],
      success: [{ type: 'put', key, value }],
      failure: [],
    });
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
      entries.map((entry) => [decodeURIComponent(entry.key.slice(prefix.length)), noted(entry)]),
    );
  }

  async *#pagesOf(owner: string): AsyncGenerator<readonly Repository[]> {
    const repositories = this.#options.repositories();
    const alone = await repositories.get(owner);
    if (alone !== undefined) yield [alone];
    let after: string | undefined;
    for (;;) {
      const page = await repositories.list({
        prefix: `${owner}/`,
        limit: pageSize,
        ...(after === undefined ? {} : { after }),
      });
      yield page;
      after = page.at(-1)?.name;
      if (page.length < pageSize) return;
    }
  }
}

/** What concerns one of the repositories that were asked for; undefined when no quota does. */
export function accountOf(
  { repositoryQuotas, ...account }: OwnerAccount,
  id: string,
): Account | undefined {
  const repositoryQuota = repositoryQuotas.get(id);
  if (repositoryQuota === undefined && account.ownerQuota === undefined) return undefined;
  return { ...account, repositoryQuota };
}

function noted(entry: KeyValue): Noted {
  return { bytes: decode(usageSchema, entry).bytes, revision: entry.modRevision };
}

function firstEntry(result: OperationResult): KeyValue | undefined {
  return result.type === 'get' ? result.entries[0] : undefined;
}

function ignoreMissing(error: unknown): undefined {
  if (error instanceof QuorateError && error.code === 'not-found') return undefined;
  throw error;
}
