import type { Coordinator, KeyValue, Operation } from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';
import {
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

/**
 * Quotas in the coordinator. Errors: `not-found`, `failed-precondition` (more would be promised than may be),
 * `aborted` (others change quotas at the same time), `data-corrupt`.
 */
export interface QuotaStore {
  get(scope: QuotaScope): Promise<Quota | undefined>;
  /** Refuses to promise more than the disk may be overcommitted; lowering is never refused. */
  set(scope: QuotaScope, bytes: number): Promise<Quota>;
  remove(scope: QuotaScope): Promise<void>;
  list(): Promise<readonly ScopedQuota[]>;
  promised(): Promise<Promised>;
  /** When a repository's id changes, which is so on the directory backend only. */
  move(from: string, to: string): Promise<void>;
  /** That of a repository that is gone, if it had one. */
  forget(repositoryId: string): Promise<void>;
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

  remove(scope: QuotaScope): Promise<void> {
    return this.#change(async () => {
      if ((await this.get(scope)) === undefined) {
        throw new QuorateError('not-found', 'there is no such quota');
      }
      return { operations: [{ type: 'delete', key: keyOf(scope) }], result: undefined };
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

  async move(from: string, to: string): Promise<void> {
    const quota = await this.get({ repositoryId: from });
    if (quota === undefined) return;
    await this.#change(async () => ({
      operations: [
        { type: 'delete', key: keyOf({ repositoryId: from }) },
        { type: 'put', key: keyOf({ repositoryId: to }), value: encode(quota) },
      ],
      result: undefined,
    }));
  }

  async forget(repositoryId: string): Promise<void> {
    if ((await this.get({ repositoryId })) === undefined) return;
    await this.#change(async () => ({
      operations: [{ type: 'delete', key: keyOf({ repositoryId }) }],
      result: undefined,
    }));
  }

  /** With the change: two that are judged at the same time could promise too much together. */
  async #change<T>(
    decide: () => Promise<{ readonly operations: readonly Operation[]; readonly result: T }>,
  ): Promise<T> {
    const { coordinator } = this.#options;
    const key = keys.quotaRevision;
    for (let race = 0; race < maxRaces; race += 1) {
      const before = await coordinator.get(key);
      const { operations, result } = await decide();
      const { succeeded } = await coordinator.transaction({
        binding: true,
        compares: [{ key, target: 'modRevision', op: '=', operand: before?.modRevision ?? 0 }],
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
