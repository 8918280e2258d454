/**
 * Quotas of pushes. A push is judged with its pack in the quarantine: stored bytes, plus those of other pushes that were
 * judged and are not over (claims), plus its own. Its claim is put with a compare on the claims it was judged by, so
 * two that fit one by one and not together are not both let in, through whatever front-ends they come.
 */
import type { Clock, Logger, Meter } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { PackAllowance, PushContext } from '../../backends/contract/pipeline.js';
import type { Repository } from '../../backends/contract/repository.js';
import { inUnits, ownerOf } from './quota.js';
import { ClaimsQueue } from './claims.js';
import type { Account, Usage } from './usage.js';

export interface QuotaDependencies {
  readonly usage: Usage;
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
/**
 * Who fits by what is known waits so long for a count that is due, and then goes on without: an owner may have very many
 * repositories.
 */
const countPatienceMs = 2_000;
/** Owners remembered to have been counted lately. */
const maxRemembered = 1_000;

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

/** What is to be claimed. */
interface Asked {
  readonly repository: Repository;
  readonly bytes: number;
  readonly claimId: string;
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
  /** Owner -> when this process last measured all of its repositories, on the monotonic clock. */
  readonly #counted = new Map<string, number>();
  /** Owners whose repositories are being measured. */
  readonly #counting = new Map<string, Promise<void>>();
  readonly #claims: ClaimsQueue;

  constructor(dependencies: QuotaDependencies) {
    this.#dependencies = dependencies;
    this.#claims = new ClaimsQueue(dependencies.usage);
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
    const { repository, packBytes, pushId } = context;
    if (packBytes === 0 || !concerned) return undefined;
    const asked = { repository, bytes: packBytes, claimId: pushId };
    const { bounds, broken } = await this.#claim(asked);
    if (broken !== undefined) {
      this.#refused(repository, broken);
      return `${exceeded(broken)}, and this push brings ${inUnits(packBytes)}`;
    }
    if (bounds.length > 0) this.#warn(context, bounds);
    return undefined;
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
    const { broken } = await this.#claim(asked);
    if (broken !== undefined) {
      throw new QuorateError(
        'failed-precondition',
        `${exceeded(broken)}, and ${repository.name} has ${inUnits(bytes)}: make room, or raise the quota`,
      );
    }
    return { release: () => this.#settle(moved, claimId, false) };
  }

  /** Claims bytes, unless a bound is broken by them: by what is there when it is written, after a count that is due. */
  async #claim(asked: Asked): Promise<Judged> {
    const { repository, bytes, claimId } = asked;
    for (let again = false; ; again = true) {
      await this.#accountFor(repository, bytes, claimId);
      const judged = await this.#tryClaim(asked);
      // Others took meanwhile what was left: who did not have to be counted for is now.
      if (judged.broken === undefined || again) return judged;
    }
  }

  #tryClaim(asked: Asked): Promise<Judged> {
    const { repository, bytes, claimId } = asked;
    const untilMs = this.#dependencies.clock.nowMs() + claimMs;
    return this.#claims.change(repository, {
      needsUsages: true,
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
    const { owner, claims } = account;
    const fits = boundsOf(account, repository, claimId).every((bound) => leftOf(bound) >= bytes);
    const fresh = clock.nowMs() - (claims.countedAtMs ?? -Infinity) < recountAfterMs;
    const lately = this.#counted.get(owner);
    const justCounted = lately !== undefined && clock.monotonicMs() - lately < recountAgainAfterMs;
    if (fresh && (fits || justCounted)) return account;
    const count = this.#count(repository);
    await (fits && claims.countedAtMs !== undefined ? this.#awhile(count) : count);
    return usage.account(repository);
  }

  /** Measures all repositories of the owner; once for all who want that at the same time. */
  #count(repository: Repository): Promise<void> {
    const owner = ownerOf(repository.name);
    const running = this.#counting.get(owner);
    if (running !== undefined) return running;
    const count = this.#countOnce(repository).finally(() => this.#counting.delete(owner));
    this.#counting.set(owner, count);
    return count;
  }

  async #countOnce(repository: Repository): Promise<void> {
    const { usage, clock } = this.#dependencies;
    const owner = ownerOf(repository.name);
    await usage.recount(owner);
    this.#remember(owner);
    await this.#claims.change(repository, {
      needsUsages: false,
      givesBack: true,
      decide: (account) =>
        account === undefined
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
  async #settle(repository: Repository, claimId: string, committed: boolean): Promise<void> {
    const { logger } = this.#dependencies;
    try {
      for (let race = 0; race < maxMeasurements; race += 1) {
        if (await this.#giveBack(repository, claimId, committed)) return;
      }
    } catch (error) {
      const fields = { component: 'quota', repo: repository.id, push_id: claimId, err: error };
      logger.warn(fields, 'the size of a repository was not noted after a push');
    }
  }

  /** False when somebody else noted the size while this measured it: one of the two is of later. */
  async #giveBack(repository: Repository, claimId: string, committed: boolean): Promise<boolean> {
    const { usage } = this.#dependencies;
    const before = committed ? await usage.noted(repository) : undefined;
    const bytes = committed ? await usage.measure(repository.id) : undefined;
    return this.#claims.change(repository, {
      needsUsages: false,
      givesBack: true,
      decide: (account) => {
        if (account === undefined) return { answer: true };
        const { [claimId]: own, ...rest } = account.claims.claims;
        const given = own === undefined ? {} : { claims: { ...account.claims, claims: rest } };
        if (bytes === undefined) return { answer: true, ...given };
        const now = account.usages.get(repository.id)?.revision;
        if (now !== before?.revision) return { answer: false };
        return { answer: true, ...given, bytes };
      },
    });
  }

  #remember(owner: string): void {
    this.#counted.delete(owner);
    this.#counted.set(owner, this.#dependencies.clock.monotonicMs());
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
  const { owner, ownerQuota, usages } = account;
  if (ownerQuota === undefined) return undefined;
  const stored = [...usages.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  return {
    of: `owner ${owner}`,
    ofOwner: true,
    maxBytes: ownerQuota.bytes,
    usedBytes: stored + claimed(account, pushId),
  };
}

/** Claimed by others, for all repositories or for one. */
function claimed({ claims }: Account, pushId: string | undefined, repositoryId?: string): number {
  return Object.entries(claims.claims)
    .filter(([claimant]) => claimant !== pushId)
    .filter(([, claim]) => repositoryId === undefined || claim.repositoryId === repositoryId)
    .reduce((sum, [, { bytes }]) => sum + bytes, 0);
}
