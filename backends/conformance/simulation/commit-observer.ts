import type { WatchBatch } from '../../contract/coordinator.js';
import type { Head, Oid } from '../../contract/objects.js';

/** An entry of a push log at the moment in which it became true. Read without the implementation's own codecs. */
export interface ObservedEntry {
  readonly repositoryId: string;
  readonly generation: number;
  readonly pushId: string;
  readonly updates: readonly { readonly ref: string; readonly oldOid: Oid; readonly newOid: Oid }[];
  readonly updatesDigest: string | undefined;
  readonly newHead: Head | undefined;
  /** The generation that it follows, when that is not the one before: those in between are overruled. */
  readonly after: number | undefined;
  readonly prepared: readonly string[];
  readonly atMs: number;
}

export interface ObservedConfiguration {
  readonly state: string;
  readonly name: string;
  /** Store ids, with what was durably said of them (`down`, `stale`). */
  readonly voters: ReadonlyMap<string, string>;
  readonly learners: ReadonlyMap<string, string>;
  /** The object pool that it borrows from. */
  readonly pool: string | undefined;
  readonly readers: ReadonlyMap<string, string>;
  /** Names of the nodes that somebody asked for. */
  readonly target: readonly string[] | undefined;
}

/** How a repository began. */
export interface Birth {
  readonly atMs: number;
  /** 0, or 1 for a fork, which begins with the refs of its source. */
  readonly generation: number;
  readonly configuration: ObservedConfiguration;
}

/** Of an entry whose updates are too large for the log: by what they are found on the disks. */
export interface KeptUpdates {
  readonly repositoryId: string;
  readonly pushId: string;
  /** SHA-256 of the JSON form. */
  readonly updatesDigest: string;
}

interface Observers {
  readonly nowMs: () => number;
  readonly violation: (text: string) => void;
  /** What some store has kept durably; undefined: none has. */
  readonly keptUpdates: (kept: KeptUpdates) => ObservedEntry['updates'] | undefined;
  /** `before`: the configuration, without what the same transaction made of it. */
  readonly committed: (
    entry: ObservedEntry,
    configuration: ObservedConfiguration,
    before: ObservedConfiguration,
  ) => void;
  /** A repository is there from now on. */
  readonly born: (repositoryId: string, birth: Birth) => void;
  /** A living repository has other voters than before. */
  readonly revoted: (
    repositoryId: string,
    before: ObservedConfiguration,
    after: ObservedConfiguration,
  ) => void;
  /** An entry was removed from the log of a living repository. */
  readonly trimmed: (
    repositoryId: string,
    generation: number,
    configuration: ObservedConfiguration,
  ) => void;
}

/** Sits in the coordinator and writes down every commit, in the order in which they happened. */
export class CommitObserver {
  readonly entries = new Map<string, ObservedEntry[]>();
  readonly configurations = new Map<string, ObservedConfiguration>();
  /** In the order in which they came about. */
  readonly births = new Map<string, Birth>();
  readonly #observers: Observers;
  readonly #pushIds = new Set<string>();
  /** Set when the coordinator forgot what it knew: from then on the log is no witness. */
  rewound = false;

  constructor(observers: Observers) {
    this.#observers = observers;
  }

  see({ events }: WatchBatch): void {
    if (this.rewound) return;
    const heads = new Map<string, number>();
    const logged: ObservedEntry[] = [];
    const trimmed: { id: string; generation: number }[] = [];
    const before = new Map<string, ObservedConfiguration>();
    const born: string[] = [];
    for (const event of events) {
      const key = event.type === 'put' ? event.entry.key : event.key;
      const [kind = '', id = '', rest = ''] = key.split('/');
      if (event.type === 'delete') {
        if (kind === 'log') trimmed.push({ id, generation: Number(rest) });
        if (kind === 'repos') this.configurations.delete(id);
        continue;
      }
      if (kind !== 'heads' && kind !== 'log' && kind !== 'repos') continue;
      const value = parse(event.entry.value);
      if (kind === 'heads') heads.set(id, numberOf(value['generation']));
      if (kind === 'log') logged.push(this.#entry(id, value));
      if (kind !== 'repos') continue;
      const configuration = this.configurations.get(id);
      if (configuration !== undefined && !before.has(id)) before.set(id, configuration);
      if (this.#configure(id, configurationOf(value))) born.push(id);
    }
    for (const id of born) this.#bear(id, heads.get(id));
    for (const entry of logged) this.#commit(entry, before.get(entry.repositoryId));
    for (const [id, generation] of heads) this.#checkHead(id, generation);
    for (const { id, generation } of trimmed) {
      const configuration = this.configurations.get(id);
      if (configuration?.state !== 'active') continue;
      // What is overruled goes with the entry that overrules it.
      const overruled = logged.some(
        (entry) => entry.repositoryId === id && (entry.after ?? Infinity) < generation,
      );
      if (!overruled) this.#observers.trimmed(id, generation, configuration);
    }
  }

  generationAt(repositoryId: string, atMs: number): number {
    const entries = this.entries.get(repositoryId) ?? [];
    let generation = this.births.get(repositoryId)?.generation ?? 0;
    for (const entry of entries) if (entry.atMs <= atMs) generation = entry.generation;
    return generation;
  }

  #bear(id: string, generation: number | undefined): void {
    const configuration = this.configurations.get(id);
    if (configuration === undefined) return;
    const expected = configuration.pool === undefined ? 0 : 1;
    if (generation !== expected) {
      this.#observers.violation(`a repository begins at generation ${generation}, not ${expected}`);
    }
    const birth = { atMs: this.#observers.nowMs(), generation: expected, configuration };
    this.births.set(id, birth);
    this.#observers.born(id, birth);
  }

  /** The generation of the newest entry, or with which it began. */
  newest(id: string): number {
    return this.entries.get(id)?.at(-1)?.generation ?? this.births.get(id)?.generation ?? 0;
  }

  #commit(entry: ObservedEntry, before: ObservedConfiguration | undefined): void {
    const { violation, committed } = this.#observers;
    const entries = this.entries.get(entry.repositoryId) ?? [];
    this.entries.set(entry.repositoryId, entries);
    const expected = this.newest(entry.repositoryId) + 1;
    if (entry.generation !== expected) {
      violation(`entry ${entry.generation} of the log follows ${expected - 1}`);
    }
    if (this.#pushIds.has(entry.pushId)) violation(`push ${entry.pushId} was committed twice`);
    this.#pushIds.add(entry.pushId);
    entries.push(entry);
    const configuration = this.configurations.get(entry.repositoryId);
    if (configuration?.state !== 'active') {
      violation(`push ${entry.pushId} was committed to a repository that is not there`);
      return;
    }
    committed(entry, configuration, before ?? configuration);
  }

  /** True when it is there from now on. */
  #configure(id: string, after: ObservedConfiguration): boolean {
    const before = this.configurations.get(id);
    this.configurations.set(id, after);
    if (after.state !== 'active') return false;
    if (before?.state !== 'active') return true;
    const same = [...before.voters.keys()].join() === [...after.voters.keys()].join();
    if (!same) this.#observers.revoted(id, before, after);
    return false;
  }

  #checkHead(id: string, generation: number): void {
    const last = this.newest(id);
    if (generation !== last) {
      this.#observers.violation(`the head went to ${generation}, the log to ${last}`);
    }
  }

  #entry(repositoryId: string, value: Readonly<Record<string, unknown>>): ObservedEntry {
    const head = recordOf(recordOf(value['head'])['new']);
    const pushId = textOf(value['pushId']);
    const updatesDigest =
      value['updatesDigest'] === undefined ? undefined : textOf(value['updatesDigest']);
    const updates =
      updatesDigest === undefined
        ? updatesOf(value['updates'])
        : this.#observers.keptUpdates({ repositoryId, pushId, updatesDigest });
    if (updates === undefined) {
      this.#observers.violation(`push ${pushId} is committed, and no store has its updates`);
    }
    return {
      repositoryId,
      generation: numberOf(value['generation']),
      pushId,
      updates: updates ?? [],
      updatesDigest,
      newHead: head['symref'] === undefined ? undefined : { symref: textOf(head['symref']) },
      after:
        value['after'] === undefined ? undefined : numberOf(recordOf(value['after'])['generation']),
      prepared: Array.isArray(value['prepared']) ? value['prepared'].map(textOf) : [],
      atMs: this.#observers.nowMs(),
    };
  }
}

/** Read from JSON. */
export function updatesOf(list: unknown): ObservedEntry['updates'] {
  const updates = Array.isArray(list) ? list : [];
  return updates.map(recordOf).map((update) => ({
    ref: textOf(update['ref']),
    oldOid: textOf(update['oldOid']),
    newOid: textOf(update['newOid']),
  }));
}

function configurationOf(value: Readonly<Record<string, unknown>>): ObservedConfiguration {
  const storesOf = (list: unknown): ReadonlyMap<string, string> => {
    const voters = Array.isArray(list) ? list.map(recordOf) : [];
    return new Map(voters.map((voter) => [textOf(voter['storeId']), textOf(voter['state'])]));
  };
  return {
    state: textOf(value['state']),
    name: textOf(value['name']),
    voters: storesOf(value['voters']),
    learners: storesOf(value['learners']),
    readers: storesOf(value['readers']),
    pool: value['pool'] === undefined ? undefined : textOf(value['pool']),
    target: Array.isArray(value['target']) ? value['target'].map(textOf) : undefined,
  };
}

function parse(value: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    return recordOf(JSON.parse(Buffer.from(value).toString('utf8')));
  } catch {
    return {};
  }
}

export function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
    ? Object.fromEntries(Object.entries(value))
    : {};
}

export function numberOf(value: unknown): number {
  return typeof value === 'number' ? value : Number.NaN;
}

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
