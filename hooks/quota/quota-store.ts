import type {
  Compare,
  Coordinator,
  KeyValue,
  Operation,
} from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';
import {
  type Claims,
  claimsSchema,
  decode,
  encode,
  inUnits,
  ownerOf,
  type Quota,
  quotaSchema,
  type QuotaScope,
} from './quota.js';

export type ScopedQuota = Quota &
  (
    | { readonly owner: string }
    /** `name` is undefined for a repository that is gone. */
    | { readonly repositoryId: string; readonly name: string | undefined }
  );

/** What quotas promise together, and what they may. */
export interface Promised {
  readonly bytes: number;
  /** The disk times the ratio of overcommitment. */
  readonly maxBytes: number;
}

/** A quota as it is removed: with its owner's last one, what was kept for that owner's pushes goes, too. */
export type OwnedScope =
  | { readonly owner: string }
  /** `owner`: of the repository. */
  | { readonly repositoryId: string; readonly ofOwner: string };

/**
 * Quotas in the coordinator. Errors: `not-found`, `failed-precondition` (more would be promised than may be),
 * `aborted` (others change quotas at the same time), `data-corrupt`.
 */
export interface QuotaStore {
  get(scope: QuotaScope): Promise<Quota | undefined>;
  /** Refuses to promise more than the disk may be overcommitted; lowering is never refused. */
  set(scope: QuotaScope, bytes: number): Promise<Quota>;
  /**
   * With it goes what was measured and claimed on its account: pushes that are being judged by it lose a race, and are
   * judged without it.
   */
  remove(scope: OwnedScope): Promise<void>;
  list(): Promise<readonly ScopedQuota[]>;
  promised(): Promise<Promised>;
  /** When a repository's id is to change, which is so on the directory backend only. It stays where it is, too. */
  copy(from: string, to: string): Promise<void>;
  /** As `remove`, of a repository that is gone, if it had one. */
  forget(scope: OwnedScope): Promise<void>;
  /** Removes what was kept for an owner whom a repository left, if no quota concerns any other of its own. */
  left(owner: string): Promise<void>;
}

export interface QuotaStoreOptions {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  /** Name of a repository, or undefined when it is gone. */
  readonly repositoryName: (id: string) => Promise<string | undefined>;
  /** Size of the disk that holds the repositories. */
  readonly diskBytes: () => Promise<number>;
  /** How much of the disk may be promised, in percent: 100 is all of it, 150 half as much again. */
  readonly overcommitPercent: number;
}

/** Lost races in a row that do not happen by chance. */
const maxRaces = 10;
const pageSize = 500;
/** Repositories whose sizes stay known when their owner's quota goes; of others they are measured again. */
const maxKept = 100;

export function createQuotaStore(options: QuotaStoreOptions): QuotaStore {
  return new Store(options);
}

class Store implements QuotaStore {
  readonly #options: QuotaStoreOptions;

  constructor(options: QuotaStoreOptions) {
    this.#options = options;
  }

  async get(scope: QuotaScope): Promise<Quota | undefined> {
    const stored = await this.#options.coordinator.get(keyOf(scope));
    return stored === undefined ? undefined : decode(quotaSchema, stored);
  }

  set(scope: QuotaScope, bytes: number): Promise<Quota> {
    const quota: Quota = { bytes, setAtMs: this.#options.clock.nowMs() };
    return this.#change(async () => {
      const current = await this.get(scope);
      if (bytes > (current?.bytes ?? 0)) await this.#refuseOvercommit(scope, bytes);
      const put: Operation = { type: 'put', key: keyOf(scope), value: encode(quota) };
      return { operations: [put], result: quota };
    });
  }

  remove(scope: OwnedScope): Promise<void> {
    return this.#change(async () => {
      if ((await this.get(scope)) === undefined) {
        throw new QuorateError('not-found', 'there is no such quota');
      }
      const { compares, operations } = await this.#keptFor(scope);
      return {
        compares,
        operations: [{ type: 'delete', key: keyOf(scope) }, ...operations],
        result: undefined,
      };
    });
  }

  async list(): Promise<readonly ScopedQuota[]> {
    const found: ScopedQuota[] = [];
    for await (const entry of this.#scan()) {
      const quota = decode(quotaSchema, entry);
      const scope = scopeOf(entry.key);
      found.push(
        'owner' in scope
          ? { ...quota, ...scope }
          : { ...quota, ...scope, name: await this.#options.repositoryName(scope.repositoryId) },
      );
    }
    return found;
  }

  async promised(): Promise<Promised> {
    return { bytes: sumOf(await this.list()), maxBytes: await this.#maxBytes() };
  }

  async copy(from: string, to: string): Promise<void> {
    const quota = await this.get({ repositoryId: from });
    if (quota === undefined) return;
    await this.#change(async () => ({
      operations: [{ type: 'put', key: keyOf({ repositoryId: to }), value: encode(quota) }],
      result: undefined,
    }));
  }

  async forget(scope: OwnedScope): Promise<void> {
    if ((await this.get(scope)) === undefined) return;
    // Somebody else may do so at the same time.
    await this.remove(scope).catch(unlessMissing);
  }

  async left(owner: string): Promise<void> {
    const { coordinator } = this.#options;
    if ((await this.get({ owner })) !== undefined) return;
    const usages = keys.quotaUsages(owner);
    const { entries } = await coordinator.range(usages, { rangeEnd: prefixEnd(usages), limit: 1 });
    if (entries.length === 0 && (await coordinator.get(keys.quotaClaims(owner))) === undefined) {
      return;
    }
    await this.#change(async () => {
      const { ownerQuota, others } = await this.#quotasOf(owner, undefined);
      const unused = ownerQuota === undefined && others.length === 0;
      return { operations: unused ? allKeptFor(owner) : [], result: undefined };
    });
  }

  /** What is to go with a quota of what was measured and claimed, as far as no other quota needs it. */
  async #keptFor(scope: OwnedScope): Promise<{
    readonly compares: readonly Compare[];
    readonly operations: readonly Operation[];
  }> {
    const owner = 'owner' in scope ? scope.owner : scope.ofOwner;
    const { ownerQuota, others } = await this.#quotasOf(owner, scope);
    if (ownerQuota !== undefined) return { compares: [], operations: [] };
    if (others.length === 0) return { compares: [], operations: allKeptFor(owner) };
    if (!('owner' in scope)) {
      const key = keys.quotaUsage(owner, scope.repositoryId);
      return { compares: [], operations: [{ type: 'delete', key }] };
    }
    const claims = await this.#uncounted(owner);
    return {
      compares: claims.compares,
      operations: [...allUsagesBut(owner, others.slice(0, maxKept)), ...claims.operations],
    };
  }

  /** Claims stay. That all was counted was true of an owner with a quota; another one begins with a count. */
  async #uncounted(owner: string): Promise<{
    readonly compares: readonly Compare[];
    readonly operations: readonly Operation[];
  }> {
    const key = keys.quotaClaims(owner);
    const stored = await this.#options.coordinator.get(key);
    if (stored === undefined) return { compares: [], operations: [] };
    const { claims } = decode(claimsSchema, stored);
    const uncounted: Claims = { claims };
    return {
      compares: [{ key, target: 'modRevision', op: '=', operand: stored.modRevision }],
      operations: [{ type: 'put', key, value: encode(uncounted) }],
    };
  }

  /** The owner's own, and ids of its repositories that have one; without that of a scope. */
  async #quotasOf(
    owner: string,
    without: QuotaScope | undefined,
  ): Promise<{ readonly ownerQuota: Quota | undefined; readonly others: readonly string[] }> {
    const ofItself = without !== undefined && 'owner' in without;
    const ownerQuota = ofItself ? undefined : await this.get({ owner });
    if (ownerQuota !== undefined) return { ownerQuota, others: [] };
    const others = (await this.list()).flatMap((quota) => {
      if ('owner' in quota || quota.name === undefined || ownerOf(quota.name) !== owner) return [];
      return without !== undefined && isOf(quota, without) ? [] : [quota.repositoryId];
    });
    return { ownerQuota, others };
  }

  /** With the change: two that are judged at the same time could promise too much together. */
  async #change<T>(
    decide: () => Promise<{
      readonly compares?: readonly Compare[];
      readonly operations: readonly Operation[];
      readonly result: T;
    }>,
  ): Promise<T> {
    const { coordinator } = this.#options;
    const key = keys.quotaRevision;
    for (let race = 0; race < maxRaces; race += 1) {
      const before = await coordinator.get(key);
      const { compares = [], operations, result } = await decide();
      if (operations.length === 0) return result;
      const { succeeded } = await coordinator.transaction({
        binding: true,
        compares: [
          { key, target: 'modRevision', op: '=', operand: before?.modRevision ?? 0 },
          ...compares,
        ],
        success: [...operations, { type: 'put', key, value: encode({}) }],
        failure: [],
      });
      if (succeeded) return result;
    }
    throw new QuorateError('aborted', 'quotas are being changed by others; try again');
  }

  async #refuseOvercommit(scope: QuotaScope, bytes: number): Promise<void> {
    const current = await this.list();
    const others = current.filter((quota) => !isOf(quota, scope));
    const wanted: ScopedQuota =
      'owner' in scope
        ? { bytes, setAtMs: 0, ...scope }
        : {
            bytes,
            setAtMs: 0,
            ...scope,
            name: await this.#options.repositoryName(scope.repositoryId),
          };
    const promised = sumOf([...others, wanted]);
    const maxBytes = await this.#maxBytes();
    // An owner's quota may take the place of larger ones of its repositories.
    if (promised <= maxBytes || promised <= sumOf(current)) return;
    throw new QuorateError(
      'failed-precondition',
      `quotas would promise ${inUnits(promised)} together, and may promise ${inUnits(maxBytes)}: ` +
        `${this.#options.overcommitPercent} % of the disk (quota.overcommit)`,
      { details: { promisedBytes: promised, maxBytes } },
    );
  }

  async #maxBytes(): Promise<number> {
    const { diskBytes, overcommitPercent } = this.#options;
    return Math.floor(((await diskBytes()) * overcommitPercent) / 100);
  }

  async *#scan(): AsyncGenerator<KeyValue> {
    const rangeEnd = prefixEnd(keys.quotas);
    let from: string = keys.quotas;
    for (;;) {
      const page = await this.#options.coordinator.range(from, { rangeEnd, limit: pageSize });
      yield* page.entries;
      const last = page.entries.at(-1);
      if (!page.more || last === undefined) return;
      from = `${last.key}\0`;
    }
  }
}

function keyOf(scope: QuotaScope): string {
  return 'owner' in scope ? keys.ownerQuota(scope.owner) : keys.repositoryQuota(scope.repositoryId);
}

function scopeOf(key: string): QuotaScope {
  const [kind, name = ''] = key.slice(keys.quotas.length).split('/', 2);
  const decoded = decodeURIComponent(name);
  return kind === 'owners' ? { owner: decoded } : { repositoryId: decoded };
}

/** Sizes and claims of an owner that no quota concerns any more. */
function allKeptFor(owner: string): readonly Operation[] {
  const key = keys.quotaUsages(owner);
  return [
    { type: 'delete', key: keys.quotaClaims(owner) },
    { type: 'delete', key, rangeEnd: prefixEnd(key) },
  ];
}

/** The sizes between those that are kept. */
function allUsagesBut(owner: string, ids: readonly string[]): readonly Operation[] {
  const prefix = keys.quotaUsages(owner);
  const kept = ids.map((id) => keys.quotaUsage(owner, id)).toSorted((a, b) => (a < b ? -1 : 1));
  const ends = [...kept, prefixEnd(prefix)];
  return ends.map((rangeEnd, index) => {
    const before = kept[index - 1];
    return { type: 'delete', key: before === undefined ? prefix : `${before}\0`, rangeEnd };
  });
}

function unlessMissing(error: unknown): void {
  if (!(error instanceof QuorateError && error.code === 'not-found')) throw error;
}

function isOf(quota: ScopedQuota, scope: QuotaScope): boolean {
  if ('owner' in scope) return 'owner' in quota && quota.owner === scope.owner;
  return 'repositoryId' in quota && quota.repositoryId === scope.repositoryId;
}

/** A repository's quota is part of its owner's, where that has one; that of a repository that is gone promises nothing. */
function sumOf(quotas: readonly ScopedQuota[]): number {
  const owners = new Set(quotas.flatMap((quota) => ('owner' in quota ? [quota.owner] : [])));
  return quotas
    .filter(
      (quota) => 'owner' in quota || (quota.name !== undefined && !owners.has(ownerOf(quota.name))),
    )
    .reduce((sum, { bytes }) => sum + bytes, 0);
}
