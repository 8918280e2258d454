import { randomUUID } from 'node:crypto';
import type {
  Compare,
  Coordinator,
  KeyValue,
  Lease,
  Operation,
  Transaction,
  WatchBatch,
} from '../contract/coordinator.js';
import { prefixEnd } from '../contract/keys.js';

/** One store under test, with the accidents that the suite needs. Nobody else may write to it meanwhile. */
export interface CoordinatorHarness {
  readonly coordinator: Coordinator;
  /**
   * Ends a lease as an outage of its time to live would, not through its holder. Leases that live much longer survive.
   */
  readonly expireLease: (lease: Lease) => Promise<void>;
  /** Makes the history up to and including the present revision unavailable to watches that start there. */
  readonly compact: () => Promise<void>;
  /** Closes the coordinator and opens another one on the same store; absent where that cannot be done. */
  readonly reopen?: () => Promise<Coordinator>;
  /** Random plans that are compared with the model. Default 150. */
  readonly modelRuns?: number;
  /** Closes the coordinator, if it is open, and removes the store. */
  readonly dispose: () => Promise<void>;
}

/** A key space of one test within the store. */
export interface TestSpace {
  readonly coordinator: Coordinator;
  readonly harness: CoordinatorHarness;
  /** A key with this name, unlike any other test's. */
  readonly key: (name: string) => string;
  /** The range of all such keys. */
  readonly all: { readonly key: string; readonly rangeEnd: string };
  put(name: string, value: string, lease?: string): Promise<number>;
  /** Deletes one key; returns the revision. */
  remove(name: string): Promise<number>;
  get(name: string): Promise<KeyValue | undefined>;
  /** Names of all present keys, in order. */
  names(): Promise<readonly string[]>;
}

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (value: Uint8Array): string => new TextDecoder().decode(value);

/** A transaction of one operation, without conditions. */
export function single(operation: Operation): Transaction {
  return { compares: [], success: [operation], failure: [] };
}

/** "This key does not exist." */
export function absent(key: string): Extract<Compare, { operand: number }> {
  return { key, target: 'createRevision', op: '=', operand: 0 };
}

/** Reads `count` batches of a watch, then leaves it. */
export async function take(
  batches: AsyncIterable<WatchBatch>,
  count: number,
): Promise<readonly WatchBatch[]> {
  const taken: WatchBatch[] = [];
  for await (const batch of batches) {
    taken.push(batch);
    if (taken.length === count) break;
  }
  return taken;
}

/** A key space of its own in a store. */
export function openSpace(harness: CoordinatorHarness, coordinator: Coordinator): TestSpace {
  const prefix = `${randomUUID()}/`;
  const key = (name: string): string => prefix + name;
  const all = { key: prefix, rangeEnd: prefixEnd(prefix) };
  const write = async (operation: Operation): Promise<number> => {
    const { revision } = await coordinator.transaction(single(operation));
    return revision;
  };
  return {
    coordinator,
    harness,
    key,
    all,
    put: (name, value, lease) =>
      write({
        type: 'put',
        key: key(name),
        value: bytes(value),
        ...(lease === undefined ? {} : { lease }),
      }),
    remove: (name) => write({ type: 'delete', key: key(name) }),
    get: (name) => coordinator.get(key(name)),
    names: async () => {
      const { entries } = await coordinator.range(all.key, {
        rangeEnd: all.rangeEnd,
        keysOnly: true,
      });
      return entries.map((entry) => entry.key.slice(prefix.length));
    },
  };
}
