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
  readonly prepared: readonly string[];
  readonly atMs: number;
}

export interface ObservedConfiguration {
  readonly state: string;
  readonly name: string;
  /** Store ids, with what was durably said of them (`down`, `stale`). */
  readonly voters: ReadonlyMap<string, string>;
  readonly learners: ReadonlyMap<string, string>;
  readonly readers: ReadonlyMap<string, string>;
  /** Names of the nodes that somebody asked for. */
  readonly target: readonly string[] | undefined;
}

interface Observers {
  readonly nowMs: () => number;
  readonly violation: (text: string) => void;
  readonly committed: (entry: ObservedEntry, configuration: ObservedConfiguration) => void;
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
    for (const event of events) {
      const key = event.type === 'put' ? event.entry.key : event.key;
      const [kind = '', id = '', rest = ''] = key.split('/');
      if (event.type === 'delete') {
        if (kind === 'log') trimmed.push({ id, generation: Number(rest) });
        if (kind === 'repos') this.configurations.delete(id);
        continue;
      }
      const value = parse(event.entry.value);
      if (kind === 'heads') heads.set(id, numberOf(value['generation']));
      if (kind === 'log') logged.push(this.#entry(id, value));
      if (kind === 'repos') this.#configure(id, configurationOf(value));
    }
    for (const entry of logged) this.#commit(entry);
    for (const [id, generation] of heads) this.#checkHead(id, generation);
    for (const { id, generation } of trimmed) {
      const configuration = this.configurations.get(id);
      if (configuration?.state !== 'active') continue;
      this.#observers.trimmed(id, generation, configuration);
    }
  }

  generationAt(repositoryId: string, atMs: number): number {
    const entries = this.entries.get(repositoryId) ?? [];
    let generation = 0;
    for (const entry of entries) if (entry.atMs <= atMs) generation = entry.generation;
    return generation;
  }

  #commit(entry: ObservedEntry): void {
    const { violation, committed } = this.#observers;
    const entries = this.entries.get(entry.repositoryId) ?? [];
    this.entries.set(entry.repositoryId, entries);
    const expected = (entries.at(-1)?.generation ?? 0) + 1;
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
    committed(entry, configuration);
  }

  #configure(id: string, after: ObservedConfiguration): void {
    const before = this.configurations.get(id);
    this.configurations.set(id, after);
    if (before?.state !== 'active' || after.state !== 'active') return;
    const same = [...before.voters.keys()].join() === [...after.voters.keys()].join();
    if (!same) this.#observers.revoted(id, before, after);
  }

  #checkHead(id: string, generation: number): void {
    const last = this.entries.get(id)?.at(-1)?.generation ?? 0;
    if (generation !== last) {
      this.#observers.violation(`the head went to ${generation}, the log to ${last}`);
    }
  }

  #entry(repositoryId: string, value: Readonly<Record<string, unknown>>): ObservedEntry {
    const updates = Array.isArray(value['updates']) ? value['updates'] : [];
    const head = recordOf(recordOf(value['head'])['new']);
    return {
      repositoryId,
      generation: numberOf(value['generation']),
      pushId: textOf(value['pushId']),
      updates: updates.map(recordOf).map((update) => ({
        ref: textOf(update['ref']),
        oldOid: textOf(update['oldOid']),
        newOid: textOf(update['newOid']),
      })),
      updatesDigest:
        value['updatesDigest'] === undefined ? undefined : textOf(value['updatesDigest']),
      newHead: head['symref'] === undefined ? undefined : { symref: textOf(head['symref']) },
      prepared: Array.isArray(value['prepared']) ? value['prepared'].map(textOf) : [],
      atMs: this.#observers.nowMs(),
    };
  }
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
