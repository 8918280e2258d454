import type { KeyValue } from '../../backends/contract/coordinator.js';
import { keys } from '../../backends/contract/keys.js';
import { isUserName } from './account-names.js';
import type { Membership } from './principal.js';

/** Where what a sign-in is judged by comes from. */
export interface Source {
  get(key: string): Promise<KeyValue | undefined>;
  memberships(user: string): Promise<Membership | undefined>;
}

/** A user's record and memberships, as they are now. */
export type AccountRead = readonly [KeyValue | undefined, Membership | undefined];

export function readAccount(user: string, from: Source): Promise<AccountRead> {
  return Promise.all([
    isUserName(user) ? from.get(keys.user(user)) : undefined,
    from.memberships(user),
  ]);
}

/** Some 200 bytes each. */
const maxOwners = 10_000;

/**
 * Whose a token was last: a guess, by which the user is read together with the token instead of after it. Whose it is,
 * the token says.
 */
export class GuessedOwners {
  readonly #owners = new Map<string, string>();

  /** To be called before the token is read; returns the reader of its owner's account. */
  ahead(tokenHash: string, from: Source): (owner: string) => Promise<AccountRead> {
    const guess = this.#owners.get(tokenHash);
    const early = guess === undefined ? undefined : readAccount(guess, from);
    // Nobody is left to be told when the token turns out to be none.
    early?.catch(() => undefined);
    return (owner) => {
      if (this.#owners.size >= maxOwners) this.#owners.clear();
      this.#owners.set(tokenHash, owner);
      return owner === guess && early !== undefined ? early : readAccount(owner, from);
    };
  }
}
