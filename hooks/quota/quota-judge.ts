/**
 * Quotas of pushes. A push is judged with its pack in the quarantine: stored bytes, plus those of other pushes that were
 * judged and are not over (claims), plus its own. Its claim is put with a compare on the claims it was judged by, so
 * two that fit one by one and not together are not both let in, through whatever front-ends they come.
 */
import assert from 'node:assert';
import type { Clock, Logger, Meter } from '../../backends/contract/environment.js';
import { orAborted, QuorateError } from '../../backends/contract/errors.js';
import type { PackAllowance, PushContext } from '../../backends/contract/pipeline.js';
import type { Repository } from '../../backends/contract/repository.js';
import { inUnits, ownerOf } from './quota.js';
import type { ClaimsQueue } from './claims.js';
import type { Account, Usage } from './usage.js';

export interface QuotaDependencies {
  readonly usage: Usage;
  readonly claims: ClaimsQueue;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: Meter;
  /** Share of a quota from which on the pusher is warned, in percent. */
  readonly warnPercent: number;
}

export interface QuotaJudge {
  /** What a push may bring, before it brings it. Undefined: no quota concerns the repository. */
  allowance(repository: Repository): Promise<PackAllowance | undefined>;
  /** Why the whole push is refused, or undefined. Claims its bytes until the push is over, and warns. */
  judge(context: PushContext, concerned: boolean): Promise<string | undefined>;
  /**
   * Gives back what a push claimed for which no allowance was made: there was no quota when it began. Undefined when it
   * claimed nothing. To be called when it is over; never rejects.
   */
  settle(pushId: string, committed: boolean): Promise<void> | undefined;
  /** Measures and notes a repository, if a quota concerns it. What fails here is put right by the next count. */
  note(repository: Pick<Repository, 'id' | 'name'>): Promise<void>;
  /** Whether any quota concerns the repository. */
  concerns(repository: Pick<Repository, 'id' | 'name'>): Promise<boolean>;
  /**
   * For a repository that is to be called `name`: room at its new owner, held until it is released, which never rejects.
   * Throws `failed-precondition` when that owner's quota has no room for it.
   */
  holdRoom(repository: Repository, name: string): Promise<HeldRoom>;
}

export interface HeldRoom {
  release(): Promise<void>;
}

/** Longer than a push takes from its judgement to its end: locks are waited for before, and hooks are bounded. */
const claimMs = 900_000;
/** What is stored shrinks by maintenance, and changes by other ways than pushes. */
const recountAfterMs = 600_000;
/** Sizes that others note meanwhile: pushes to one repository, or counts of all. */
const maxMeasurements = 30;
/** Who is over the quota and goes on pushing does not have all repositories measured each time. */
const recountAgainAfterMs = 5_000;
/** Nor so many times as long as the last count took: thousands of repositories are not counted without end. */
const recountPauseFactor = 4;
const neverCounted = { atMs: -Infinity, tookMs: 0 };
/**
 * Who fits by what is known waits so long for a count that is due, and then goes on without: an owner may have very many
 * repositories.
 */
const countPatienceMs = 2_000;
/** What cannot be noted after a push is tried again so much later: an etcd without a leader has one in seconds. */
const settlePausesMs: readonly number[] = [0, 2_000, 8_000];
/** Owners, and repositories with a quota of their own, remembered to have been counted lately. */
const maxRemembered = 5_000;

export function createQuotaJudge(dependencies: QuotaDependencies): QuotaJudge {
  return new Judge(dependencies);
}

/** A branch on a known commit comes with a pack of no object: it adds nothing, and is judged when it is in. */
const alwaysTakenBytes = 1024;

/** A quota, and what is used of it. */
interface Bound {
  readonly of: string;
  readonly ofOwner: boolean;
  readonly maxBytes: number;
  readonly usedBytes: number;
}

type Named = Pick<Repository, 'id' | 'name'>;

/** What is to be claimed. */
interface Asked {
  readonly repository: Repository;
  readonly bytes: number;
  readonly claimId: string;
  /** Of whoever waits for a count. */
  readonly signal?: AbortSignal;
  /** The repository's own quota goes with it. */
  readonly ownerOnly?: boolean;
}

/** None: no quota concerns it. */
interface Judged {
  readonly bounds: readonly Bound[];
  /** The first that has no room for it. */
  readonly broken?: Bound | undefined;
}

class Judge implements QuotaJudge {
  readonly #dependencies: QuotaDependencies;
  /** Owner or repository -> when this process last measured all of it, on the monotonic clock, and how long that took. */
  readonly #counted = new Map<string, { readonly atMs: number; readonly tookMs: number }>();
  /** Owners and repositories that are being measured. */
  readonly #counting = new Map<string, Promise<void>>();
  /** Pushes that may have claimed something and are not over, and the name by which they did. */
  readonly #claimants = new Map<string, Named>();
  readonly #claims: ClaimsQueue;

  constructor(dependencies: QuotaDependencies) {
    this.#dependencies = dependencies;
    this.#claims = dependencies.claims;
  }

  async allowance(repository: Repository): Promise<PackAllowance | undefined> {
    const account = await this.#accountFor(repository, 1);
    if (account === undefined) return undefined;
    const bounds = boundsOf(account, repository, undefined);
    const tightest = bounds.toSorted((a, b) => leftOf(a) - leftOf(b))[0];
    if (tightest === undefined) return undefined;
    return {
      maxPackBytes: Math.max(leftOf(tightest), alwaysTakenBytes),
      refuse: () => {
        this.#refused(repository, tightest);
        return `${exceeded(tightest)}, and this push would bring more`;
      },
      warning: this.#isNear(tightest) ? nearlyUsed(tightest) : undefined,
      settle: (pushId, committed) => this.#settle(repository, pushId, committed),
    };
  }

  concerns(repository: Pick<Repository, 'id' | 'name'>): Promise<boolean> {
    return this.#dependencies.usage.concerns(repository);
  }

  async judge(context: PushContext, concerned: boolean): Promise<string | undefined> {
    const { repository, packBytes, pushId, signal } = context;
    if (packBytes === 0 || !concerned) return undefined;
    const earlier = this.#claimants.get(pushId);
    if (earlier !== undefined && ownerOf(earlier.name) !== ownerOf(repository.name)) {
      // It was renamed, and the push is judged again.
      await this.#settle(earlier, pushId, false);
    }
    this.#claimants.set(pushId, repository);
    const asked = { repository, bytes: packBytes, claimId: pushId, signal };
    const { bounds, broken } = await this.#claim(asked);
    if (broken !== undefined) {
      this.#refused(repository, broken);
      return `${exceeded(broken)}, and this push brings ${inUnits(packBytes)}`;
    }
    if (bounds.length > 0) this.#warn(context, bounds);
    return undefined;
  }

  settle(pushId: string, committed: boolean): Promise<void> | undefined {
    const repository = this.#claimants.get(pushId);
    return repository === undefined ? undefined : this.#settle(repository, pushId, committed);
  }

  async note(repository: Named): Promise<void> {
    const { usage, logger } = this.#dependencies;
    try {
      if (await usage.concerns(repository)) await this.#noteNow(repository);
    } catch (error) {
      const fields = { component: 'quota', repo: repository.id, err: error };
      logger.warn(fields, 'the size of a repository was not noted');
    }
  }

  async holdRoom(repository: Repository, name: string): Promise<HeldRoom> {
    const { usage } = this.#dependencies;
    const moved = { ...repository, name };
    const claimId = `move-${repository.id}`;
    const nothing: HeldRoom = { release: () => Promise.resolve() };
    if (ownerOf(repository.name) === ownerOf(name)) return nothing;
    if ((await usage.account(moved))?.ownerQuota === undefined) return nothing;
    const bytes = await usage.measure(repository.id);
    const asked = { repository: moved, bytes, claimId, ownerOnly: true };
    const release = (): Promise<void> => this.#settle(moved, claimId, false);
    const { broken } = await this.#claim(asked).catch(async (error: unknown) => {
      // It may have been put.
      await release();
      throw error;
    });
    if (broken !== undefined) {
      throw new QuorateError(
        'failed-precondition',
        `${exceeded(broken)}, and ${repository.name} has ${inUnits(bytes)}: make room, or raise the quota`,
      );
    }
    return { release };
  }

  /** Claims bytes, unless a bound is broken by them: by what is there when it is written, after a count that is due. */
  async #claim(asked: Asked): Promise<Judged> {
    const { repository, bytes, claimId, signal } = asked;
    for (let again = false; ; again = true) {
      const account = this.#accountFor(repository, bytes, claimId);
      await (signal === undefined ? account : orAborted(account, signal));
      const judged = await this.#tryClaim(asked);
      // Others took meanwhile what was left: who did not have to be counted for is now.
      if (judged.broken === undefined || again) return judged;
    }
  }

  #tryClaim(asked: Asked): Promise<Judged> {
    const { repository, bytes, claimId } = asked;
    const untilMs = this.#dependencies.clock.nowMs() + claimMs;
    return this.#claims.change(repository, {
      stored: 'known',
      decide: (account) => {
        if (account === undefined) return { answer: { bounds: [] } };
        const judged = judgedBy(account, asked);
        if (judged.broken !== undefined) return { answer: judged };
        const claim = { repositoryId: repository.id, bytes, untilMs };
        const claims = { ...account.claims.claims, [claimId]: claim };
        return { answer: judged, claims: { ...account.claims, claims } };
      },
    });
  }

  /** The account; measured anew when it is old, or when `bytes` more would not fit by what is known. */
  async #accountFor(
    repository: Repository,
    bytes: number,
    claimId?: string,
  ): Promise<Account | undefined> {
    const { usage, clock } = this.#dependencies;
    const account = await usage.account(repository);
    if (account === undefined) return undefined;
    const { claims } = account;
    const fits = boundsOf(account, repository, claimId).every((bound) => leftOf(bound) >= bytes);
    const { atMs, tookMs } = this.#counted.get(countedAs(account, repository)) ?? neverCounted;
    const sinceMs = clock.monotonicMs() - atMs;
    const justCounted = sinceMs < Math.max(recountAgainAfterMs, tookMs * recountPauseFactor);
    const ofAll = account.ownerQuota !== undefined;
    const known = ofAll ? claims.countedAtMs !== undefined : account.usages.has(repository.id);
    const ageMs = ofAll ? clock.nowMs() - (claims.countedAtMs ?? -Infinity) : sinceMs;
    const fresh = known && ageMs < recountAfterMs;
    if (fresh && (fits || justCounted)) return account;
    const count = this.#count(account, repository);
    await (fits && known ? this.#awhile(count) : count);
    return usage.account(repository);
  }

  /** Measures what the quotas are about; once for all who want that at the same time. */
  #count(account: Account, repository: Repository): Promise<void> {
    const what = countedAs(account, repository);
    const running = this.#counting.get(what);
    if (running !== undefined) return running;
    const beganAtMs = this.#dependencies.clock.monotonicMs();
    const counted =
      account.ownerQuota === undefined ? this.#noteNow(repository) : this.#countAll(repository);
    const count = counted
      .then(() => this.#remember(what, beganAtMs))
      .finally(() => this.#counting.delete(what));
    this.#counting.set(what, count);
    return count;
  }

  /** All repositories of the owner. */
  async #countAll(repository: Repository): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const owner = ownerOf(repository.name);
    const { unmeasured, error } = await this.#claims.recount(owner);
    if (unmeasured > 0) {
      const fields = { component: 'quota', owner, repositories: unmeasured, err: error };
      logger.warn(fields, 'repositories could not be measured: what was last known of them counts');
    }
    // With the sum of what is there: whatever put a wrong one there is over.
    await this.#claims.change(repository, {
      stored: 'counted',
      givesBack: true,
      decide: (account) =>
        account?.ownerQuota === undefined
          ? { answer: undefined }
          : { answer: undefined, claims: { ...account.claims, countedAtMs: clock.nowMs() } },
    });
  }

  async #awhile(count: Promise<void>): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const failed = (error: unknown): void => {
      logger.warn({ component: 'quota', err: error }, 'what an owner stores was not counted');
    };
    const over = new AbortController();
    const late = clock.sleep(countPatienceMs, over.signal);
    await Promise.race([count.catch(failed), late]);
    over.abort('over');
  }

  /** Gives the claim back, and notes what is stored now. What fails here is put right by the next count. */
  async #settle(repository: Named, claimId: string, committed: boolean): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const claimant = this.#claimants.get(claimId) ?? repository;
    this.#claimants.delete(claimId);
    const failed = (error: unknown): void => {
      const fields = { component: 'quota', repo: repository.id, push_id: claimId, err: error };
      logger.warn(fields, 'the size of a repository was not noted after a push');
    };
    try {
      if (committed) await this.#noteNow(claimant, claimId);
      else await this.#giveBack(claimant, { claimId });
      return;
    } catch (error) {
      failed(error);
    }
    // A claim that stays would count beside what it brought, for a quarter of an hour.
    for (const pauseMs of settlePausesMs) {
      if (pauseMs > 0) await clock.sleep(pauseMs);
      try {
        await this.#giveBack(claimant, { claimId, asClaimed: committed });
        return;
      } catch (error) {
        failed(error);
      }
    }
  }

  /** Measures, notes, and gives a claim back. What somebody else noted meanwhile may be of later: it measures again. */
  async #noteNow(repository: Named, claimId?: string): Promise<void> {
    const { usage } = this.#dependencies;
    for (let race = 0; race < maxMeasurements; race += 1) {
      const before = (await usage.noted(repository))?.revision;
      const bytes = await usage.measure(repository.id);
      if (await this.#giveBack(repository, { claimId, measured: { bytes, before } })) return;
    }
    // Others note it again and again, and the last of them what is there.
    await this.#giveBack(repository, { claimId });
  }

  /**
   * False when the size that was measured is not noted, since somebody else noted one. `asClaimed`: nobody can measure
   * what the push brought, and it counts as what it claimed until the next count.
   */
  async #giveBack(
    repository: Named,
    {
      claimId = '',
      measured,
      asClaimed = false,
    }: {
      readonly claimId?: string | undefined;
      readonly asClaimed?: boolean;
      readonly measured?: { readonly bytes: number; readonly before: number | undefined };
    },
  ): Promise<boolean> {
    return this.#claims.change(repository, {
      stored: 'unused',
      givesBack: true,
      decide: (account) => {
        if (account === undefined) return { answer: true };
        const { [claimId]: own, ...rest } = account.claims.claims;
        const given = own === undefined ? {} : { claims: { ...account.claims, claims: rest } };
        const now = account.usages.get(repository.id);
        if (asClaimed && own !== undefined) {
          return { answer: true, ...given, bytes: (now?.bytes ?? 0) + own.bytes };
        }
        if (measured === undefined) return { answer: true, ...given };
        if (now?.revision !== measured.before) return { answer: false };
        return { answer: true, ...given, bytes: measured.bytes };
      },
    });
  }

  #remember(what: string, beganAtMs: number): void {
    const atMs = this.#dependencies.clock.monotonicMs();
    this.#counted.delete(what);
    this.#counted.set(what, { atMs, tookMs: atMs - beganAtMs });
    const [oldest] = this.#counted.keys();
    if (this.#counted.size > maxRemembered && oldest !== undefined) this.#counted.delete(oldest);
  }

  #refused(repository: Repository, { of, usedBytes, maxBytes }: Bound): void {
    const { logger, meter } = this.#dependencies;
    meter.count('quota_pushes', { outcome: 'refused' });
    logger.warn(
      { component: 'quota', repo: repository.id, of, used_bytes: usedBytes, quota_bytes: maxBytes },
      'a push was refused by a quota',
    );
  }

  #warn({ repository, packBytes, progress }: PushContext, bounds: readonly Bound[]): void {
    const { logger, meter } = this.#dependencies;
    const near = bounds
      .map((bound) => ({ ...bound, usedBytes: bound.usedBytes + packBytes }))
      .filter((bound) => this.#isNear(bound));
    meter.count('quota_pushes', { outcome: near.length > 0 ? 'warned' : 'ok' });
    for (const bound of near) {
      progress(Buffer.from(nearlyUsed(bound)));
      const { of, usedBytes, maxBytes } = bound;
      const fields = { of, used_bytes: usedBytes, quota_bytes: maxBytes };
      logger.warn(
        { component: 'quota', repo: repository.id, ...fields },
        'a quota is nearly used up',
      );
    }
  }

  #isNear({ usedBytes, maxBytes }: Bound): boolean {
    return usedBytes * 100 >= maxBytes * this.#dependencies.warnPercent;
  }
}

/** What is measured for the sake of a repository's quotas: all of its owner's, or itself. */
function countedAs({ owner, ownerQuota }: Account, { id }: Named): string {
  return ownerQuota === undefined ? `repository ${id}` : `owner ${owner}`;
}

function leftOf({ maxBytes, usedBytes }: Bound): number {
  return maxBytes - usedBytes;
}

function nearlyUsed({ of, usedBytes, maxBytes }: Bound): string {
  const percent = Math.floor((usedBytes * 100) / Math.max(1, maxBytes));
  return `warning: ${of} uses ${percent} % of its quota: ${inUnits(usedBytes)} of ${inUnits(maxBytes)}\n`;
}

function exceeded({ of, usedBytes, maxBytes }: Bound): string {
  return `quota exceeded: ${of} has ${inUnits(usedBytes)} of ${inUnits(maxBytes)}`;
}

/** The quotas that concern a repository, with all claims but the push's own. */
function boundsOf(
  account: Account,
  { id, name }: Repository,
  pushId: string | undefined,
): readonly Bound[] {
  const bounds: Bound[] = [];
  if (account.repositoryQuota !== undefined) {
    bounds.push({
      of: `repository ${name}`,
      ofOwner: false,
      maxBytes: account.repositoryQuota.bytes,
      usedBytes: (account.usages.get(id)?.bytes ?? 0) + claimed(account, pushId, id),
    });
  }
  const owners = ownerBound(account, pushId);
  return owners === undefined ? bounds : [...bounds, owners];
}

function judgedBy(account: Account, { repository, bytes, claimId, ownerOnly }: Asked): Judged {
  const all = boundsOf(account, repository, claimId);
  const bounds = ownerOnly === true ? all.filter(({ ofOwner }) => ofOwner) : all;
  return { bounds, broken: bounds.find((bound) => leftOf(bound) < bytes) };
}

function ownerBound(account: Account, pushId: string | undefined): Bound | undefined {
  const { owner, ownerQuota, storedBytes } = account;
  if (ownerQuota === undefined) return undefined;
  assert(
    storedBytes !== undefined,
    "who judges by an owner's quota has asked for what it is about",
  );
  return {
    of: `owner ${owner}`,
    ofOwner: true,
    maxBytes: ownerQuota.bytes,
    usedBytes: storedBytes + claimed(account, pushId),
  };
}

/** Claimed by others, for all repositories or for one. */
function claimed({ claims }: Account, pushId: string | undefined, repositoryId?: string): number {
  return Object.entries(claims.claims)
    .filter(([claimant]) => claimant !== pushId)
    .filter(([, claim]) => repositoryId === undefined || claim.repositoryId === repositoryId)
    .reduce((sum, [, { bytes }]) => sum + bytes, 0);
}
