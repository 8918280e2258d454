import type { OverruledPush, OverruledRef } from '../contract/cluster.js';
import type { RefCommand } from '../contract/objects.js';
import type { HeldPush } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';

/** Refs that keep what a recovery overruled. */
export const overruledPrefix = 'refs/quorate/';

/** A push that the survivor of a recovery has not applied, and the refs that are to keep what it brought. */
export interface OverruledChange {
  readonly push: Omit<OverruledPush, 'refs'>;
  /** Undefined when nobody who answers knows them. */
  readonly updates: readonly RefCommand[] | undefined;
  /** Name of the ref for each update that brought something. */
  readonly keptAs: (ref: string) => string;
}

/** Committed, and not applied by any store that answers. */
export function overruledEntry(entry: LogEntry, held: HeldPush | undefined): OverruledChange {
  const { generation, pushId, actor, atMs, head } = entry;
  const target = head !== undefined && 'symref' in head.new ? head.new.symref : undefined;
  return {
    push: { generation, pushId, actor, atMs, head: target },
    updates: entry.updatesDigest === undefined ? entry.updates : held?.updates,
    keptAs: (ref) => `${overruledPrefix}overruled/${generation}/${ref.slice('refs/'.length)}`,
  };
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

/** Prepared, and not in the log: acknowledged to nobody. */
export function unacknowledged({ pushId, updates }: HeldPush): OverruledChange {
  return {
    push: {
      generation: undefined,
      pushId,
      actor: undefined,
      atMs: undefined,
      head: undefined,
    },
    updates,
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
