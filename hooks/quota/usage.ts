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
  /** Stored bytes by repository id, as last measured: of those that were asked for at least. */
  readonly usages: ReadonlyMap<string, Noted>;
  /** Of all repositories of an owner with a quota; undefined where it is not known, and was not to be. */
  readonly storedBytes: number | undefined;
  /** Those that have not run out. */
  readonly claims: Claims;
  /** Of the claims' record; 0: there is none. */
  readonly claimsRevision: number;
  /** That the quotas that were asked for are these, and those that are not there are not. */
  readonly sameQuotas: readonly Compare[];
}

/** The same for one of the owner's repositories. */
export type Account = Omit<OwnerAccount, 'repositoryQuotas'> & {
  readonly repositoryQuota: Quota | undefined;
};

/** Bytes undefined: it could not be measured, or was not asked for. */
interface Measured {
  readonly id: string;
  readonly bytes: number | undefined;
  readonly error: unknown;
}

/** What was measured of a repository, where it is another size than the record of that revision (0: none) says. */
export interface Correction {
  readonly id: string;
  /** `gone`: it is none of the owner's. */
  readonly bytes: number | 'gone';
  readonly revision: number;
}

/**
 * What an account says of all repositories of an owner: nothing; the sum that is kept with the claims, or that of all
 * records where none is kept; that of all records.
 */
export type StoredNeed = 'unused' | 'known' | 'counted';

export interface Recount {
  readonly corrections: readonly Correction[];
  /** Repositories that could not be measured, and why the first of them could not. */
  readonly unmeasured: number;
  readonly error: unknown;
}

/** Repositories that cannot be measured beyond which a count asks for no more, after the page. */
const maxUnmeasured = 32;
/** Repositories looked up at a time. */
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

  /** For some repositories of an owner, 50 at most. */
  async ofOwnersRepositories(
    owner: string,
    ids: readonly string[],
    { stored = 'known' }: { readonly stored?: StoredNeed } = {},
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
    const record = claims === undefined ? { claims: {} } : this.#live(decode(claimsSchema, claims));
    const known = owners === undefined ? undefined : record.storedBytes;
    const all =
      owners !== undefined && (stored === 'counted' || (stored === 'known' && known === undefined));
    const usages = all ? await this.#usagesOf(owner) : new Map(own);
    return {
      owner,
      repositoryQuotas: new Map(quotas),
      ownerQuota: owners === undefined ? undefined : decode(quotaSchema, owners),
      usages,
      storedBytes: all ? sumOf(usages) : known,
      claims: record,
      claimsRevision: claims?.modRevision ?? 0,
      sameQuotas: [
        same(keys.ownerQuota(owner), owners),
        ...ids.map((id, index) => same(keys.repositoryQuota(id), rest[index])),
      ],
    };
  }

  /**
   * Writes the claims of an account, with what was measured, if nobody has written any of it since it was read, nor set
   * or removed a quota: when the last one goes, so do these records, and nobody brings them back.
   */
  async writeClaims(
    { owner, claimsRevision, sameQuotas }: OwnerAccount,
    claims: Claims,
    notes: readonly Note[],
  ): Promise<boolean> {
    const key = keys.quotaClaims(owner);
    const { succeeded } = await this.#options.coordinator.transaction({
      compares: [
        { key, target: 'modRevision', op: '=', operand: claimsRevision },
        ...sameQuotas,
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
  noteOf({ owner, usages }: OwnerAccount, id: string, bytes: number | 'gone'): Note {
    const key = keys.quotaUsage(owner, id);
    const operand = usages.get(id)?.revision ?? 0;
    return {
      compare: { key, target: 'modRevision', op: '=', operand },
      operation:
        bytes === 'gone' ? { type: 'delete', key } : { type: 'put', key, value: encode({ bytes }) },
    };
  }

  /**
   * Measures all repositories of an owner. What is known of one that cannot be measured now stays, since pushes to the
   * others go on.
   */
  async measureAgain(owner: string): Promise<Recount> {
    const known = await this.#usagesOf(owner);
    const corrections: Correction[] = [];
    const own = new Set<string>();
    let unmeasured = 0;
    let firstError: unknown = undefined;
    for await (const page of this.#pagesOf(owner)) {
      // A store that is away, or whose disk hangs, is not asked for thousands.
      const ask = unmeasured < maxUnmeasured;
      for (const { id, bytes, error } of await this.#measureAll(page, { ask })) {
        own.add(id);
        const before = known.get(id);
        if (bytes === undefined) {
          unmeasured += 1;
          firstError ??= error;
        } else if (before?.bytes !== bytes) {
          corrections.push({ id, bytes, revision: before?.revision ?? 0 });
        }
      }
    }
    for (const [id, { revision }] of known) {
      if (!own.has(id)) corrections.push({ id, bytes: 'gone', revision });
    }
    return { corrections, unmeasured, error: firstError };
  }

  /** Without those that are gone since they were listed. */
  async #measureAll(
    page: readonly Repository[],
    { ask }: { readonly ask: boolean },
  ): Promise<readonly Measured[]> {
    if (!ask) return page.map(({ id }) => ({ id, bytes: undefined, error: undefined }));
    const measured: Measured[] = [];
    for (let from = 0; from < page.length; from += measuredAtATime) {
      const part = page
        .slice(from, from + measuredAtATime)
        .map(async ({ id }): Promise<readonly Measured[]> => {
          try {
            return [{ id, bytes: await this.measure(id), error: undefined }];
          } catch (error) {
            return isMissing(error) ? [] : [{ id, bytes: undefined, error }];
          }
        });
      measured.push(...(await Promise.all(part)).flat());
    }
    return measured;
  }

  /** Stored bytes of all repositories of an owner, measured now and not noted. */
  async measureOwner(owner: string): Promise<number> {
    let sum = 0;
    for await (const page of this.#pagesOf(owner)) {
      for (const { bytes, error } of await this.#measureAll(page, { ask: true })) {
        if (bytes === undefined) throw error;
        sum += bytes;
      }
    }
    return sum;
  }

  /** Stored bytes of all repositories of an owner, as last measured. */
  async ofOwner(owner: string): Promise<number> {
    return sumOf(await this.#usagesOf(owner));
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

function sumOf(usages: ReadonlyMap<string, Noted>): number {
  return [...usages.values()].reduce((sum, { bytes }) => sum + bytes, 0);
}

function noted(entry: KeyValue): Noted {
  return { bytes: decode(usageSchema, entry).bytes, revision: entry.modRevision };
}

function same(key: string, entry: KeyValue | undefined): Compare {
  return { key, target: 'modRevision', op: '=', operand: entry?.modRevision ?? 0 };
}

function firstEntry(result: OperationResult): KeyValue | undefined {
  return result.type === 'get' ? result.entries[0] : undefined;
}

function isMissing(error: unknown): boolean {
  return error instanceof QuorateError && error.code === 'not-found';
}
