import { availableParallelism, totalmem } from 'node:os';
import type { Logger, Meter } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { GitRunner } from './git-runner.js';
import { syncAll, takeFileSteps, type TakeFileSteps } from './file-steps.js';
import {
  emptyDirectory,
  indexPackWithGit,
  type IndexPackRun,
  objectTooLarge,
  storageProblem,
} from './index-pack.js';
import { isEmptyPack } from './libgit2/pack-format.js';
import { startLibgit2Pool, type Libgit2Pool } from './libgit2/worker-pool.js';
import { PackSource } from './pack-source.js';
import { Slots } from './spawner/slots.js';
import { progressLines } from './progress-lines.js';
import type { IndexedPack, IndexPackRequest, PackIndexer } from './pack-indexer.js';

export interface PackIndexerOptions {
  /** May start while the workers do. */
  readonly git: GitRunner | Promise<GitRunner>;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly files?: TakeFileSteps;
  /** Memory that git may take to index one pack; 0 or absent: a quarter of the machine's, from 1 to 4 GiB. */
  readonly gitMemoryBytes?: number;
  /** libgit2 worker processes. 0: git does everything. Default: 2, or 1 on a single core. */
  readonly workers?: number;
  /** Packs up to this size go to libgit2; larger ones, which git indexes faster and smaller, to git. */
  readonly smallPackBytes?: number;
  /** Names to look for libgit2 under, in order. For tests. */
  readonly libraryNames?: readonly string[];
  /** Longest that libgit2 may work on one pack. */
  readonly workerTimeoutMs?: number;
}

const MIB = 1024 ** 2;
/** Measured: libgit2 takes half of git's CPU up to 100 KB, 0.8 of it at 2 MB, and 1.2 times as much at 12 MB. */
const SMALL_PACK_BYTES = 4 * MIB;
/** Packs held in memory by all requests together; a request that finds no room goes to git, which needs none. */
const BUFFER_BUDGET_BYTES = 64 * MIB;
/** A small pack takes milliseconds. One that takes this long was made to. */
const WORKER_TIMEOUT_MS = 20_000;
/**
 * Private memory of a worker beyond Node's own. A delta needs its base and its result at once: this allows
 * both far above what the worker vouches for (objects of 64 MiB), and no inflation bomb.
 */
const WORKER_MEMORY_BYTES = 512 * MIB;
/** What git itself takes on four cores. Measured: more cost CPU and save no time. */
const MAX_GIT_THREADS = 3;
/** Since it took the last piece of a pack: deltas of tens of gigabytes. How long a pack may be on its way is the sender's to know. */
const GIT_TIMEOUT_MS = 3_600_000;
/**
 * A large pack may have a delta's base and result, at git's own limit for deltas (core.bigFileThreshold, 512 MiB), on
 * each of up to three threads, seldom at once, and caches of 96 MiB each. No push gets more than a part of the machine.
 */
const GIT_MEMORY_BYTES = Math.min(4096 * MIB, Math.max(1024 * MIB, totalmem() / 4));
/** What an administrator raises. */
const memorySetting = 'limits.indexMemory';
/**
 * A small pack that libgit2 would not vouch for may be a bomb of kilobytes. One thread, and memory for one such pair;
 * and since the pack is here already, no client sets the pace, so that few at once suffice for all.
 */
const SMALL_PACK_GIT_MEMORY_BYTES = 1280 * MIB;
const SMALL_PACK_GITS = Math.max(2, Math.min(4, availableParallelism()));
/** Waiting for such a place. Their packs are within the budget of buffered bytes. */
const MAX_WAITING_FOR_GIT = 1_000;
/** Room for the worst honest small pack (4 GiB of zeros), and no more. */
const SMALL_PACK_GIT_TIMEOUT_MS = 120_000;

/**
 * Starts the workers. Without libgit2 it still serves, with git alone, and `description` says so. Rejects as `git`
 * does.
 */
export async function createPackIndexer(options: PackIndexerOptions): Promise<PackIndexer> {
  const starting = startWorkers(options);
  const git = await Promise.resolve(options.git).catch(async (error: unknown) => {
    await (await starting)?.close();
    throw error;
  });
  const indexer = new RoutingIndexer({ ...options, git }, await starting);
  options.meter.gauge('queue_depth', { queue: 'libgit2' }, () => indexer.queued);
  return indexer;
}

async function startWorkers(options: PackIndexerOptions): Promise<Libgit2Pool | undefined> {
  const workers = options.workers ?? Math.min(2, availableParallelism());
  if (workers === 0) return undefined;
  const pool = await startLibgit2Pool({
    workers,
    logger: options.logger,
    jobTimeoutMs: options.workerTimeoutMs ?? WORKER_TIMEOUT_MS,
    configuration: {
      memoryLimitBytes: WORKER_MEMORY_BYTES,
      ...(options.libraryNames === undefined ? {} : { libraryNames: options.libraryNames }),
    },
  });
  if (pool === undefined) {
    options.logger.warn({ component: 'libgit2' }, 'libgit2 not found: git indexes every pack');
  }
  return pool;
}

type RoutingOptions = PackIndexerOptions & { readonly git: GitRunner };

class RoutingIndexer implements PackIndexer {
  readonly description: string;
  readonly #options: RoutingOptions;
  readonly #pool: Libgit2Pool | undefined;
  readonly #smallPackBytes: number;
  readonly #gitMemoryBytes: number;
  readonly #smallPackGits = new Slots(SMALL_PACK_GITS, MAX_WAITING_FOR_GIT);
  #bufferedBytes = 0;

  constructor(options: RoutingOptions, pool: Libgit2Pool | undefined) {
    this.#options = options;
    this.#pool = pool;
    this.#smallPackBytes = options.smallPackBytes ?? SMALL_PACK_BYTES;
    this.#gitMemoryBytes = options.gitMemoryBytes || GIT_MEMORY_BYTES;
    const { version } = options.git;
    this.description =
      pool === undefined
        ? `git ${version} (libgit2 ${options.workers === 0 ? 'off' : 'not found'})`
        : `libgit2 ${pool.version} + git ${version}`;
  }

  get queued(): number {
    return this.#pool?.queued ?? 0;
  }

  async index(request: IndexPackRequest): Promise<IndexedPack> {
    const source = new PackSource(request.pack, request.maxPackBytes, request.signal);
    const held = { bytes: 0 };
    try {
      const indexed = await this.#route(request, source, held);
      if (indexed.name === undefined) await emptyDirectory(request.quarantinePackDir);
      this.#count(indexed.engine, 'ok');
      return indexed;
    } catch (error) {
      await emptyDirectory(request.quarantinePackDir).catch(() => {});
      this.#count('git', 'refused');
      throw await this.#typed(error, request, source);
    } finally {
      this.#release(held);
      source.stop();
    }
  }

  async close(): Promise<void> {
    await this.#pool?.close();
  }

  async #route(
    request: IndexPackRequest,
    source: PackSource,
    held: { bytes: number },
  ): Promise<IndexedPack> {
    const whole = await this.#bufferWhole(source, held);
    if (whole === undefined) {
      this.#release(held);
      return this.#byGit(request, source, {
        threads: Math.min(MAX_GIT_THREADS, availableParallelism()),
        memoryLimitBytes: this.#gitMemoryBytes,
        memoryLimitName: memorySetting,
        timeoutMs: GIT_TIMEOUT_MS,
      });
    }
    if (isEmptyPack(whole, request.objectFormat)) {
      const engine = this.#pool === undefined ? 'git' : 'libgit2';
      return { name: undefined, objectCount: 0, sizeBytes: 0, engine };
    }
    const byLibgit2 = await this.#byLibgit2(request, whole);
    if (byLibgit2 !== undefined) return byLibgit2;
    source.unread([whole]);
    await this.#smallPackGits.take(request.signal);
    try {
      return await this.#byGit(request, source, {
        threads: 1,
        ...this.#smallPackMemory(),
        timeoutMs: SMALL_PACK_GIT_TIMEOUT_MS,
      });
    } finally {
      this.#smallPackGits.release();
    }
  }

  #smallPackMemory(): Pick<IndexPackRun, 'memoryLimitBytes' | 'memoryLimitName'> {
    const [bytes, most] = [this.#gitMemoryBytes, SMALL_PACK_GIT_MEMORY_BYTES];
    if (bytes < most) return { memoryLimitBytes: bytes, memoryLimitName: memorySetting };
    const name = `of a pack of up to ${Math.floor(this.#smallPackBytes / MIB)} MiB, which no setting raises`;
    return { memoryLimitBytes: most, memoryLimitName: name };
  }

  /** The whole pack when it is small; else undefined, and the source gives all of it again. */
  async #bufferWhole(source: PackSource, held: { bytes: number }): Promise<Buffer | undefined> {
    const chunks: Uint8Array[] = [];
    for (;;) {
      const chunk = await source.next();
      if (chunk === undefined) return Buffer.concat(chunks);
      chunks.push(chunk);
      held.bytes += chunk.byteLength;
      this.#bufferedBytes += chunk.byteLength;
      if (source.sizeBytes > this.#smallPackBytes || this.#bufferedBytes > BUFFER_BUDGET_BYTES) {
        source.unread(chunks);
        return undefined;
      }
    }
  }

  #release(held: { bytes: number }): void {
    this.#bufferedBytes -= held.bytes;
    held.bytes = 0;
  }

  /** Undefined when git has to judge; the quarantine is empty then. */
  async #byLibgit2(request: IndexPackRequest, pack: Buffer): Promise<IndexedPack | undefined> {
    if (this.#pool === undefined || request.objectFormat !== 'sha1') return undefined;
    const verdict = await this.#pool.index({
      pack,
      quarantinePackDir: request.quarantinePackDir,
      objectsDir: request.objectsDir,
      maxObjectBytes: request.maxObjectBytes,
      fsck: request.fsck.enabled,
    });
    if (request.signal.aborted) throw new QuorateError('cancelled', 'the push was given up');
    switch (verdict.kind) {
      case 'indexed': {
        const { kind: _kind, ...indexed } = verdict;
        const directory = request.quarantinePackDir;
        const files = [`${indexed.name}.pack`, `${indexed.name}.idx`];
        const unsynced = [...files.map((name) => `${directory}/${name}`), directory];
        const taken = { ...indexed, files, engine: 'libgit2' } as const;
        if (request.syncsLater === true) return { ...taken, unsynced };
        // Side by side: the disk does them together, where a worker would wait for each.
        await syncAll(this.#options.files ?? takeFileSteps, unsynced);
        return taken;
      }
      case 'too-large':
        throw objectTooLarge(verdict.objectBytes, request.maxObjectBytes);
      case 'undecided':
        this.#options.logger.debug(
          { component: 'libgit2', reason: verdict.reason },
          'git judges a small pack',
        );
        await emptyDirectory(request.quarantinePackDir);
        this.#count('libgit2', 'undecided');
        return undefined;
    }
  }

  #byGit(
    request: IndexPackRequest,
    source: PackSource,
    bounds: Pick<IndexPackRun, 'threads' | 'memoryLimitBytes' | 'memoryLimitName' | 'timeoutMs'>,
  ): Promise<IndexedPack> {
    const { quarantinePackDir, objectsDir, objectFormat, maxObjectBytes, fsck, signal } = request;
    return indexPackWithGit({
      git: this.#options.git,
      source,
      quarantinePackDir,
      objectsDir,
      objectFormat,
      maxObjectBytes,
      fsck,
      signal,
      progress: progressLines(request.progress),
      ...bounds,
    });
  }

  async #typed(error: unknown, request: IndexPackRequest, source: PackSource): Promise<unknown> {
    if (error instanceof QuorateError) return error;
    // A failed system call: of the quarantine's disk, as it is the only one that was touched.
    return (await storageProblem(request.quarantinePackDir, source.sizeBytes)) ?? error;
  }

  #count(engine: 'libgit2' | 'git', outcome: string): void {
    this.#options.meter.count('packs_indexed', { engine, outcome });
  }
}
