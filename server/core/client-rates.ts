import type { Clock, Meter } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { Principal } from '../auth/principal.js';
import { addressKey } from './concurrency-limit.js';
import { RateLimit } from './rate-limit.js';

/** Requests a minute; 0: no limit. */
export interface RateLimits {
  readonly ratePerPrincipal: number;
  readonly ratePerAddress: number;
  readonly ratePerRepository: number;
}

type RateOf = 'principal' | 'address' | 'repository';

/**
 * How many requests a minute somebody may send. HTTP, SSH and the admin API have one of these each, so that who has
 * used up one can still use the others. Refusals are `resource-exhausted` with `retryAfterSeconds` in their details.
 */
export class ClientRates {
  readonly #door: 'http' | 'ssh' | 'admin';
  readonly #meter: Meter;
  readonly #rates: Readonly<Record<RateOf, RateLimit>>;
  readonly #off: boolean;

  constructor(
    door: 'http' | 'ssh' | 'admin',
    limits: RateLimits,
    { clock, meter }: { readonly clock: Clock; readonly meter: Meter },
  ) {
    this.#door = door;
    this.#meter = meter;
    this.#rates = {
      principal: new RateLimit(limits.ratePerPrincipal, clock),
      address: new RateLimit(limits.ratePerAddress, clock),
      repository: new RateLimit(limits.ratePerRepository, clock),
    };
    this.#off = Object.values(this.#rates).every(({ off }) => off);
  }

  checkAddress(remoteAddress: string): void {
    if (!this.#off) this.#check('address', addressKey(remoteAddress));
  }

  /** Who is nobody, or everybody, has an address only. */
  checkPrincipal(principal: Principal): void {
    if (!this.#off && 'name' in principal) this.#check('principal', principal.name);
  }

  checkRepository(name: string): void {
    if (!this.#off) this.#check('repository', name);
  }

  #check(of: RateOf, key: string): void {
    const waitMs = this.#rates[of].take(key);
    if (waitMs === 0) return;
    this.#meter.count('limit_refusals', { transport: this.#door, limit: `rate-${of}` });
    throw new RateRefusal(words[of], Math.max(1, Math.ceil(waitMs / 1000)));
  }
}

/** Told apart, since so many of them come that they are not written down one by one. */
export class RateRefusal extends QuorateError {
  constructor(message: string, retryAfterSeconds: number) {
    super('resource-exhausted', message, { details: { retryAfterSeconds } });
  }
}

const words = {
  principal: 'you have sent too many requests: try again in a moment',
  address: 'your address has sent too many requests: try again in a moment',
  repository: 'there are too many requests for this repository: try again in a moment',
} as const;
