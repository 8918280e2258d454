import type { OverruledPush, OverruledRef } from '../contract/cluster.js';
import type { RefCommand } from '../contract/objects.js';
import type { HeldPush } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import { digestAfter } from '../git/digest.js';
import { allOf } from '../git/ref-commands.js';

/** Refs that keep what a recovery overruled. */
export const overruledPrefix = 'refs/quorate/';

type Updates = readonly RefCommand[];

/** A push that the survivor of a recovery has not applied, and the refs that are to keep what it brought. */
export interface OverruledChange {
  readonly push: Omit<OverruledPush, 'refs'>;
  /** Undefined when nobody who answers knows them. */
  readonly updates: Updates | undefined;
  /** Name of the ref for each update that brought something. */
  readonly keptAs: (ref: string) => string;
}

/** The updates of a push as a store has them. */
export interface Told extends Pick<HeldPush, 'updatesDigest'> {
  readonly updates: readonly RefCommand[];
}

/** What is known of an entry besides what the log has. */
export interface EntryGround {
  /** What the stores that hold its push have of it: some of it may be of a verdict that came to nothing. */
  readonly told: readonly Told[];
  /** Digest of the refs that it is applied to; undefined: nobody who answers knows it. */
  readonly before: string | undefined;
}

/** Committed, and not applied by any store that answers. */
export function overruledEntry(entry: LogEntry, ground: EntryGround): OverruledChange {
  const { generation, pushId, actor, atMs, head } = entry;
  const target = head !== undefined && 'symref' in head.new ? head.new.symref : undefined;
  return {
    push: { generation, pushId, actor, atMs, head: target },
    updates: entry.updatesDigest === undefined ? entry.updates : updatesOf(entry, ground),
    keptAs: (ref) => `${overruledPrefix}overruled/${generation}/${ref.slice('refs/'.length)}`,
  };
}

/** Those that the entry names, or that lead from the refs before to the refs after. */
function updatesOf(
  { digest, head, updatesDigest }: LogEntry,
  { told, before }: EntryGround,
): Updates | undefined {
  const named = told.find((one) => one.updatesDigest === updatesDigest);
  const found =
    before === undefined
      ? told.find((one) => one.updatesDigest === undefined)
      : told.find(({ updates }) => digestAfter(before, updates, head) === digest);
  return (named ?? found)?.updates;
}

/** A generation of which not even the log says anything. */
export function unknownGeneration(generation: number): OverruledChange {
  return {
    push: {
      generation,
      pushId: 'unknown',
      actor: undefined,
      atMs: undefined,
      head: undefined,
    },
    updates: undefined,
    keptAs: (ref) => ref,
  };
}

/**
 * Prepared, and not in the log: acknowledged to nobody. No verdict counts, of which there may be several, and others at
 * another store: its updates are what any of them allowed; where none is kept, what was asked for.
 */
export function unacknowledged(
  pushId: string,
  { told, allowed }: Pick<EntryGround, 'told'> & { readonly allowed: readonly Updates[] },
): OverruledChange {
  const kept = told.filter(({ updatesDigest }) => updatesDigest !== undefined);
  const judged = [...allowed, ...kept.map(({ updates }) => updates)];
  const sets = judged.length > 0 ? judged : told.map(({ updates }) => updates);
  return {
    push: {
      generation: undefined,
      pushId,
      actor: undefined,
      atMs: undefined,
      head: undefined,
    },
    updates: sets.length === 0 ? undefined : allOf(sets),
    keptAs: (ref) => `${overruledPrefix}unacknowledged/${pushId}/${ref.slice('refs/'.length)}`,
  };
}

/** What a recovery makes of them, once it is known which of the refs can be had. */
export function toldOf(change: OverruledChange, kept: ReadonlySet<string>): OverruledPush {
  const refs = change.updates?.map(({ ref, newOid }): OverruledRef => {
    const deletion = /^0+$/.test(newOid);
    const name = change.keptAs(ref);
    return {
      ref,
      oid: deletion ? undefined : newOid,
      keptAs: !deletion && kept.has(name) ? name : undefined,
    };
  });
  return { ...change.push, refs };
}

/** Commands that make the refs. */
export function keepingCommands(changes: readonly OverruledChange[]): readonly RefCommand[] {
  return changes.flatMap(({ updates = [], keptAs }) =>
    updates
      .filter(({ newOid }) => !/^0+$/.test(newOid))
      .map(({ ref, newOid }) => ({
        ref: keptAs(ref),
        oldOid: '0'.repeat(newOid.length),
        newOid,
      })),
  );
}
