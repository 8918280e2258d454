import type { KeyValue } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';

/** A key that was put, and the revision that it has at least for as long as it is there. */
export interface Witness {
  readonly key: string;
  readonly revision: number;
}

/** So many repositories may be deleted, or not have been there when a backup was made. */
const maxOwn = 8;

/**
 * What one process knows to be in the coordinator, by which an older copy is told that has gone past the revisions that
 * were seen: heads of repositories, which only ever get higher revisions, or go with their repository.
 */
export class Witnesses {
  /** By key, the latest last: put by this process, where each compared the one before. */
  readonly #own = new Map<string, Witness>();
  /** Was there when it was looked for last. */
  #settled: Witness | undefined;
  /** Seen since, by reading. */
  #noted: Witness | undefined;

  constructor(settled?: Witness) {
    this.#settled = settled;
  }

  /** What this process put last, and has not turned out to be deleted since. */
  get latest(): Witness | undefined {
    return [...this.#own.values()].at(-1);
  }

  /** What is remembered beyond the process. */
  get settled(): Witness | undefined {
    return this.#settled;
  }

  /** To be looked for: three at most. */
  get all(): readonly Witness[] {
    return [this.#settled, this.#noted, this.latest].filter((one) => one !== undefined);
  }

  put(witness: Witness): void {
    const { key } = witness;
    this.#own.delete(key);
    this.#own.set(key, witness);
    const [oldest] = this.#own.keys();
    if (this.#own.size > maxOwn && oldest !== undefined) this.#own.delete(oldest);
  }

  /** What an answer showed. An entry of the log was put together with a head. */
  note(entries: readonly KeyValue[]): void {
    for (const { key, modRevision: revision } of entries) {
      const head = headOf(key);
      if (head === undefined) continue;
      const known = this.#noted ?? this.#settled;
      if (known === undefined || revision > known.revision) this.#noted = { key: head, revision };
    }
  }

  /** All of these, which are to be of `all`, were there. */
  settle(found: readonly Witness[]): void {
    const [last] = found.toSorted((a, b) => b.revision - a.revision);
    if (last !== undefined) this.#settled = last;
    if (this.#noted !== undefined && found.includes(this.#noted)) this.#noted = undefined;
  }

  /** It is not there any more. */
  forget(witness: Witness): void {
    if (this.#own.get(witness.key) === witness) this.#own.delete(witness.key);
    if (this.#settled === witness) this.#settled = undefined;
    if (this.#noted === witness) this.#noted = undefined;
  }

  /** People have decided to go on from what is there. */
  clear(): void {
    this.#own.clear();
    this.#settled = undefined;
    this.#noted = undefined;
  }
}

/** The key of the head that was put with this key; undefined: none was. */
function headOf(key: string): string | undefined {
  if (key.startsWith(keys.heads)) return key;
  if (!key.startsWith(keys.allLogs)) return undefined;
  const [id = ''] = key.slice(keys.allLogs.length).split('/', 1);
  return keys.head(id);
}
