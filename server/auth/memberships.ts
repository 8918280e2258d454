import type { Coordinator } from '../../backends/contract/coordinator.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';
import type { PastReads } from '../../backends/contract/past-reads.js';
import { grantRecord, groupRecord, type GrantRecord } from './access-records.js';
import { decodeRecord, readAll } from './account-records.js';
import type { Membership } from './principal.js';

/** All groups and grants on patterns, as of one revision. */
interface Snapshot {
  /** `modRevision` of `access/revision`; 0: nothing was ever changed. */
  readonly revision: number;
  readonly groupsOf: ReadonlyMap<string, readonly string[]>;
  readonly grantsTo: ReadonlyMap<string, readonly GrantRecord[]>;
}

/** Reads that a change may overtake before this gives up: changes are made by people. */
const maxAttempts = 16;

/**
 * Finds a user's groups and grants on patterns. What was read is kept until the one key changes that every change
 * puts; that key is read linearizably each time, so that a member who is removed is refused from the next request on.
 */
export class Memberships {
  readonly #coordinator: Coordinator;
  #snapshot: Snapshot = { revision: 0, groupsOf: new Map(), grantsTo: new Map() };

  constructor(coordinator: Coordinator) {
    this.#coordinator = coordinator;
  }

  /** Undefined when the user is in no group and has no grant on a pattern. */
  async of(user: string): Promise<Membership | undefined> {
    return membershipIn(await this.#current(), user);
  }

  /** As of when they were last read here. Throws `unavailable` when they have changed since, or nothing is known. */
  recall(user: string, past: PastReads): Membership | undefined {
    const revision = past.get(keys.accessRevision)?.modRevision ?? 0;
    if (revision === this.#snapshot.revision) return membershipIn(this.#snapshot, user);
    throw new QuorateError(
      'unavailable',
      'groups and grants are not known without the coordinator',
    );
  }

  async #current(): Promise<Snapshot> {
    let revision = await this.#revision();
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      if (revision === this.#snapshot.revision) return this.#snapshot;
      const read = await this.#read(revision);
      const after = await this.#revision();
      if (after === revision) {
        this.#snapshot = read;
        return read;
      }
      revision = after;
    }
    throw new QuorateError('unavailable', 'groups and grants change too fast to be read');
  }

  async #revision(): Promise<number> {
    return (await this.#coordinator.get(keys.accessRevision))?.modRevision ?? 0;
  }

  async #read(revision: number): Promise<Snapshot> {
    const groupsOf = new Map<string, string[]>();
    const grantsTo = new Map<string, GrantRecord[]>();
    for (const entry of await readAll(this.#coordinator, keys.groups)) {
      const { name, members, removed } = decodeRecord(groupRecord, entry);
      if (!removed) for (const member of members) append(groupsOf, member, name);
    }
    for (const entry of await readAll(this.#coordinator, keys.grants)) {
      const grant = decodeRecord(grantRecord, entry);
      append(grantsTo, grant.subject, grant);
    }
    return { revision, groupsOf, grantsTo };
  }
}

function membershipIn({ groupsOf, grantsTo }: Snapshot, user: string): Membership | undefined {
  const groups = groupsOf.get(user) ?? [];
  const subjects = [user, ...groups.map((group) => `@${group}`)];
  const grants = subjects
    .flatMap((subject) => grantsTo.get(subject) ?? [])
    .map(({ pattern, level }) => ({ pattern, level }));
  return groups.length + grants.length === 0 ? undefined : { groups, grants };
}

function append<T>(map: Map<string, T[]>, key: string, value: T): void {
  const found = map.get(key);
  if (found === undefined) map.set(key, [value]);
  else found.push(value);
}
