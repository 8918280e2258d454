import type { Transaction } from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';
import type { PushContext } from '../../backends/contract/pipeline.js';
import {
  type Repository,
  repositoryIdOf,
  type RepositoryStats,
} from '../../backends/contract/repository.js';
import { asCoordinator, MemoryCoordinator } from '../../server/auth/memory-coordinator.fixture.js';
import { claimsSchema, decode } from './quota.js';
import { createQuotas, type Quotas } from './quotas.js';

/** Repositories that are only names and sizes. */
export class Ground {
  readonly memory: MemoryCoordinator;
  readonly sizes: Map<string, number>;
  readonly shared = new Map<string, { readonly sharedBytes: number; readonly sharedBy: number }>();
  readonly told: string[] = [];
  readonly counted: string[] = [];
  measured = 0;
  /** Repositories whose stores do not answer. */
  readonly away = new Set<string>();
  /** What happens before each transaction, but for those of its own. */
  before: (transaction: Transaction) => Promise<void> = () => Promise.resolve();
  nowMs = 1_000_000;
  diskBytes = 1000;
  /** What happens between a measurement and its answer. */
  measuring: () => Promise<void> = () => Promise.resolve();
  /** When who waits for a count goes on without: never. */
  late: Promise<void> = new Promise(() => undefined);
  readonly quotas: Quotas;

  /** Times that the sizes of all repositories of an owner were read. */
  readAll = 0;

  /** `beside`: another front-end of the same cluster. */
  constructor(options: { readonly overcommitPercent?: number; readonly beside?: Ground } = {}) {
    this.memory = options.beside?.memory ?? new MemoryCoordinator();
    this.sizes = options.beside?.sizes ?? new Map<string, number>();
    const clock: Clock = {
      nowMs: () => this.nowMs,
      monotonicMs: () => this.nowMs,
      sleep: () => this.late,
    };
    const log = { debug() {}, info() {}, warn() {}, error() {}, child: () => log };
    this.quotas = createQuotas({
      coordinator: {
        ...asCoordinator(this.memory),
        transaction: async (transaction) => {
          const { before } = this;
          this.before = () => Promise.resolve();
          try {
            await before(transaction);
          } finally {
            this.before = before;
          }
          return this.memory.transaction(transaction);
        },
        range: (key, range) => {
          if (key.startsWith('quotas/usage/') && range?.limit === undefined) this.readAll += 1;
          return this.memory.range(key, range);
        },
      },
      clock,
      logger: log,
      meter: {
        count: (_name, labels) => this.counted.push(labels?.['outcome'] ?? ''),
        observe: () => undefined,
        gauge: () => undefined,
      },
      repositories: () => ({
        get: async (name) => (this.sizes.has(name) ? repository(name) : undefined),
        list: async ({ prefix = '', after = '', limit }) =>
          [...this.sizes.keys()]
            .filter((name) => name.startsWith(prefix) && name > after)
            .sort()
            .slice(0, limit)
            .map(repository),
        stats: async (asked) => {
          const stats = this.#stats(repositoryIdOf(asked));
          await this.measuring();
          return stats;
        },
      }),
      repositoryName: async (id) => (this.sizes.has(nameOf(id)) ? nameOf(id) : undefined),
      diskBytes: async () => this.diskBytes,
      overcommitPercent: options.overcommitPercent ?? 100,
      warnPercent: 80,
    });
  }

  /** Judges a push of so many bytes; undefined: it may go on. */
  async judge(
    name: string,
    packBytes: number,
    pushId = 'push',
    signal = new AbortController().signal,
  ): Promise<string | undefined> {
    const context: PushContext = {
      repository: repository(name),
      pushId,
      actor: 'ann',
      pusher: { name: 'ann', groups: [] },
      pushOptions: [],
      commands: [],
      nonFastForwards: never,
      inspect: never,
      runHook: never,
      currentBranch: undefined,
      progress: (text) => this.told.push(Buffer.from(text).toString()),
      signal,
      packBytes,
    };
    return this.quotas.judge(context, await this.quotas.concerns(context.repository));
  }

  /** The push is over; `bytes` is what the repository holds then. */
  async settle(name: string, pushId: string, bytes?: number): Promise<void> {
    if (bytes !== undefined) this.sizes.set(name, bytes);
    const allowance = await this.quotas.allowance(repository(name));
    await allowance?.settle(pushId, bytes !== undefined);
  }

  /** What is kept for the sake of quotas, apart from these. */
  kept(): readonly string[] {
    return [...this.memory.entries.keys()]
      .filter((key) => /^quotas\/(usage|claims)\//.test(key))
      .toSorted();
  }

  /** Bytes that pushes of an owner's repositories claim. */
  claimed(owner: string): number {
    const stored = this.memory.entries.get(keys.quotaClaims(owner));
    const claims = stored === undefined ? {} : decode(claimsSchema, stored).claims;
    return Object.values(claims).reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Runs `slow`; `quick` begins and ends between what that measures first and the answer. */
  async whileMeasuring<T>(slow: () => Promise<T>, quick: () => Promise<void>): Promise<T> {
    this.measuring = async () => {
      this.measuring = () => Promise.resolve();
      await quick();
    };
    return slow();
  }

  #stats(id: string): RepositoryStats {
    this.measured += 1;
    if (this.away.has(nameOf(id))) throw new QuorateError('unavailable', 'no store answers');
    const sizeBytes = this.sizes.get(nameOf(id));
    if (sizeBytes === undefined) throw new QuorateError('not-found', 'gone');
    return {
      head: { symref: 'refs/heads/main' },
      generation: 1,
      refCount: 1,
      packCount: 1,
      looseObjectCount: 0,
      sizeBytes,
      ...(this.shared.get(nameOf(id)) ?? { sharedBytes: 0 }),
    };
  }
}

function never(): never {
  throw new Error('not part of this test');
}

const nameOf = (id: string): string => id.replace(/^id of /, '');

export function repository(name: string): Repository {
  return {
    id: `id of ${name}`,
    name,
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
    createdAtMs: 0,
    epoch: 1,
  };
}
