import type { Principal, TokenScope } from './principal.js';

export interface User {
  readonly name: string;
  readonly admin: boolean;
  readonly disabled: boolean;
  /** May create repositories. */
  readonly canCreate: boolean;
  readonly createdAtMs: number;
}

export interface SshKey {
  /** `SHA256:...` as `ssh-keygen -l` prints it. */
  readonly fingerprint: string;
  readonly user: string;
  /** `ssh-ed25519`, ... */
  readonly type: string;
  readonly comment: string;
  readonly createdAtMs: number;
}

/** A key that is bound to one repository. */
export interface DeployKey {
  readonly fingerprint: string;
  readonly repositoryId: string;
  /** May push; every deploy key may fetch. */
  readonly write: boolean;
  readonly type: string;
  readonly comment: string;
  readonly createdAtMs: number;
}

export interface AccessToken {
  /** Public: names the token in lists and logs; not the secret. */
  readonly id: string;
  readonly user: string;
  readonly name: string;
  readonly scope: TokenScope;
  readonly repositoryPattern: string | undefined;
  readonly createdAtMs: number;
  readonly expiresAtMs: number | undefined;
  /** To the minute, and written some time after the use; undefined: never. */
  readonly lastUsedAtMs: number | undefined;
}

export interface NewToken {
  readonly user: string;
  readonly name: string;
  readonly scope: TokenScope;
  readonly repositoryPattern?: string;
  readonly expiresAtMs?: number;
}

export interface SignInOptions {
  /** It is for a request that changes nothing. */
  readonly reading?: boolean;
  /** Told why nobody was signed in, for the audit log: the client learns the same in every case. */
  readonly onRefused?: (refusal: SignInRefusal) => void;
}

/** Why a token or a key was refused. */
export interface SignInRefusal {
  readonly problem:
    | 'wrong token'
    | 'mistyped token'
    | 'unknown or revoked token'
    | 'expired token'
    | 'unknown key'
    | 'disabled user';
  /** To whom the token or key belongs; absent: to nobody. */
  readonly user?: string;
  /** Public id of the token, also of one that was revoked. */
  readonly tokenId?: string;
}

/**
 * Users, SSH keys and tokens, kept in the coordinator. Reads for authentication come from it linearizably: a disabled
 * user or a removed key is refused from the next request on. Tokens are stored as SHA-256 hashes and compared in
 * constant time. Names: 1 to 64 of `a-z 0-9 . _ -`, starting with a letter or digit.
 * Errors: `invalid-argument`, `already-exists`, `not-found`, `unavailable`.
 */
export interface Accounts {
  createUser(user: { name: string; admin: boolean; canCreate?: boolean }): Promise<User>;
  listUsers(): Promise<readonly User[]>;
  getUser(name: string): Promise<User | undefined>;
  setUserDisabled(name: string, disabled: boolean): Promise<User>;

  /** `line` is one line of a public key file. `already-exists` names the owner only to whom it belongs. */
  addKey(user: string, line: string): Promise<SshKey>;
  listKeys(user?: string): Promise<readonly SshKey[]>;
  removeKey(fingerprint: string): Promise<void>;

  /** `already-exists` when the key is in use, by a user or for any repository. */
  addDeployKey(key: { repositoryId: string; line: string; write: boolean }): Promise<DeployKey>;
  listDeployKeys(repositoryId: string): Promise<readonly DeployKey[]>;
  /** `not-found` unless the key is bound to that repository. */
  removeDeployKey(repositoryId: string, fingerprint: string): Promise<void>;

  /** `secret` is shown once and stored nowhere. */
  createToken(token: NewToken): Promise<{ token: AccessToken; secret: string }>;
  listTokens(user?: string): Promise<readonly AccessToken[]>;
  revokeToken(id: string): Promise<void>;

  /**
   * The principal of an access token, or of a JSON Web Token of a known issuer; undefined for an unknown, expired or
   * revoked one and for a disabled user. With `reading`, while the coordinator cannot be reached, an access token is
   * judged by what was last read here, and the principal is marked as `recalled`.
   */
  authenticateToken(secret: string, options?: SignInOptions): Promise<Principal | undefined>;
  /**
   * The principal of a user whom the caller has found out by a certificate for the key with that fingerprint;
   * undefined when there is no such user, or a disabled one.
   */
  certifiedUser(name: string, fingerprint: string): Promise<Principal | undefined>;
  /**
   * The principal of an SSH public key (SSH wire format blob), or undefined. The caller has verified the signature.
   * `reading` as for tokens.
   */
  authenticateKey(
    publicKeyBlob: Uint8Array,
    options?: SignInOptions,
  ): Promise<Principal | undefined>;
}
