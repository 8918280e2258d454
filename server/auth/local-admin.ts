import { timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Clock, Logger } from '../../backends/contract/environment.js';
import type { Accounts } from './accounts.js';
import type { Principal } from './principal.js';
import { hashTokenSecret, tokenIdOf } from './token-secret.js';

export interface LocalAdminOptions {
  readonly accounts: Pick<Accounts, 'getUser' | 'listTokens'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Of the data directory: where the token lies that the first start made. It need not be there. */
  readonly tokenFile: string;
  /** The user whose token that is. */
  readonly user: string;
}

/** A token that was revoked is good here no longer than this, while the coordinator answers. */
const lookEveryMs = 60_000;
/** Until it is there: the first start makes it when everything else is open. */
const firstLooksEveryMs = 5_000;

/**
 * The administrator whose token lies in this server's data directory, for the few questions that are to be answered
 * while the coordinator cannot be asked who somebody is. The token counts for as long as it did when the coordinator was
 * asked last: whoever has it has this server's disk.
 */
export class LocalAdmin {
  readonly #options: LocalAdminOptions;
  #known: { readonly hash: Buffer; readonly principal: Principal } | undefined;

  constructor(options: LocalAdminOptions) {
    this.#options = options;
  }

  /** Undefined: it is another token. */
  principalOf(secret: string): Principal | undefined {
    const hash = Buffer.from(hashTokenSecret(secret));
    if (this.#known === undefined || !timingSafeEqual(hash, this.#known.hash)) return undefined;
    return this.#known.principal;
  }

  async keepLooking(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    while (!signal.aborted) {
      await this.look().catch((error: unknown) => {
        logger.debug({ component: 'accounts', err: error }, 'the own token is looked at later');
      });
      await clock.sleep(this.#known === undefined ? firstLooksEveryMs : lookEveryMs, signal);
    }
  }

  /** Asks the coordinator whether the token is good. Keeps what is known when that does not answer. */
  async look(): Promise<void> {
    const { accounts, clock, tokenFile, user } = this.#options;
    const secret = await readFile(tokenFile, 'utf8').catch(() => '');
    const hash = hashTokenSecret(secret.trim());
    const tokenId = tokenIdOf(hash);
    const [account, tokens] = await Promise.all([
      accounts.getUser(user),
      accounts.listTokens(user),
    ]);
    const token = tokens.find(({ id }) => id === tokenId);
    const isPast = (token?.expiresAtMs ?? Infinity) <= clock.nowMs();
    const isGood = account?.admin === true && !account.disabled && token !== undefined && !isPast;
    this.#known = isGood
      ? {
          hash: Buffer.from(hash),
          principal: {
            kind: 'user',
            name: user,
            admin: true,
            canCreate: account.canCreate,
            via: {
              type: 'token',
              tokenId,
              scope: token.scope,
              repositoryPattern: token.repositoryPattern,
            },
            recalled: true,
          },
        }
      : undefined;
  }
}
