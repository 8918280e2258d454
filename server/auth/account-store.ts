import { timingSafeEqual } from 'node:crypto';
import type { Compare, Coordinator, Operation } from '../../backends/contract/coordinator.js';
import type { Clock, Random } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys, prefixEnd } from '../../backends/contract/keys.js';
import type { PastReads } from '../../backends/contract/past-reads.js';
import {
  anyKeyRecord,
  decodeRecord,
  rememberingDecoder,
  encodeRecord,
  readAll,
  tokenRecord,
  userRecord,
  isDeployKey,
  isUserKey,
  type AnyKeyRecord,
  type DeployKeyRecord,
  type SshKeyRecord,
  type TokenRecord,
  type UserRecord,
} from './account-records.js';
import { isUserName } from './account-names.js';
import { type AccountRead, GuessedOwners, readAccount, type Source } from './account-reads.js';
import type {
  AccessToken,
  Accounts,
  DeployKey,
  NewToken,
  SignInOptions,
  SignInRefusal,
  SshKey,
} from './accounts.js';
import { shownDeployKey, shownKey, shownToken } from './shown-accounts.js';
import { Memberships } from './memberships.js';
import { looksLikeJwt, type OpenIdIssuers } from './openid-issuers.js';
import { isRecalled, type Principal, type PrincipalSource } from './principal.js';
import { repositoryPatternProblem } from './repository-pattern.js';
import { parseSshPublicKeyLine, sshFingerprint } from './ssh-public-key.js';
import {
  classifyTokenSecret,
  hashTokenSecret,
  isTokenId,
  makeTokenSecret,
  tokenIdOf,
} from './token-secret.js';
import { TokenUses } from './token-uses.js';

/** Deploy keys of one repository: one for each machine that deploys it. */
const maxDeployKeys = 100;

type Signed = Extract<Principal, { kind: 'user' | 'machine' }>;

type Refuse = (refusal: SignInRefusal) => undefined;

/** Lost races before giving up. Two administrators changing one user at once lose one or two. */
const maxAttempts = 16;

/** What audit and push log call those who are no user: a user of that name could pass for them. */
const reservedNames: ReadonlySet<string> = new Set(['anonymous', 'trusted', 'system']);

/** Accounts in the coordinator. `accounts.ts` says what each method promises. */
export function createAccounts(parts: {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly random: Random;
  /** Absent: nobody signs in while the coordinator cannot be reached. */
  readonly past?: PastReads;
  /** Without it JSON Web Tokens are nobody's. */
  readonly issuers?: Pick<OpenIdIssuers, 'authenticate'>;
}): Accounts {
  return new CoordinatedAccounts(parts);
}

class CoordinatedAccounts implements Accounts {
  readonly #coordinator: Coordinator;
  readonly #decodeUser = rememberingDecoder(userRecord);
  readonly #decodeToken = rememberingDecoder(tokenRecord);
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #memberships: Memberships;
  readonly #tokenUses: TokenUses;
  readonly #owners = new GuessedOwners();
  readonly #past: PastReads | undefined;
  readonly #now: Source;
  readonly #issuers: Pick<OpenIdIssuers, 'authenticate'> | undefined;

  constructor(parts: Parameters<typeof createAccounts>[0]) {
    const { coordinator, clock, random } = parts;
    this.#issuers = parts.issuers;
    this.#coordinator = coordinator;
    this.#clock = clock;
    this.#random = random;
    this.#memberships = new Memberships(coordinator);
    this.#tokenUses = new TokenUses(coordinator, clock);
    this.#past = parts.past;
    this.#now = {
      get: (key) => coordinator.get(key),
      memberships: (user) => this.#memberships.of(user),
    };
  }

  async createUser(user: {
    name: string;
    admin: boolean;
    canCreate?: boolean;
  }): Promise<UserRecord> {
    checkUserName(user.name);
    if (reservedNames.has(user.name)) throw invalid(`${user.name} is not a name for a user`);
    const record: UserRecord = {
      name: user.name,
      admin: user.admin,
      disabled: false,
      canCreate: user.canCreate ?? true,
      createdAtMs: this.#clock.nowMs(),
    };
    const key = keys.user(user.name);
    const result = await this.#coordinator.transaction({
      binding: true,
      compares: [absent(key)],
      success: [{ type: 'put', key, value: encodeRecord(record) }],
      failure: [],
    });
    if (!result.succeeded) {
      throw new QuorateError('already-exists', `there is a user ${user.name} already`);
    }
    return record;
  }

  async listUsers(): Promise<readonly UserRecord[]> {
    const entries = await readAll(this.#coordinator, keys.users);
    return entries.map((entry) => decodeRecord(userRecord, entry));
  }

  async getUser(name: string): Promise<UserRecord | undefined> {
    if (!isUserName(name)) return undefined;
    const entry = await this.#coordinator.get(keys.user(name));
    return entry && this.#decodeUser(entry);
  }

  async setUserDisabled(name: string, disabled: boolean): Promise<UserRecord> {
    checkUserName(name);
    const key = keys.user(name);
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const entry = await this.#coordinator.get(key);
      if (entry === undefined) throw noSuchUser(name);
      const record = { ...decodeRecord(userRecord, entry), disabled };
      const result = await this.#coordinator.transaction({
        binding: true,
        compares: [{ key, target: 'modRevision', op: '=', operand: entry.modRevision }],
        success: [{ type: 'put', key, value: encodeRecord(record) }],
        failure: [],
      });
      if (result.succeeded) return record;
    }
    throw new QuorateError('aborted', `user ${name} is being changed by others; try again`);
  }

  async addKey(user: string, line: string): Promise<SshKey> {
    checkUserName(user);
    const { key, comment } = parseSshPublicKeyLine(line);
    const record: SshKeyRecord = {
      fingerprint: key.fingerprint,
      user,
      type: key.type,
      comment,
      blob: Buffer.from(key.blob).toString('base64'),
      createdAtMs: this.#clock.nowMs(),
    };
    const storeKey = keys.sshKey(key.fingerprint);
    const result = await this.#coordinator.transaction({
      binding: true,
      compares: [present(keys.user(user)), absent(storeKey)],
      success: [{ type: 'put', key: storeKey, value: encodeRecord(record) }],
      failure: [{ type: 'get', key: storeKey }],
    });
    if (result.succeeded) return shownKey(record);
    const [found] = result.results;
    const existing = found?.type === 'get' ? found.entries[0] : undefined;
    if (existing === undefined) throw noSuchUser(user);
    const owner = decodeRecord(anyKeyRecord, existing);
    throw new QuorateError(
      'already-exists',
      isUserKey(owner) && owner.user === user
        ? `${user} has this key already`
        : 'this key is in use by another user or as a deploy key',
    );
  }

  async listKeys(user?: string): Promise<readonly SshKey[]> {
    const records = (await this.#keyRecords()).filter(isUserKey);
    return records.filter((record) => user === undefined || record.user === user).map(shownKey);
  }

  async removeKey(fingerprint: string): Promise<void> {
    if (!/^SHA256:[A-Za-z0-9+/]{43}$/.test(fingerprint)) throw noSuchKey(fingerprint);
    const entry = await this.#coordinator.get(keys.sshKey(fingerprint));
    // Deploy keys are removed through their repository.
    if (entry === undefined || isDeployKey(decodeRecord(anyKeyRecord, entry)))
      throw noSuchKey(fingerprint);
    if (!(await this.#deleteKey(entry.key))) throw noSuchKey(fingerprint);
  }

  async addDeployKey(wanted: {
    repositoryId: string;
    line: string;
    write: boolean;
  }): Promise<DeployKey> {
    const { key, comment } = parseSshPublicKeyLine(wanted.line);
    if ((await this.listDeployKeys(wanted.repositoryId)).length >= maxDeployKeys) {
      throw new QuorateError(
        'resource-exhausted',
        `a repository takes at most ${maxDeployKeys} deploy keys`,
      );
    }
    const record: DeployKeyRecord = {
      fingerprint: key.fingerprint,
      repositoryId: wanted.repositoryId,
      write: wanted.write,
      type: key.type,
      comment,
      blob: Buffer.from(key.blob).toString('base64'),
      createdAtMs: this.#clock.nowMs(),
    };
    const storeKey = keys.sshKey(key.fingerprint);
    const result = await this.#coordinator.transaction({
      binding: true,
      compares: [absent(storeKey)],
      success: [{ type: 'put', key: storeKey, value: encodeRecord(record) }],
      failure: [],
    });
    if (result.succeeded) return shownDeployKey(record);
    throw new QuorateError(
      'already-exists',
      'this key is in use: a deploy key is for one repository and for no user',
    );
  }

  async listDeployKeys(repositoryId: string): Promise<readonly DeployKey[]> {
    const records = (await this.#keyRecords()).filter(isDeployKey);
    return records.filter((record) => record.repositoryId === repositoryId).map(shownDeployKey);
  }

  async removeDeployKey(repositoryId: string, fingerprint: string): Promise<void> {
    const own = await this.listDeployKeys(repositoryId);
    if (!own.some((key) => key.fingerprint === fingerprint)) throw noSuchKey(fingerprint);
    if (!(await this.#deleteKey(keys.sshKey(fingerprint)))) throw noSuchKey(fingerprint);
  }

  async createToken(token: NewToken): Promise<{ token: AccessToken; secret: string }> {
    checkUserName(token.user);
    checkNewToken(token, this.#clock.nowMs());
    const secret = makeTokenSecret(this.#random);
    const hash = hashTokenSecret(secret);
    const record: TokenRecord = {
      id: tokenIdOf(hash),
      hash,
      user: token.user,
      name: token.name,
      scope: token.scope,
      repositoryPattern: token.repositoryPattern ?? null,
      createdAtMs: this.#clock.nowMs(),
      expiresAtMs: token.expiresAtMs ?? null,
    };
    const sameId = keys.token(record.id);
    const result = await this.#coordinator.transaction({
      binding: true,
      compares: [
        present(keys.user(token.user)),
        // The id is a prefix of the key, so this says that no token has the id.
        { ...absent(sameId), rangeEnd: prefixEnd(sameId) },
      ],
      success: [{ type: 'put', key: keys.token(hash), value: encodeRecord(record) }],
      failure: [],
    });
    // The other compare cannot fail with a sound source of random bytes.
    if (!result.succeeded) throw noSuchUser(token.user);
    return { token: shownToken(record, undefined), secret };
  }

  async listTokens(user?: string): Promise<readonly AccessToken[]> {
    const entries = await readAll(this.#coordinator, keys.tokens);
    const records = entries.map((entry) => decodeRecord(tokenRecord, entry));
    const uses = await this.#tokenUses.all();
    return records
      .filter((record) => user === undefined || record.user === user)
      .map((record) => shownToken(record, uses.get(record.hash)));
  }

  async revokeToken(id: string): Promise<void> {
    const noSuchToken = new QuorateError('not-found', `there is no token ${id}`);
    if (!isTokenId(id)) throw noSuchToken;
    const sameId = keys.token(id);
    const found = await this.#coordinator.range(sameId, { rangeEnd: prefixEnd(sameId), limit: 1 });
    const [entry] = found.entries;
    if (entry === undefined) throw noSuchToken;
    const use = keys.tokenUse(entry.key.slice(keys.tokens.length));
    if (!(await this.#deleteKey(entry.key, use))) throw noSuchToken;
  }

  async authenticateToken(
    secret: string,
    { reading = false, onRefused }: SignInOptions = {},
  ): Promise<Principal | undefined> {
    if (looksLikeJwt(secret)) return await this.#issuers?.authenticate(secret);
    const refuse = refusing(onRefused);
    const form = classifyTokenSecret(secret);
    if (form === 'foreign') return refuse({ problem: 'wrong token' });
    if (form === 'mistyped') return refuse({ problem: 'mistyped token' });
    const hash = hashTokenSecret(secret);
    const principal = await this.#signIn(reading, (from) => this.#holderOf(hash, from, refuse));
    if (principal !== undefined && !isRecalled(principal)) this.#tokenUses.note(hash);
    return principal;
  }

  async authenticateKey(
    publicKeyBlob: Uint8Array,
    { reading = false, onRefused }: SignInOptions = {},
  ): Promise<Principal | undefined> {
    const refuse = refusing(onRefused);
    return this.#signIn(reading, (from) => this.#ownerOf(publicKeyBlob, from, refuse));
  }

  /** Judges by the coordinator, or, for a read that it does not answer, by what it said before. */
  async #signIn(
    reading: boolean,
    judge: (from: Source) => Promise<Signed | undefined>,
  ): Promise<Signed | undefined> {
    const now = (): Promise<Signed | undefined> => judge(this.#now);
    const past = this.#past;
    if (!reading || past === undefined) return now();
    return past.orPast(now, async () => {
      const principal = await judge({
        get: (key) => Promise.resolve(past.get(key)),
        memberships: (user) => Promise.resolve(this.#memberships.recall(user, past)),
      });
      return principal && { ...principal, recalled: true };
    });
  }

  async #holderOf(hash: string, from: Source, refuse: Refuse): Promise<Signed | undefined> {
    const accountOf = this.#owners.ahead(hash, from);
    const entry = await from.get(keys.token(hash));
    const token = entry && this.#decodeToken(entry);
    if (token === undefined || !sameBytes(Buffer.from(token.hash), Buffer.from(hash))) {
      return refuse({ problem: 'unknown or revoked token', tokenId: tokenIdOf(hash) });
    }
    const known = { user: token.user, tokenId: token.id };
    if (token.expiresAtMs !== null && token.expiresAtMs <= this.#clock.nowMs()) {
      return refuse({ problem: 'expired token', ...known });
    }
    const via: PrincipalSource = {
      type: 'token',
      tokenId: token.id,
      scope: token.scope,
      repositoryPattern: token.repositoryPattern ?? undefined,
    };
    const holder = this.#principalOf(via, await accountOf(token.user));
    return holder ?? refuse({ problem: 'disabled user', ...known });
  }

  async #ownerOf(
    publicKeyBlob: Uint8Array,
    from: Source,
    refuse: Refuse,
  ): Promise<Signed | undefined> {
    const fingerprint = sshFingerprint(publicKeyBlob);
    const entry = await from.get(keys.sshKey(fingerprint));
    const record = entry && decodeRecord(anyKeyRecord, entry);
    if (record === undefined || !sameBytes(Buffer.from(record.blob, 'base64'), publicKeyBlob)) {
      return refuse({ problem: 'unknown key' });
    }
    if (isDeployKey(record)) {
      const level = record.write ? 'write' : 'read';
      return {
        kind: 'machine',
        name: `deploy-key:${fingerprint}`,
        reach: [{ repositoryId: record.repositoryId, level }],
      };
    }
    const { user } = record;
    const owner = this.#principalOf({ type: 'key', fingerprint }, await readAccount(user, from));
    return owner ?? refuse({ problem: 'disabled user', user });
  }

  async certifiedUser(name: string, fingerprint: string): Promise<Principal | undefined> {
    return this.#principalOf({ type: 'key', fingerprint }, await readAccount(name, this.#now));
  }

  #principalOf(via: PrincipalSource, [entry, membership]: AccountRead): Signed | undefined {
    const user = entry && this.#decodeUser(entry);
    if (user === undefined || user.disabled) return undefined;
    return {
      kind: 'user',
      name: user.name,
      admin: user.admin,
      canCreate: user.canCreate,
      via,
      ...(membership === undefined ? {} : { membership }),
    };
  }

  async #keyRecords(): Promise<readonly AnyKeyRecord[]> {
    const entries = await readAll(this.#coordinator, keys.sshKeys);
    return entries.map((entry) => decodeRecord(anyKeyRecord, entry));
  }

  /** Deletes `key`, and with it what belongs to it. False when there is no such key. */
  async #deleteKey(key: string, ...also: readonly string[]): Promise<boolean> {
    const result = await this.#coordinator.transaction({
      binding: true,
      compares: [present(key)],
      success: [key, ...also].map((each): Operation => ({ type: 'delete', key: each })),
      failure: [],
    });
    return result.succeeded;
  }
}

function refusing(onRefused: SignInOptions['onRefused']): Refuse {
  return (refusal) => {
    onRefused?.(refusal);
    return undefined;
  };
}

function checkUserName(name: string): void {
  if (isUserName(name)) return;
  throw invalid('a user name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit');
}

function invalid(message: string): QuorateError {
  return new QuorateError('invalid-argument', message);
}

function checkNewToken(token: NewToken, nowMs: number): void {
  if (!/^[^\x00-\x1f\x7f-\x9f]{0,64}$/u.test(token.name)) {
    throw invalid('a token name is at most 64 characters long, without control characters');
  }
  if (token.repositoryPattern !== undefined) {
    const problem = repositoryPatternProblem(token.repositoryPattern);
    if (problem !== undefined) throw invalid(problem);
  }
  if (token.expiresAtMs !== undefined && !(token.expiresAtMs > nowMs)) {
    throw invalid('the time at which a token expires must be in the future');
  }
}

function absent(
  key: string,
): Extract<Compare, { target: 'createRevision' | 'modRevision' | 'version' }> {
  return { key, target: 'createRevision', op: '=', operand: 0 };
}

function present(key: string): Compare {
  return { key, target: 'createRevision', op: '>', operand: 0 };
}

function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && timingSafeEqual(left, right);
}

function noSuchUser(name: string): QuorateError {
  return new QuorateError('not-found', `there is no user ${name}`);
}

function noSuchKey(fingerprint: string): QuorateError {
  return new QuorateError('not-found', `there is no key ${fingerprint}`);
}
