import type {
  Compare,
  Coordinator,
  KeyValue,
  Operation,
} from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';
import type { AccessLevel } from '../../backends/contract/repository.js';
import { decodeRecord, encodeRecord, readAll } from './account-records.js';
import { grantRecord, groupRecord, type GroupRecord } from './access-records.js';
import { isUserName } from './account-names.js';
import { repositoryPatternProblem } from './repository-pattern.js';

/** A named set of users, to whom repositories are granted as `@name`. */
export interface Group {
  readonly name: string;
  /** User names, sorted. */
  readonly members: readonly string[];
  readonly createdAtMs: number;
}

/** A grant on every repository that a pattern means, those to come included. */
export interface PatternGrant {
  readonly pattern: string;
  /** A user, or a group as `@name`. */
  readonly subject: string;
  readonly level: AccessLevel;
}

/**
 * Groups, and grants on patterns of repository names, kept in the coordinator. Each change is one transaction, and
 * holds from the next request on. The name of a removed group is never given again: grants on single repositories may
 * still name it, and are not to come back to life for others.
 * Errors: `invalid-argument`, `already-exists`, `not-found`, `resource-exhausted`, `aborted`, `unavailable`.
 */
export interface AccessDirectory {
  createGroup(name: string): Promise<Group>;
  /** In name order. */
  listGroups(): Promise<readonly Group[]>;
  getGroup(name: string): Promise<Group | undefined>;
  /** Removes the group and its grants on patterns. Its grants on single repositories mean nobody from then on. */
  removeGroup(name: string): Promise<void>;
  /** Idempotent. `not-found` without such a group or user. */
  addMember(group: string, user: string): Promise<Group>;
  /** `not-found` when the user is no member. */
  removeMember(group: string, user: string): Promise<Group>;
  /** `not-found` when `subject` (a user, or a group as `@name`) does not exist. */
  requireSubject(subject: string): Promise<void>;
  /** By pattern, then subject. */
  listGrants(): Promise<readonly PatternGrant[]>;
  /** Replaces the subject's grant on the same pattern. */
  setGrant(grant: PatternGrant): Promise<PatternGrant>;
  removeGrant(pattern: string, subject: string): Promise<void>;
}

/** A record of 5,000 names of full length is 335 KB: a fifth of what the coordinator takes in one transaction. */
const maxMembers = 5_000;
/** All groups and grants on patterns are kept in memory by each server, and every grant is looked at by each request. */
const maxGroups = 2_000;
const maxPatternGrants = 2_000;
/** Lost races before giving up. */
const maxAttempts = 16;
/** Deletions of one group's grants in one transaction, beside the other operations of it: the coordinator takes 128. */
const maxDeletions = 100;

export function createAccessDirectory(parts: {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
}): AccessDirectory {
  return new CoordinatedDirectory(parts.coordinator, parts.clock);
}

class CoordinatedDirectory implements AccessDirectory {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;

  constructor(coordinator: Coordinator, clock: Clock) {
    this.#coordinator = coordinator;
    this.#clock = clock;
  }

  async createGroup(name: string): Promise<Group> {
    if (!isUserName(name)) {
      throw invalid('a group name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit');
    }
    if ((await this.#groupRecords()).length >= maxGroups) {
      throw new QuorateError('resource-exhausted', `there are at most ${maxGroups} groups`);
    }
    const record = { name, members: [], createdAtMs: this.#clock.nowMs(), removed: false };
    const done = await this.#change([absent(keys.group(name))], [putGroup(record)]);
    if (done) return shown(record);
    const taken = await this.#coordinator.get(keys.group(name));
    throw new QuorateError(
      'already-exists',
      taken !== undefined && decodeRecord(groupRecord, taken).removed
        ? `there was a group ${name}, and grants may still name it: take another name`
        : `there is a group ${name} already`,
    );
  }

  async listGroups(): Promise<readonly Group[]> {
    const records = await this.#groupRecords();
    return records.filter(({ removed }) => !removed).map(shown);
  }

  async getGroup(name: string): Promise<Group | undefined> {
    if (!isUserName(name)) return undefined;
    const entry = await this.#coordinator.get(keys.group(name));
    const record = entry && decodeRecord(groupRecord, entry);
    return record === undefined || record.removed ? undefined : shown(record);
  }

  async removeGroup(name: string): Promise<void> {
    for (;;) {
      const grants = await this.listGrants();
      const own = grants.filter(({ subject }) => subject === `@${name}`).slice(0, maxDeletions);
      const deletions = own.map(({ pattern, subject }): Operation => {
        return { type: 'delete', key: keys.grant(pattern, subject) };
      });
      const last = own.length < maxDeletions;
      await this.#changeGroup(
        name,
        (group) => (last ? { ...group, members: [], removed: true } : { ...group, members: [] }),
        deletions,
      );
      if (last) return;
    }
  }

  async addMember(group: string, user: string): Promise<Group> {
    const known = isUserName(user) ? await this.#coordinator.get(keys.user(user)) : undefined;
    if (known === undefined) throw noSuch('user', user);
    return await this.#changeGroup(group, (record) => {
      const members = [...new Set([...record.members, user])].sort();
      if (members.length > maxMembers) {
        throw new QuorateError('resource-exhausted', `a group has at most ${maxMembers} members`);
      }
      return { ...record, members };
    });
  }

  async removeMember(group: string, user: string): Promise<Group> {
    return await this.#changeGroup(group, (record) => {
      if (!record.members.includes(user)) {
        throw new QuorateError('not-found', `${user} is not in the group ${group}`);
      }
      return { ...record, members: record.members.filter((member) => member !== user) };
    });
  }

  async requireSubject(subject: string): Promise<void> {
    if (subject.startsWith('@')) {
      if ((await this.getGroup(subject.slice(1))) === undefined) {
        throw noSuch('group', subject.slice(1));
      }
      return;
    }
    const user = isUserName(subject) ? await this.#coordinator.get(keys.user(subject)) : undefined;
    if (user === undefined) throw noSuch('user', subject);
  }

  async listGrants(): Promise<readonly PatternGrant[]> {
    const entries = await readAll(this.#coordinator, keys.grants);
    return entries.map((entry) => decodeRecord(grantRecord, entry));
  }

  async setGrant(grant: PatternGrant): Promise<PatternGrant> {
    const problem = repositoryPatternProblem(grant.pattern);
    if (problem !== undefined) throw invalid(problem);
    const grants = await this.listGrants();
    const isNew = !grants.some(
      ({ pattern, subject }) => pattern === grant.pattern && subject === grant.subject,
    );
    if (isNew && grants.length >= maxPatternGrants) {
      throw new QuorateError(
        'resource-exhausted',
        `there are at most ${maxPatternGrants} grants on patterns`,
      );
    }
    const group = grant.subject.startsWith('@') ? keys.group(grant.subject.slice(1)) : undefined;
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      await this.requireSubject(grant.subject);
      const entry = await this.#coordinator.get(group ?? keys.user(grant.subject));
      // The group must not be removed meanwhile, or the grant would outlive it.
      if (entry === undefined) continue;
      if (group !== undefined && decodeRecord(groupRecord, entry).removed) continue;
      const done = await this.#change(
        [unchanged(entry)],
        [
          {
            type: 'put',
            key: keys.grant(grant.pattern, grant.subject),
            value: encodeRecord(grant),
          },
        ],
      );
      if (done) return grant;
    }
    throw aborted();
  }

  async removeGrant(pattern: string, subject: string): Promise<void> {
    const none = new QuorateError('not-found', `${subject} has no grant on ${pattern}`);
    if (repositoryPatternProblem(pattern) !== undefined) throw none;
    if (!isUserName(subject.replace(/^@/, ''))) throw none;
    const key = keys.grant(pattern, subject);
    const entry = await this.#coordinator.get(key);
    if (entry === undefined) throw none;
    if (!(await this.#change([unchanged(entry)], [{ type: 'delete', key }]))) throw aborted();
  }

  async #changeGroup(
    name: string,
    change: (group: GroupRecord) => GroupRecord,
    also: readonly Operation[] = [],
  ): Promise<Group> {
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const entry = isUserName(name) ? await this.#coordinator.get(keys.group(name)) : undefined;
      const record = entry && decodeRecord(groupRecord, entry);
      if (entry === undefined || record === undefined || record.removed) {
        throw noSuch('group', name);
      }
      const changed = change(record);
      if (await this.#change([unchanged(entry)], [putGroup(changed), ...also])) {
        return shown(changed);
      }
    }
    throw aborted();
  }

  async #groupRecords(): Promise<readonly GroupRecord[]> {
    const entries = await readAll(this.#coordinator, keys.groups);
    return entries.map((entry) => decodeRecord(groupRecord, entry));
  }

  /** With every change goes the revision that caches compare. */
  async #change(compares: readonly Compare[], success: readonly Operation[]): Promise<boolean> {
    const revision: Operation = {
      type: 'put',
      key: keys.accessRevision,
      value: Buffer.from('1'),
    };
    const result = await this.#coordinator.transaction({
      binding: true,
      compares,
      success: [...success, revision],
      failure: [],
    });
    return result.succeeded;
  }
}

function putGroup(record: GroupRecord): Operation {
  return { type: 'put', key: keys.group(record.name), value: encodeRecord(record) };
}

function unchanged({ key, modRevision }: KeyValue): Compare {
  return { key, target: 'modRevision', op: '=', operand: modRevision };
}

function absent(key: string): Compare {
  return { key, target: 'createRevision', op: '=', operand: 0 };
}

function shown({ name, members, createdAtMs }: GroupRecord): Group {
  return { name, members, createdAtMs };
}

function noSuch(what: 'user' | 'group', name: string): QuorateError {
  return new QuorateError('not-found', `there is no ${what} ${name}`);
}

function invalid(message: string): QuorateError {
  return new QuorateError('invalid-argument', message);
}

function aborted(): QuorateError {
  return new QuorateError('aborted', 'groups and grants are being changed by others; try again');
}
