import type { SignInRefusal } from './accounts.js';
import { type Principal, principalName } from './principal.js';

/** Why credentials were refused: also such that the accounts were not asked about. */
export type Refusal = Omit<SignInRefusal, 'problem'> & { readonly problem: string };

interface SignInDetails {
  readonly actor: string;
  readonly details: Readonly<Record<string, string>>;
}

/** What the audit log says of whom a token let in. */
export function signedIn(principal: Principal): SignInDetails {
  const via = principal.kind === 'user' ? principal.via : undefined;
  return {
    actor: principalName(principal),
    details:
      via?.type === 'token'
        ? { how: 'token', token: via.tokenId }
        : { how: principal.kind === 'machine' ? 'openid-connect' : 'token' },
  };
}

/** What it says of a token that was refused: whose it is, where that is known, and why. */
export function signInRefused({ problem, user, tokenId }: Refusal): SignInDetails {
  const token = tokenId === undefined ? {} : { token: tokenId };
  return { actor: user ?? 'unknown', details: { how: 'token', problem, ...token } };
}
