import type { KeyValue } from '../../contract/coordinator.js';

/** What every request reads: repositories, heads, users, tokens. 20,000 entries of 1 KB at most are some 30 MB. */
const maxEntries = 20_000;
/** Larger values are read rarely: parts of hooks, log entries. */
const maxValueBytes = 1024;
/** Rules, hooks, quotas that a repository does not have are asked for as often as those that it has. */
const maxAbsent = 20_000;
/** A longer key is no key of ours: somebody asks for long names. */
const maxAbsentKeyLength = 256;

/**
 * Entries as they were read lately. A key that the running commit writes is left out until the commit is settled: LMDB
 * may show a commit to one reader before its promise resolves, and nobody may see the old value after that.
 */
export class ReadCache {
  readonly #entries = new Map<string, KeyValue>();
  readonly #absent = new Set<string>();
  readonly #written = new Set<string>();

  get(key: string): KeyValue | undefined {
    return this.#entries.get(key);
  }

  keep(entry: KeyValue): void {
    if (entry.value.length > maxValueBytes || this.#written.has(entry.key)) return;
    // Starting afresh now and then is cheaper than keeping order at every read.
    if (this.#entries.size >= maxEntries) this.#entries.clear();
    this.#entries.set(entry.key, entry);
  }

  /** There was no such key when it was read lately. */
  isAbsent(key: string): boolean {
    return this.#absent.has(key);
  }

  keepAbsent(key: string): void {
    if (key.length > maxAbsentKeyLength || this.#written.has(key)) return;
    if (this.#absent.size >= maxAbsent) this.#absent.clear();
    this.#absent.add(key);
  }

  /** The running commit writes this key. */
  written(key: string): void {
    this.#entries.delete(key);
    this.#absent.delete(key);
    this.#written.add(key);
  }

  /** The commit is durable, or nothing of it happened. Commits come one at a time. */
  settled(): void {
    this.#written.clear();
  }
}
