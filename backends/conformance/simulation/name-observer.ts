import type { WatchBatch } from '../../contract/coordinator.js';
import { recordOf, textOf } from './commit-observer.js';

interface NameChange {
  readonly atMs: number;
  /** Undefined: it was given up. */
  readonly id: string | undefined;
}

/**
 * Sits in the coordinator and writes down which repository had which name when. At every moment a name leads to a
 * repository that lives and bears it, and every repository that lives has its name.
 */
export class NameObserver {
  readonly #nowMs: () => number;
  readonly #violation: (text: string) => void;
  readonly #changes = new Map<string, NameChange[]>();
  /** Names of repositories that live, by id. */
  readonly #living = new Map<string, string>();
  /** Names that somebody had before, so that a second life of one is noticed. */
  readonly #given = new Set<string>();
  readonly #reused: () => void;
  rewound = false;

  constructor(options: {
    readonly nowMs: () => number;
    readonly violation: (text: string) => void;
    /** A name was given to another repository than had it before. */
    readonly reused: () => void;
  }) {
    this.#nowMs = options.nowMs;
    this.#violation = options.violation;
    this.#reused = options.reused;
  }

  see({ events }: WatchBatch): void {
    if (this.rewound) return;
    const touched = new Set<string>();
    for (const event of events) {
      const key = event.type === 'put' ? event.entry.key : event.key;
      const slash = key.indexOf('/');
      const [kind, rest] = [key.slice(0, slash), key.slice(slash + 1)];
      if (kind !== 'names' && kind !== 'repos') continue;
      const value = event.type === 'put' ? parse(event.entry.value) : undefined;
      if (kind === 'names') {
        this.#change(rest, value === undefined ? undefined : textOf(value['id']));
        touched.add(rest);
        continue;
      }
      const before = this.#living.get(rest);
      if (before !== undefined) touched.add(before);
      if (value?.['state'] === 'active') {
        this.#living.set(rest, textOf(value['name']));
        touched.add(textOf(value['name']));
      } else this.#living.delete(rest);
    }
    for (const name of touched) this.#check(name);
  }

  /** Whether the name led there at some moment of this time. */
  wasAt(name: string, id: string | undefined, fromMs: number, toMs: number): boolean {
    let current: string | undefined;
    for (const change of this.#changes.get(name) ?? []) {
      if (change.atMs > toMs) break;
      // What it was until then counts, when that was within the time.
      if (change.atMs >= fromMs && current === id) return true;
      current = change.id;
    }
    return current === id;
  }

  #change(name: string, id: string | undefined): void {
    const changes = this.#changes.get(name) ?? [];
    this.#changes.set(name, changes);
    changes.push({ atMs: this.#nowMs(), id });
    if (id === undefined) return;
    if (this.#given.has(name) && changes.every((one) => one.id !== id || one === changes.at(-1))) {
      this.#reused();
    }
    this.#given.add(name);
  }

  #check(name: string): void {
    const id = this.#changes.get(name)?.at(-1)?.id;
    if (id !== undefined && this.#living.get(id) !== name) {
      this.#violation(`the name ${name} leads to ${id}, which is not there under it`);
    }
    for (const [one, own] of this.#living) {
      if (own === name && one !== id) this.#violation(`${one} lives, and its name leads elsewhere`);
    }
    const inside = [...this.#living.values()].find((other) => other.startsWith(`${name}/`));
    if (id !== undefined && inside !== undefined) {
      this.#violation(`the name ${inside} lies inside ${name}`);
    }
  }
}

function parse(value: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    return recordOf(JSON.parse(Buffer.from(value).toString('utf8')));
  } catch {
    return {};
  }
}
