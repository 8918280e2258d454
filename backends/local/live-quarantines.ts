import { join } from 'node:path';
import type { Clock } from '../contract/environment.js';
import type { QuarantineKey } from '../contract/replica.js';
import type { IndexedPack } from '../git/pack-indexer.js';
import { packDirectoryOf } from './quarantine.js';
import type { Store } from './store.js';

/** A push between its upload (or, without objects, its judgement) and the end of its fate. */
export interface LiveQuarantine {
  readonly key: QuarantineKey;
  /** Monotonic time of the last step of its push; never while its upload runs. */
  touchedMs: number;
  /** Ends the push's stay in the prune gate. */
  leaveGate: () => void;
  /** Found at the start: it may be prepared, and is in no gate. */
  readonly left?: true;
  /** What the upload found out about completeness; lost with the process, which only costs a walk. */
  indexed?: IndexedPack;
}

/** The pushes whose objects are on this disk and whose fate is not settled. */
export class LiveQuarantines {
  readonly #clock: Clock;
  readonly #store: Store;
  /** By repository and push id. */
  readonly #live = new Map<string, LiveQuarantine>();

  constructor(clock: Clock, store: Store) {
    this.#clock = clock;
    this.#store = store;
  }

  get size(): number {
    return this.#live.size;
  }

  get keys(): readonly QuarantineKey[] {
    return [...this.#live.values()].map(({ key }) => key);
  }

  /** Those of pushes that did nothing for so long. */
  idle(idleMs: number): readonly QuarantineKey[] {
    const beforeMs = this.#clock.monotonicMs() - idleMs;
    return [...this.#live.values()]
      .filter(({ touchedMs }) => touchedMs < beforeMs)
      .map(({ key }) => key);
  }

  of(repositoryId: string): readonly QuarantineKey[] {
    return this.keys.filter((key) => key.repositoryId === repositoryId);
  }

  find(repositoryId: string, pushId: string): LiveQuarantine | undefined {
    return this.#live.get(`${repositoryId} ${pushId}`);
  }

  /** Whether an earlier process may have judged a push by what is here, whose fate is not settled yet. */
  isLeft(repositoryId: string): boolean {
    for (const { key, left } of this.#live.values()) {
      if (left === true && key.repositoryId === repositoryId) return true;
    }
    return false;
  }

  /** Paths of the packs in a quarantine, where its upload is remembered. */
  packsOf(key: QuarantineKey): readonly string[] | undefined {
    const files = this.find(key.repositoryId, key.pushId)?.indexed?.files;
    const directory = packDirectoryOf(this.#store.quarantineDirectory(key));
    return files?.map((name) => join(directory, name));
  }

  /** The quarantine, new or known; its push does something now. */
  remember(key: QuarantineKey, found: { readonly left?: true } = {}): LiveQuarantine {
    const name = `${key.repositoryId} ${key.pushId}`;
    const touchedMs = this.#clock.monotonicMs();
    const live = this.#live.get(name) ?? {
      key,
      touchedMs,
      leaveGate: () => undefined,
      ...found,
    };
    if (live.touchedMs < touchedMs) live.touchedMs = touchedMs;
    this.#live.set(name, live);
    return live;
  }

  forget(key: QuarantineKey): void {
    const name = `${key.repositoryId} ${key.pushId}`;
    this.#live.get(name)?.leaveGate();
    this.#live.delete(name);
  }
}
