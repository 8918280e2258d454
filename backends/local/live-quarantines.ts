import { join } from 'node:path';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { PrepareRequest, QuarantineKey } from '../contract/replica.js';
import type { IndexedPack } from '../git/pack-indexer.js';
import { removeTree } from '../git/repository-files.js';
import type { PruneGate } from './prune-gate.js';
import { packDirectoryOf, type PreparedMark } from './quarantine.js';
import type { Store } from './store.js';

/** A push between its upload (or, without objects, its judgement) and the end of its fate. */
export interface LiveQuarantine {
  readonly key: QuarantineKey;
  /** Monotonic time of the last step of its push; never while its upload runs. */
  touchedMs: number;
  /** How often its push did something in this process. */
  steps: number;
  /** Ends the push's stay in the prune gate. */
  leaveGate: () => void;
  /** Found at the start: it may be prepared, and is in no gate. */
  readonly left?: true;
  /** What the upload found out about completeness; lost with the process, which only costs a walk. */
  indexed?: IndexedPack;
  /** Resolves when the pack that came with a request has been taken, or is off the disk again. */
  arriving?: Promise<void>;
  /** It was asked to prepare under locks: a request without them that comes now is an earlier one. */
  locked?: true;
  /** Of a push that was prepared here without objects: it has no quarantine, and is marked when it gets one. */
  mark?: PreparedMark;
  /** Settles when the marks that were to be written are, one after the other. */
  marking?: Promise<void>;
  /** Resolves when a pack that was not synced at once is on disk. */
  synced?: Promise<void>;
  /** The spare quarantine in which its objects may be yet, before that gets the push's name. */
  spare?: string;
  /** Settles, and never rejects, when that has been tried; it is tried once, and not when its push is over. */
  named?: Promise<void>;
}

type QuarantinePlaces = Pick<Store, 'quarantineDirectory'> & {
  readonly spares: Pick<Store['spares'], 'forget'>;
};

/** The pushes whose objects are on this disk and whose fate is not settled. */
export class LiveQuarantines {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #store: QuarantinePlaces;
  /** By repository and push id. */
  readonly #live = new Map<string, LiveQuarantine>();
  /** By repository and push id: what is on its way off the disk. */
  readonly #removals = new Map<string, Promise<void>>();

  constructor(clock: Pick<Clock, 'monotonicMs'>, store: QuarantinePlaces) {
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

  /** Those that an earlier process left, and whose pushes have not gone on in this one. */
  get left(): readonly QuarantineKey[] {
    return [...this.#live.values()]
      .filter(({ left, steps }) => left === true && steps === 0)
      .map(({ key }) => key);
  }

  of(repositoryId: string): readonly QuarantineKey[] {
    return this.keys.filter((key) => key.repositoryId === repositoryId);
  }

  find(repositoryId: string, pushId: string): LiveQuarantine | undefined {
    return this.#live.get(nameOf({ repositoryId, pushId }));
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
    const name = nameOf(key);
    const touchedMs = this.#clock.monotonicMs();
    const live = this.#live.get(name) ?? {
      key,
      touchedMs,
      steps: 0,
      leaveGate: () => undefined,
      ...found,
    };
    if (found.left !== true) live.steps++;
    if (live.touchedMs < touchedMs) live.touchedMs = touchedMs;
    this.#live.set(name, live);
    return live;
  }

  /** Its push goes on, if it is known. */
  keep(key: QuarantineKey): void {
    if (this.find(key.repositoryId, key.pushId) !== undefined) this.remember(key);
  }

  /**
   * Its push is judged from now on, and nothing pruned until its refs are written. A request may come twice, and its
   * push be over by then: it is in the gate once at most, and not for ever.
   */
  async enterGate(live: LiveQuarantine, gate: Pick<PruneGate, 'enter'>): Promise<void> {
    live.leaveGate();
    const leave = await gate.enter();
    live.leaveGate();
    live.leaveGate = leave;
    if (this.#live.get(nameOf(live.key)) !== live) leave();
  }

  forget(key: QuarantineKey): void {
    const name = nameOf(key);
    this.#live.get(name)?.leaveGate();
    this.#live.delete(name);
  }

  /** Forgets it, and takes it off the disk. When that fails it is known again. */
  async remove(key: QuarantineKey): Promise<void> {
    const name = nameOf(key);
    const live = this.#live.get(name);
    this.forget(key);
    const directory = this.#store.quarantineDirectory(key);
    this.#store.spares.forget(directory);
    const removal = removeFiles(live, directory);
    this.#removals.set(name, removal);
    try {
      await removal;
    } catch (error) {
      // It is on the disk still, in part at least: it is settled with those that lie idle, or goes with its copy.
      this.#remain(key);
      throw error;
    } finally {
      if (this.#removals.get(name) === removal) this.#removals.delete(name);
    }
  }

  #remain(key: QuarantineKey): void {
    const name = nameOf(key);
    if (this.#live.has(name)) return;
    const touchedMs = this.#clock.monotonicMs();
    this.#live.set(name, { key, touchedMs, steps: 0, leaveGate: nothing });
  }

  /** Resolves when nothing of it is on its way off the disk: who looks into it sees what stays. */
  async removed(key: QuarantineKey): Promise<void> {
    await this.#removals.get(nameOf(key))?.catch(() => undefined);
  }
}

function nameOf({ repositoryId, pushId }: Pick<QuarantineKey, 'repositoryId' | 'pushId'>): string {
  return `${repositoryId} ${pushId}`;
}

const nothing = (): void => undefined;

/** Whatever its push does now gets no place any more: nobody would remove that. */
async function removeFiles(live: LiveQuarantine | undefined, directory: string): Promise<void> {
  if (live === undefined) return removeTree(directory);
  live.named ??= Promise.resolve();
  await live.named;
  try {
    await removeTree(directory);
  } finally {
    if (live.spare !== undefined) await removeTree(live.spare);
  }
}

/** What `inTurn` says of marks holds for one that is only noted, too. */
export function noteMark(live: LiveQuarantine, mark: PreparedMark): void {
  if (mark.headRevision === undefined) live.locked = true;
  else if (live.locked === true) return;
  live.mark = mark;
}

/**
 * Marks a quarantine as prepared, one mark after the other. A push that went without locks goes on with them: by the
 * time that this is asked for, the other mark is void, and is not put any more.
 */
export async function inTurn<T>(
  live: LiveQuarantine,
  { headRevision }: Pick<PrepareRequest, 'headRevision'>,
  mark: () => Promise<T>,
): Promise<T> {
  if (headRevision === undefined) live.locked = true;
  const before = live.marking;
  const marked = (async () => {
    if (before !== undefined) await before;
    if (headRevision !== undefined && live.locked === true) {
      throw new QuorateError('aborted', 'the push has gone on under locks');
    }
    return mark();
  })();
  live.marking = marked.then(nothing, nothing);
  return marked;
}
