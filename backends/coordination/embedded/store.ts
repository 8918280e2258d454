import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Database, open, type RootDatabase } from 'lmdb';
import type { KeyValue, LeaseId } from '../../contract/coordinator.js';
import type { Logger } from '../../contract/environment.js';
import { asQuorateError, QuorateError } from '../../contract/errors.js';
import { checkStoreFile } from './file-check.js';
import { type Ownership, takeOwnership } from './owner-lock.js';
import { ReadCache } from './read-cache.js';
import { type Entry, parseRecord, writeRecord } from './record.js';

/**
 * Address space reserved for the map; the file grows only as it is used. At 1 KB for each repository this holds some
 * ten million of them. A full map fails the commit like a full disk.
 */
const mapSizeBytes = 16 * 2 ** 30;

const formatName = 'quorate-coordinator';
const formatVersion = 1;
/** As lmdb-js writes the names of databases: C strings. */
const databaseNames = ['meta\0', 'keys\0', 'leased\0'];

type Bytes = Database<Buffer, Buffer>;

export interface StoredRange {
  readonly entries: readonly KeyValue[];
  readonly more: boolean;
  readonly revision: number;
}

export interface RangeBounds {
  readonly key: string;
  readonly rangeEnd?: string | undefined;
  readonly limit?: number | undefined;
}

/**
 * The LMDB environment: three databases. `meta` has the format and the revision, `keys` a record for each key,
 * `leased` a `lease NUL key` for each key that hangs on a lease.
 *
 * Durability: opened with `overlappingSync: false`, LMDB's own order: data pages, fdatasync, then the meta page through
 * a descriptor with O_DSYNC, and only then does anyone see the commit and is its promise resolved (checked with
 * strace). So reads can never show what is not durable, and no second wait for `flushed` is needed.
 */
export class Store {
  readonly #ownership: Ownership;
  readonly #root: RootDatabase<Buffer, Buffer>;
  readonly #meta: Bytes;
  readonly #keys: Bytes;
  readonly #leased: Bytes;
  readonly #cache = new ReadCache();
  /** Of the last commit; undefined while one runs. */
  #revision: number | undefined;
  #committing = false;

  private constructor(root: RootDatabase<Buffer, Buffer>, ownership: Ownership) {
    this.#ownership = ownership;
    const binary = { encoding: 'binary', keyEncoding: 'binary' } as const;
    this.#root = root;
    this.#meta = root.openDB<Buffer, Buffer>('meta', binary);
    this.#keys = root.openDB<Buffer, Buffer>('keys', binary);
    this.#leased = root.openDB<Buffer, Buffer>('leased', binary);
  }

  /** Opens or creates the store and verifies every record. Throws `data-corrupt` with a reason. */
  static async open(directory: string, logger: Logger): Promise<Store> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const ownership = await takeOwnership(directory, logger);
    try {
      await checkStoreFile(join(directory, 'data.mdb'), logger);
      return await Store.#openChecked(directory, ownership);
    } catch (error) {
      ownership.release();
      throw error;
    }
  }

  static async #openChecked(directory: string, ownership: Ownership): Promise<Store> {
    const root = open<Buffer, Buffer>({
      path: directory,
      noSubdir: false,
      mapSize: mapSizeBytes,
      maxDbs: 4,
      encoding: 'binary',
      keyEncoding: 'binary',
      overlappingSync: false,
      // With it on, a failed commit also rejects a promise that nobody can reach; batching is done by our own queue.
      eventTurnBatching: false,
    });
    try {
      // Before our databases are made in it.
      for (const name of root.getKeys()) {
        if (!databaseNames.includes(name.toString())) throw foreign();
      }
      const store = new Store(root, ownership);
      await store.#checkFormat();
      store.#verify();
      return store;
    } catch (error) {
      await root.close();
      if (error instanceof QuorateError) throw error;
      throw new QuorateError('data-corrupt', "the coordinator's store cannot be read", {
        cause: error,
      });
    }
  }

  get revision(): number {
    if (this.#revision !== undefined) return this.#revision;
    const revision = this.#readRevision();
    if (!this.#committing) this.#revision = revision;
    return revision;
  }

  #readRevision(): number {
    const stored = this.#meta.get(Buffer.from('revision'));
    if (stored?.length !== 8) {
      throw new QuorateError('data-corrupt', "the coordinator's store has no revision");
    }
    return Number(stored.readBigUInt64BE());
  }

  /** What it returns is shared, and must not be changed. */
  get(key: string): KeyValue | undefined {
    const known = this.#cache.get(key);
    if (known !== undefined) return known;
    if (this.#cache.isAbsent(key)) return undefined;
    const id = Buffer.from(key);
    const record = this.#keys.get(id);
    if (record === undefined) {
      this.#cache.keepAbsent(key);
      return undefined;
    }
    const entry = parseRecord(id, record);
    this.#cache.keep(entry);
    return entry;
  }

  /**
   * Entries and revision of one snapshot: lmdb-js answers all reads of one synchronous stretch from one read
   * transaction. Inside a commit they see its writes.
   */
  range(bounds: RangeBounds): StoredRange {
    const revision = this.revision;
    const entries: KeyValue[] = [];
    const limit = bounds.limit ?? Number.POSITIVE_INFINITY;
    const start = Buffer.from(bounds.key);
    const end = Buffer.from(bounds.rangeEnd ?? `${bounds.key}\0`);
    if (Buffer.compare(start, end) >= 0) return { entries, more: false, revision };
    for (const { key, value } of this.#keys.getRange({ start, end })) {
      if (entries.length === limit) return { entries, more: true, revision };
      entries.push(parseRecord(key, value));
    }
    return { entries, more: false, revision };
  }

  /**
   * Runs `work`, whose writes become durable together or not at all; a throw undoes them. Resolves when they are
   * durable; one commit at a time. Rejects with what `work` threw, with `unavailable` when the disk refused (nothing happened), or with
   * `outcome-unknown`, after which the store must not be used.
   */
  async commit<T>(work: () => T): Promise<T> {
    let thrown: { readonly error: unknown } | undefined;
    this.#revision = undefined;
    this.#committing = true;
    try {
      const result = await this.#root.childTransaction(() => {
        try {
          return work();
        } catch (error) {
          thrown = { error };
          throw error;
        }
      });
      // lmdb-js may renew its read transaction a microtask after it resolves: too late for whoever reads next.
      this.#root.resetReadTxn();
      return result;
    } catch (error) {
      if (thrown !== undefined) throw thrown.error;
      throw await this.#explainFailure(error);
    } finally {
      this.#committing = false;
      this.#cache.settled();
    }
  }

  async #explainFailure(error: unknown): Promise<QuorateError> {
    const cause = await commitCause(error);
    try {
      // After a failed write of the meta page LMDB refuses every further transaction; then the disk may show either
      // state at the next start. An empty transaction writes nothing, so it succeeds on a full disk.
      await this.#root.childTransaction(() => undefined);
    } catch {
      return new QuorateError('outcome-unknown', "the coordinator's disk failed while committing", {
        cause,
      });
    }
    return new QuorateError('unavailable', "the coordinator's disk is full or failing", { cause });
  }

  put(key: string, entry: Entry): void {
    const id = Buffer.from(key);
    this.#cache.written(key);
    this.#keys.putSync(id, writeRecord(id, entry));
    if (entry.lease !== undefined) this.#leased.putSync(leasedKey(entry.lease, key), empty);
  }

  delete(key: string): void {
    this.#cache.written(key);
    this.#keys.removeSync(Buffer.from(key));
  }

  detach(lease: LeaseId, key: string): void {
    this.#leased.removeSync(leasedKey(lease, key));
  }

  setRevision(revision: number): void {
    const stored = Buffer.alloc(8);
    stored.writeBigUInt64BE(BigInt(revision));
    this.#meta.putSync(Buffer.from('revision'), stored);
  }

  /** Keys that hang on this lease, or on any. */
  leasedKeys(lease?: LeaseId): readonly { readonly lease: LeaseId; readonly key: string }[] {
    const bounds =
      lease === undefined
        ? {}
        : { start: Buffer.from(`${lease}\0`), end: Buffer.from(`${lease}\u0001`) };
    const found: { lease: LeaseId; key: string }[] = [];
    for (const id of this.#leased.getKeys(bounds)) {
      const cut = id.indexOf(0);
      found.push({ lease: id.toString('latin1', 0, cut), key: id.toString('utf8', cut + 1) });
    }
    return found;
  }

  async close(): Promise<void> {
    await this.#root.close();
    this.#ownership.release();
  }

  async #checkFormat(): Promise<void> {
    const stored = this.#meta.get(Buffer.from('format'));
    if (stored === undefined) {
      const format = { name: formatName, version: formatVersion, id: randomUUID() };
      await this.commit(() => {
        this.#meta.putSync(Buffer.from('format'), Buffer.from(JSON.stringify(format)));
        this.setRevision(1);
      });
      return;
    }
    const format: unknown = JSON.parse(stored.toString());
    const known =
      typeof format === 'object' && format !== null && 'name' in format && 'version' in format;
    if (!known || format.name !== formatName) {
      throw new QuorateError('data-corrupt', 'this LMDB store belongs to another program');
    }
    if (format.version !== formatVersion) {
      throw new QuorateError(
        'failed-precondition',
        `the coordinator's store has format ${String(format.version)}; this version of Quorate reads format ${formatVersion}`,
      );
    }
  }

  /** Reads all of it: 0.7 million entries a second. Damage is better found before anything is served. */
  #verify(): void {
    const revision = this.revision;
    for (const { key, value } of this.#keys.getRange({})) {
      const entry = parseRecord(key, value);
      if (entry.modRevision > revision || entry.createRevision > entry.modRevision) {
        throw new QuorateError(
          'data-corrupt',
          "the coordinator's store has an entry of the future",
          { details: { key: entry.key, modRevision: entry.modRevision, revision } },
        );
      }
    }
  }
}

const empty = Buffer.alloc(0);

function foreign(): QuorateError {
  return new QuorateError('data-corrupt', 'this LMDB store belongs to another program');
}

/** Lease ids hold no NUL, so the first one ends the id. */
function leasedKey(lease: LeaseId, key: string): Buffer {
  return Buffer.from(`${lease}\0${key}`);
}

/** lmdb-js says only "Commit failed" and keeps the system's error in a promise beside it. */
async function commitCause(error: unknown): Promise<QuorateError> {
  if (!(error instanceof Error) || !('commitError' in error)) return asQuorateError(error);
  try {
    await error.commitError;
    return asQuorateError(error);
  } catch (cause) {
    return asQuorateError(cause);
  }
}
