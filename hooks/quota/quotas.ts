import type { Clock, Logger, Meter } from '../../backends/contract/environment.js';
import type { Coordinator } from '../../backends/contract/coordinator.js';
import type { Repository, RepositoryRegistry } from '../../backends/contract/repository.js';
import { ClaimsQueue } from './claims.js';
import { ownerOf, type QuotaScope } from './quota.js';
import { createQuotaJudge, type QuotaJudge } from './quota-judge.js';
import {
  createQuotaStore,
  type OwnedScope,
  type Promised,
  type ScopedQuota,
} from './quota-store.js';
import { Usage } from './usage.js';

export interface QuotasOptions {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: Meter;
  /** Read when it is needed: the backend is made after the stages of its pushes. */
  readonly repositories: () => Pick<RepositoryRegistry, 'get' | 'list' | 'stats'>;
  /** Name of a repository, or undefined when it is gone. */
  readonly repositoryName: (id: string) => Promise<string | undefined>;
  /** Size of the disk that holds the repositories. */
  readonly diskBytes: () => Promise<number>;
  readonly overcommitPercent: number;
  readonly warnPercent: number;
}

export type QuotaState = 'ok' | 'warning' | 'exceeded';

export interface QuotaReport {
  readonly kind: 'owner' | 'repository';
  readonly name: string;
  /** Undefined: there is none. */
  readonly quotaBytes: number | undefined;
  readonly usedBytes: number;
  readonly state: QuotaState;
}

/** A repository with a quota, or an owner. */
export type QuotaSubject = Pick<Repository, 'id' | 'name'> | { readonly owner: string };

/** Quotas as administrators see them, and the stages of a push that keep them. Errors as `QuotaStore` says. */
export interface Quotas extends QuotaJudge {
  set(subject: QuotaSubject, bytes: number): Promise<QuotaReport>;
  remove(subject: QuotaSubject): Promise<void>;
  /** With what is used, measured now. */
  show(subject: QuotaSubject): Promise<QuotaReport>;
  /** All that are set, with what is used as last measured. */
  list(): Promise<readonly QuotaReport[]>;
  promised(): Promise<Promised>;
  /** When a repository's id is to change, which is so on the directory backend only. It stays where it is, too. */
  copy(from: string, to: string): Promise<void>;
  /** To be told when a repository has another name. Its owner may be another one, too. */
  renamed(
    from: Pick<Repository, 'id' | 'name'>,
    to: Pick<Repository, 'id' | 'name'>,
  ): Promise<void>;
  deleted(repository: Pick<Repository, 'id' | 'name'>): Promise<void>;
}

export function createQuotas(options: QuotasOptions): Quotas {
  const store = createQuotaStore(options);
  const usage = new Usage(options);
  const claims = new ClaimsQueue(usage);
  const judge = createQuotaJudge({ ...options, usage, claims });

  const reportOf = (
    of: Pick<QuotaReport, 'kind' | 'name' | 'quotaBytes' | 'usedBytes'>,
  ): QuotaReport => ({ ...of, state: stateOf(of, options.warnPercent) });

  const show = async (subject: QuotaSubject): Promise<QuotaReport> => {
    const quota = await store.get(scopeOf(subject));
    const quotaBytes = quota?.bytes;
    if (!('owner' in subject)) {
      const usedBytes = await usage.measure(subject.id);
      return reportOf({ kind: 'repository', name: subject.name, quotaBytes, usedBytes });
    }
    if (quota === undefined) {
      const usedBytes = await usage.measureOwner(subject.owner);
      return reportOf({ kind: 'owner', name: subject.owner, quotaBytes, usedBytes });
    }
    await claims.recount(subject.owner);
    const usedBytes = await usage.ofOwner(subject.owner);
    return reportOf({ kind: 'owner', name: subject.owner, quotaBytes, usedBytes });
  };

  const listed = async (quota: ScopedQuota): Promise<QuotaReport | undefined> => {
    const quotaBytes = quota.bytes;
    if ('owner' in quota) {
      const { owner } = quota;
      return reportOf({
        kind: 'owner',
        name: owner,
        quotaBytes,
        usedBytes: await usage.ofOwner(owner),
      });
    }
    const { name, repositoryId } = quota;
    if (name === undefined) return undefined;
    // It may have gone just now.
    const usedBytes = await usage.ofRepository({ id: repositoryId, name }).catch(() => 0);
    return reportOf({ kind: 'repository', name, quotaBytes, usedBytes });
  };

  return {
    allowance: (repository) => judge.allowance(repository),
    judge: (context, concerned) => judge.judge(context, concerned),
    concerns: (repository) => judge.concerns(repository),
    settle: (pushId, committed) => judge.settle(pushId, committed),
    note: (repository) => judge.note(repository),
    holdRoom: (repository, name) => judge.holdRoom(repository, name),
    show,
    async set(subject, bytes) {
      await store.set(scopeOf(subject), bytes);
      // Who shows an owner's counts all of it.
      if (!('owner' in subject)) await judge.note(subject);
      return show(subject);
    },
    remove: (subject) => store.remove(ownedScopeOf(subject)),
    async list() {
      const reports: QuotaReport[] = [];
      for (const quota of await store.list()) {
        const report = await listed(quota);
        if (report !== undefined) reports.push(report);
      }
      return reports;
    },
    promised: () => store.promised(),
    copy: (from, to) => store.copy(from, to),
    async renamed(from, to) {
      await claims.forget(from);
      if (ownerOf(from.name) !== ownerOf(to.name)) await store.left(ownerOf(from.name));
      await judge.note(to);
    },
    async deleted(repository) {
      await store.forget(ownedScopeOf(repository));
      await claims.forget(repository);
    },
  };
}

function scopeOf(subject: QuotaSubject): QuotaScope {
  return 'owner' in subject ? subject : { repositoryId: subject.id };
}

function ownedScopeOf(subject: QuotaSubject): OwnedScope {
  if ('owner' in subject) return { owner: subject.owner };
  return { repositoryId: subject.id, ofOwner: ownerOf(subject.name) };
}

function stateOf(
  { quotaBytes, usedBytes }: Pick<QuotaReport, 'quotaBytes' | 'usedBytes'>,
  warnPercent: number,
): QuotaState {
  if (quotaBytes === undefined) return 'ok';
  if (usedBytes > quotaBytes) return 'exceeded';
  return usedBytes * 100 >= quotaBytes * warnPercent ? 'warning' : 'ok';
}
