/**
 * The claims of an owner's pushes are one record, and whoever changes it compares that nobody else has: two pushes that
 * fit one by one and not together are not both let in. Changes that this process wants to make while it makes one wait
 * for that, and are made together: they are in each other's way no more, however many repositories the owner has, and
 * races are lost to other processes only.
 */
import { asQuorateError, QuorateError, retrySoon } from '../../backends/contract/errors.js';
import type { Repository } from '../../backends/contract/repository.js';
import { type Claims, ownerOf } from './quota.js';
import {
  type Account,
  accountOf,
  type Correction,
  type Note,
  type OwnerAccount,
  type Recount,
  type StoredNeed,
  type Usage,
} from './usage.js';

/** What a change of claims comes to. */
export interface Decision<T> {
  readonly answer: T;
  /** Absent: nothing is written. */
  readonly claims?: Claims;
  /** Stored bytes of the repository, noted in the same transaction; `gone`: what was noted of it is removed. */
  readonly bytes?: number | 'gone';
}

export interface ClaimChange<T> {
  /** Asked again when a race was lost. Undefined: no quota concerns the repository any more. */
  readonly decide: (account: Account | undefined) => Decision<T>;
  readonly stored: StoredNeed;
  /** It claims nothing: refused later than what does, since the claim of a push that is over is in others' way. */
  readonly givesBack?: boolean;
}

interface Waiting {
  readonly repositoryId: string;
  readonly stored: StoredNeed;
  readonly decide: (account: Account | undefined) => Decision<unknown>;
  readonly answer: () => void;
  readonly fail: (error: unknown) => void;
}

/** Lost races in a row, to other processes, that do not happen by chance. */
const maxRaces = 30;
/** Changes made in one transaction, each of which reads two keys, and compares and writes one: within 128 operations. */
const maxTogether = 50;
/**
 * Changes that wait, of one owner's claims and of all: twenty transactions are a second or two, and whoever comes when
 * so many wait is better told. What gives back finds as much room again.
 */
const maxWaitingOfOwner = 1_000;
const maxWaiting = 5_000;
/** No record has it. */
const beingNoted = -1;

export class ClaimsQueue {
  readonly #usage: Usage;
  /** By owner; there while changes of its claims are made. */
  readonly #waiting = new Map<string, Waiting[]>();
  /** Those of all owners that wait. */
  #count = 0;

  constructor(usage: Usage) {
    this.#usage = usage;
  }

  /** `aborted` when others keep changing the same claims, `resource-exhausted` when too many changes wait. */
  async change<T>(
    { id, name }: Pick<Repository, 'id' | 'name'>,
    { decide, stored, givesBack = false }: ClaimChange<T>,
  ): Promise<T> {
    const owner = ownerOf(name);
    this.#refuseBeyond(givesBack ? 2 : 1, owner);
    return new Promise<T>((resolve, reject) => {
      let decision: Decision<T> | undefined;
      const waiting: Waiting = {
        repositoryId: id,
        stored,
        decide: (account) => (decision = decide(account)),
        answer: () => decision !== undefined && resolve(decision.answer),
        fail: reject,
      };
      this.#count += 1;
      const others = this.#waiting.get(owner);
      if (others !== undefined) {
        others.push(waiting);
        return;
      }
      this.#waiting.set(owner, [waiting]);
      void this.#makeAll(owner);
    });
  }

  /**
   * Measures all repositories of an owner with a quota, and forgets those that are no longer its own. What a push has
   * noted in the meantime was measured later, and stays.
   */
  async recount(owner: string): Promise<Recount> {
    const recount = await this.#usage.measureAgain(owner);
    const { corrections } = recount;
    for (let from = 0; from < corrections.length; from += maxTogether) {
      const some = corrections.slice(from, from + maxTogether);
      await Promise.all(some.map((correction) => this.#correct(owner, correction)));
    }
    return recount;
  }

  /** Of a repository that is gone, or has another owner now. */
  async forget({ id, name }: Pick<Repository, 'id' | 'name'>): Promise<void> {
    await this.change<void>(
      { id, name },
      {
        stored: 'unused',
        givesBack: true,
        decide: (account) =>
          account?.usages.has(id) === true
            ? { answer: undefined, bytes: 'gone' }
            : { answer: undefined },
      },
    );
  }

  #correct(owner: string, { id, bytes, revision }: Correction): Promise<void> {
    return this.change<void>(
      { id, name: owner },
      {
        stored: 'unused',
        givesBack: true,
        decide: (account) => {
          if (account?.ownerQuota === undefined) return { answer: undefined };
          const now = account.usages.get(id)?.revision ?? 0;
          return now === revision ? { answer: undefined, bytes } : { answer: undefined };
        },
      },
    );
  }

  /** When so many times what may wait does so already. */
  #refuseBeyond(times: number, owner: string): void {
    const ofOwner = this.#waiting.get(owner)?.length ?? 0;
    const of =
      ofOwner >= maxWaitingOfOwner * times
        ? `of owner ${owner}`
        : this.#count >= maxWaiting * times
          ? 'on this server'
          : undefined;
    if (of === undefined) return;
    throw new QuorateError(
      'resource-exhausted',
      `too many pushes wait for the quota ${of}; nothing changed, push again in a moment`,
      { details: { ...retrySoon } },
    );
  }

  /** Never rejects. */
  async #makeAll(owner: string): Promise<void> {
    for (;;) {
      const batch = this.#waiting.get(owner)?.splice(0, maxTogether) ?? [];
      if (batch.length === 0) break;
      this.#count -= batch.length;
      try {
        await this.#makeTogether(owner, batch);
      } catch (error) {
        for (const { fail } of batch) fail(error);
      }
    }
    this.#waiting.delete(owner);
  }

  async #makeTogether(owner: string, batch: readonly Waiting[]): Promise<void> {
    const ids = [...new Set(batch.map(({ repositoryId }) => repositoryId))];
    const needs = batch.map(({ stored }) => stored);
    const stored = (['counted', 'known'] as const).find((need) => needs.includes(need)) ?? 'unused';
    for (let race = 0; race < maxRaces; race += 1) {
      const account = await this.#usage.ofOwnersRepositories(owner, ids, { stored });
      if (!(await this.#write(account, batch))) continue;
      for (const { answer } of batch) answer();
      return;
    }
    throw new QuorateError('aborted', 'others push at the same time; nothing changed, push again');
  }

  /** Decides each by what those before it make of the account. False when it was changed meanwhile. */
  async #write(read: OwnerAccount, batch: readonly Waiting[]): Promise<boolean> {
    const usages = new Map(read.usages);
    const notes = new Map<string, Note>();
    let { claims, storedBytes } = read;
    for (const { repositoryId, decide } of batch) {
      const account = accountOf({ ...read, claims, usages, storedBytes }, repositoryId);
      const { claims: changed, bytes } = decide(account);
      claims = changed ?? claims;
      if (bytes === undefined) continue;
      notes.set(repositoryId, this.#usage.noteOf(read, repositoryId, bytes));
      const before = usages.get(repositoryId)?.bytes ?? 0;
      const after = bytes === 'gone' ? 0 : bytes;
      if (storedBytes !== undefined) storedBytes += after - before;
      // Whoever has measured the same repository sees that it was noted.
      usages.set(repositoryId, { bytes: after, revision: beingNoted });
    }
    if (claims === read.claims && notes.size === 0) return true;
    try {
      return await this.#usage.writeClaims(read, { ...claims, storedBytes }, [...notes.values()]);
    } catch (error) {
      // Written or not, it is decided once more by what is there: nothing counts twice.
      if (asQuorateError(error).code !== 'outcome-unknown') throw error;
      return false;
    }
  }
}
