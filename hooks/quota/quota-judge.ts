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
  judge(context: PushContext, account: Account | undefined): Promise<string | undefined>;
  /** What a push is judged by; undefined: no quota concerns the repository. */
  account(repository: Pick<Repository, 'id' | 'name'>): Promise<Account | undefined>;
  /**
   * For a repository that is to be called `name`: room at its new owner, held until it is released, which never rejects.
   * Throws `failed-precondition` when that owner's quota has no room for it.
   */
  holdRoom(repository: Repository, name: string): Promise<HeldRoom>;
}

export interface HeldRoom {
  release(): Promise<void>;
}

/** Lost races in a row that do not happen by chance. */
const maxRaces = 30;
/** Longer than a push takes from its judgement to its end: locks are waited for before, and hooks are bounded. */
const claimMs = 900_000;
/** What is stored shrinks by maintenance, and changes by other ways than pushes. */
const recountAfterMs = 600_000;
/** Who is over the quota and goes on pushing does not have all repositories measured each time. */
const recountAgainAfterMs = 5_000;
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
  readonly maxBytes: number;
  readonly usedBytes: number;
}

class Judge implements QuotaJudge {
  readonly #dependencies: QuotaDependencies;
  /** Owner -> when this process last measured all of its repositories, on the monotonic clock. */
  readonly #counted = new Map<string, number>();

  constructor(dependencies: QuotaDependencies) {
    this.#dependencies = dependencies;
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

  account(repository: Pick<Repository, 'id' | 'name'>): Promise<Account | undefined> {
    return this.#dependencies.usage.account(repository);
  }

  async judge(context: PushContext, known: Account | undefined): Promise<string | undefined> {
    const { repository, packBytes, pushId } = context;
    if (packBytes === 0 || known === undefined) return undefined;
    for (let race = 0; race < maxRaces; race += 1) {
      const account = await this.#accountFor(repository, packBytes, pushId);
      if (account === undefined) return undefined;
      const bounds = boundsOf(account, repository, pushId);
      const broken = bounds.find((bound) => leftOf(bound) < packBytes);
      if (broken !== undefined) {
        this.#refused(repository, broken);
        return `${exceeded(broken)}, and this push brings ${inUnits(packBytes)}`;
      }
      const claim = {
        repositoryId: repository.id,
        bytes: packBytes,
        untilMs: this.#dependencies.clock.nowMs() + claimMs,
      };
      const claims = { ...account.claims, claims: { ...account.claims.claims, [pushId]: claim } };
      if (!(await this.#dependencies.usage.writeClaims(account, claims))) continue;
      this.#warn(context, bounds);
      return undefined;
    }
    throw new QuorateError('aborted', 'others push at the same time; nothing changed, push again');
  }

  async holdRoom(repository: Repository, name: string): Promise<HeldRoom> {
    const { usage, clock } = this.#dependencies;
    const moved = { ...repository, name };
    const claimId = `move-${repository.id}`;
    const nothing: HeldRoom = { release: () => Promise.resolve() };
    if (ownerOf(repository.name) === ownerOf(name)) return nothing;
    if ((await usage.account(moved))?.ownerQuota === undefined) return nothing;
    const bytes = await usage.measure(repository.id);
    for (let race = 0; race < maxRaces; race += 1) {
      const account = await this.#accountFor(moved, bytes, claimId);
      const bound = account && ownerBound(account, claimId);
      if (account === undefined || bound === undefined) return nothing;
      if (leftOf(bound) < bytes) {
        throw new QuorateError(
          'failed-precondition',
          `${exceeded(bound)}, and ${repository.name} has ${inUnits(bytes)}: make room, or raise the quota`,
        );
      }
      const claim = { repositoryId: repository.id, bytes, untilMs: clock.nowMs() + claimMs };
      const claims = { ...account.claims, claims: { ...account.claims.claims, [claimId]: claim } };
      if (!(await usage.writeClaims(account, claims))) continue;
      return { release: () => this.#settle(moved, claimId, false) };
    }
    throw new QuorateError('aborted', 'others push at the same time; nothing changed, try again');
  }

  /** The account; measured anew when it is old, or when `bytes` more would not fit by what is known. */
  async #accountFor(
    repository: Repository,
    bytes: number,
    pushId?: string,
  ): Promise<Account | undefined> {
    const { usage, clock } = this.#dependencies;
    const account = await usage.account(repository);
    if (account === undefined) return undefined;
    const { owner, claims } = account;
    const fits = boundsOf(account, repository, pushId).every((bound) => leftOf(bound) >= bytes);
    const fresh = clock.nowMs() - (claims.countedAtMs ?? -Infinity) < recountAfterMs;
    const lately = this.#counted.get(owner);
    const justCounted = lately !== undefined && clock.monotonicMs() - lately < recountAgainAfterMs;
    if (fresh && (fits || justCounted)) return account;
    await usage.recount(owner);
    this.#remember(owner);
    const again = await usage.account(repository);
    if (again === undefined) return undefined;
    // Whoever loses this race was judged by what is fresh all the same.
    const counted = { ...again.claims, countedAtMs: clock.nowMs() };
    await usage.writeClaims(again, counted);
    return usage.account(repository);
  }

  /** Gives the claim back, and notes what is stored now. What fails here is put right by the next count. */
  async #settle(repository: Repository, pushId: string, committed: boolean): Promise<void> {
    const { usage, logger } = this.#dependencies;
    try {
      for (let race = 0; race < maxRaces; race += 1) {
        const account = await usage.account(repository);
        if (account === undefined) return;
        // After the account was read: whoever measures later writes later, or this one again.
        const bytes = committed ? await usage.measure(repository.id) : undefined;
        const { [pushId]: _own, ...rest } = account.claims.claims;
        const further =
          bytes === undefined ? [] : [usage.recordOf(account.owner, repository.id, bytes)];
        if (await usage.writeClaims(account, { ...account.claims, claims: rest }, further)) return;
      }
    } catch (error) {
      const fields = { component: 'quota', repo: repository.id, push_id: pushId, err: error };
      logger.warn(fields, 'the size of a repository was not noted after a push');
    }
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
      maxBytes: account.repositoryQuota.bytes,
      usedBytes: (account.usages.get(id)?.bytes ?? 0) + claimed(account, pushId, id),
    });
  }
  const owners = ownerBound(account, pushId);
  return owners === undefined ? bounds : [...bounds, owners];
}

function ownerBound(account: Account, pushId: string | undefined): Bound | undefined {
  const { owner, ownerQuota, usages } = account;
  if (ownerQuota === undefined) return undefined;
  const stored = [...usages.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  return {
    of: `owner ${owner}`,
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
