import type { Clock, Meter } from '../../backends/contract/environment.js';
import type { Accounts, SignInRefusal } from '../auth/accounts.js';
import type { Principal } from '../auth/principal.js';
import { type Refusal, signedIn, signInRefused } from '../auth/sign-in-details.js';
import type { AuditLog } from '../observe/audit.js';
import { addressKey } from '../core/concurrency-limit.js';
import { askingCoordinator } from '../core/coordinator-lost.js';
import type { GitServiceName } from '../core/git-request.js';
import { parseAuthorization } from './credentials.js';
import { challenge, HttpRefusal } from './error-map.js';
import { FailureThrottle } from './failure-throttle.js';

interface AuthenticatorOptions {
  readonly accounts: Accounts;
  readonly audit: AuditLog;
  readonly clock: Clock;
  readonly meter: Meter;
  /** Everybody is trusted (loopback only; the configuration sees to that). */
  readonly noAuth: boolean;
  readonly maxFailuresPerMinute: number;
}

interface Attempt {
  readonly authorization: string | undefined;
  readonly remoteAddress: string;
  readonly requestId: string;
  readonly service: GitServiceName;
  /** Called in the turn of the main loop in which the coordinator is asked, if it is: the place for further questions. */
  readonly meanwhile?: () => void;
}

const anonymous: Principal = { kind: 'anonymous' };
const trusted: Principal = { kind: 'trusted' };

/** Finds out who is asking. Every attempt with credentials is audited; wrong ones are throttled by address. */
export class HttpAuthenticator {
  readonly #options: AuthenticatorOptions;
  readonly #throttle: FailureThrottle;

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
    this.#throttle = new FailureThrottle(options.clock, options.maxFailuresPerMinute);
  }

  /** Anonymous without credentials. Throws `HttpRefusal` 401 for wrong ones and 429 for too many wrong ones. */
  async authenticate(attempt: Attempt): Promise<Principal> {
    if (this.#options.noAuth) return trusted;
    const credentials = parseAuthorization(attempt.authorization);
    if (credentials.kind === 'none') return anonymous;
    this.refuseThrottled(attempt.remoteAddress);
    let refusal: Refusal = { problem: credentials.kind === 'token' ? 'wrong token' : 'malformed' };
    const principal =
      credentials.kind === 'token'
        ? await this.#judge(attempt, credentials.secret, (told) => (refusal = told))
        : undefined;
    this.#record(attempt, principal, refusal);
    if (principal !== undefined) return principal;
    this.failed(attempt.remoteAddress);
    throw new HttpRefusal(
      401,
      'These credentials are not valid: use an access token as the password.',
      { 'WWW-Authenticate': challenge },
    );
  }

  #judge(
    { service, meanwhile }: Attempt,
    secret: string,
    onRefused: (refusal: SignInRefusal) => void,
  ): Promise<Principal | undefined> {
    const reading = service !== 'git-receive-pack';
    const judged = askingCoordinator(service, () =>
      this.#options.accounts.authenticateToken(secret, { reading, onRefused }),
    );
    meanwhile?.();
    return judged;
  }

  /** Throws `HttpRefusal` 429 while the address has to wait. */
  refuseThrottled(remoteAddress: string): void {
    const waitMs = this.#throttle.waitMs(addressKey(remoteAddress));
    if (waitMs === 0) return;
    throw new HttpRefusal(
      429,
      'Too many wrong credentials came from this address: wait a minute.',
      {
        'Retry-After': String(Math.ceil(waitMs / 1000)),
      },
    );
  }

  /** Counts wrong credentials that somebody else (the admin API) has judged. */
  failed(remoteAddress: string): void {
    this.#throttle.failed(addressKey(remoteAddress));
  }

  #record(attempt: Attempt, principal: Principal | undefined, refusal: Refusal): void {
    const outcome = principal === undefined ? 'refused' : 'ok';
    this.#options.meter.count('authentications', { transport: 'http', outcome });
    this.#options.audit.record({
      event: 'authentication',
      outcome,
      remoteAddress: attempt.remoteAddress,
      transport: 'http',
      requestId: attempt.requestId,
      ...(principal === undefined ? signInRefused(refusal) : signedIn(principal)),
    });
  }
}
