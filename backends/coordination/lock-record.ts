import type { LockInfo } from '../contract/backend.js';
import type { KeyValue } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';

/** What a lock or a waiter covers. */
export type LockTarget =
  | { readonly scope: 'refs'; readonly repositoryId: string; readonly refs: readonly string[] }
  | { readonly scope: 'repository'; readonly repositoryId: string }
  | { readonly scope: 'global' };

/** The value of a lock's and of a waiter's key, as JSON. */
export interface LockRecord {
  /** The front-end. */
  readonly holder: string;
  readonly pushId: string;
  /** Wall clock, for people. */
  readonly sinceMs: number;
  /** Unique to one acquisition: proves, after a lost answer, whose key this is. */
  readonly attempt: string;
  /** Of a repository lock taken because the refs were too many: how many. */
  readonly lockedRefs?: number;
  /** Of a waiter for refs: which. */
  readonly refs?: readonly string[];
}

/** A key of the lock space, understood. */
export interface LockEntry {
  readonly key: string;
  readonly createRevision: number;
  /** Of the process that put it. */
  readonly lease: string | undefined;
  readonly state: 'held' | 'waiting';
  readonly target: LockTarget;
  readonly record: LockRecord;
}

export function writeLockRecord(record: LockRecord): Uint8Array {
  return Buffer.from(JSON.stringify(record));
}

/** A value that is no record of ours still is a lock: of an unknown holder. */
export function parseLockRecord(value: Uint8Array): LockRecord {
  const unknown = { holder: 'unknown', pushId: '', sinceMs: 0, attempt: '' };
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(value).toString());
  } catch {
    return unknown;
  }
  if (typeof parsed !== 'object' || parsed === null) return unknown;
  const fields = new Map<string, unknown>(Object.entries(parsed));
  const text = (name: keyof typeof unknown): string => {
    const field = fields.get(name);
    return typeof field === 'string' ? field : String(unknown[name]);
  };
  const sinceMs = fields.get('sinceMs');
  const lockedRefs = fields.get('lockedRefs');
  const refs = fields.get('refs');
  return {
    holder: text('holder'),
    pushId: text('pushId'),
    sinceMs: typeof sinceMs === 'number' ? sinceMs : 0,
    attempt: text('attempt'),
    ...(typeof lockedRefs === 'number' ? { lockedRefs } : {}),
    ...(Array.isArray(refs) ? { refs: refs.filter((ref) => typeof ref === 'string') } : {}),
  };
}

/** Understands an entry below `locks/`; undefined for a key that no version of ours writes. */
export function parseLockEntry(entry: KeyValue): LockEntry | undefined {
  const { key, createRevision, lease } = entry;
  const record = parseLockRecord(entry.value);
  const held = { key, createRevision, lease, state: 'held', record } as const;
  const waiting = { key, createRevision, lease, state: 'waiting', record } as const;
  if (key === keys.globalLock) return { ...held, target: { scope: 'global' } };
  if (key.startsWith(keys.globalWaiters)) return { ...waiting, target: { scope: 'global' } };
  if (!key.startsWith(keys.allLocks)) return undefined;
  const slash = key.indexOf('/', keys.allLocks.length);
  if (slash === -1) return undefined;
  const repositoryId = key.slice(keys.allLocks.length, slash);
  if (key === keys.exclusiveLock(repositoryId)) {
    return { ...held, target: { scope: 'repository', repositoryId } };
  }
  const refs = keys.refLocks(repositoryId);
  if (key.startsWith(refs)) {
    return { ...held, target: { scope: 'refs', repositoryId, refs: [key.slice(refs.length)] } };
  }
  if (!key.startsWith(keys.lockWaiters(repositoryId))) return undefined;
  if (record.refs === undefined) {
    return { ...waiting, target: { scope: 'repository', repositoryId } };
  }
  return { ...waiting, target: { scope: 'refs', repositoryId, refs: record.refs } };
}

/** For `GET /debug/locks`: one line for each ref, repository or global lock, held or waited for. */
export function describeLock(entry: LockEntry, nowMs: number): readonly LockInfo[] {
  const { target, record, state } = entry;
  const facts = {
    state,
    holder: record.holder,
    pushId: record.pushId,
    ageMs: Math.max(0, nowMs - record.sinceMs),
  };
  switch (target.scope) {
    case 'global':
      return [{ scope: 'global', ...facts }];
    case 'repository':
      return [{ scope: 'repository', repositoryId: target.repositoryId, ...facts }];
    case 'refs':
      return target.refs.map((ref) => ({
        scope: 'ref',
        repositoryId: target.repositoryId,
        ref,
        ...facts,
      }));
  }
}
