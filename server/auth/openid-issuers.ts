import type { JWTPayload } from 'jose';
import { z } from 'zod';
import type { Coordinator } from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';
import { decodeRecord, encodeRecord, readAll } from './account-records.js';
import { isUserName } from './account-names.js';
import { issuerUrlProblem, KeySets } from './openid-keys.js';
import type { PatternLevel, Principal } from './principal.js';
import { repositoryPatternMatches, repositoryPatternProblem } from './repository-pattern.js';

/** Asymmetric ones only: with a shared secret every verifier could sign, and `none` is no signature. */
export const tokenAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
] as const;

/** Stored under `issuers/`; also what the admin API shows. */
const trustRecord = z.object({
  name: z.string(),
  /** The `iss` claim, exactly; also where its configuration is found. */
  issuer: z.string(),
  /** Has to be among the token's `aud`. */
  audience: z.string(),
  /** Where its keys are; null: where its configuration says (OpenID Connect Discovery 1.0). */
  jwksUrl: z.string().nullable(),
  algorithms: z.array(z.enum(tokenAlgorithms)),
  /** Claim -> pattern that its value has to match; all of them. */
  claims: z.record(z.string(), z.string()),
  /** Pattern of the repositories that such a token reaches, and how far. */
  repositories: z.string(),
  level: z.enum(['read', 'write', 'admin']),
});

/** Tokens of an issuer that are believed, and what they reach. */
export type OpenIdTrust = Readonly<z.infer<typeof trustRecord>>;

/**
 * OpenID Connect bearer tokens of programs (CI): whom to believe, kept in the coordinator, and the judgement of tokens.
 * Errors: `invalid-argument`, `not-found`, `resource-exhausted`, `unavailable`.
 */
export interface OpenIdIssuers {
  /** Adds it, or replaces the one of that name. */
  set(trust: OpenIdTrust): Promise<OpenIdTrust>;
  list(): Promise<readonly OpenIdTrust[]>;
  remove(name: string): Promise<void>;
  /**
   * The principal of a JSON Web Token (RFC 7519), or undefined when nobody vouches for it, or for nothing here.
   * `unavailable` when the issuer's keys cannot be had.
   */
  authenticate(token: string): Promise<Principal | undefined>;
}

export function createOpenIdIssuers(parts: {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
}): OpenIdIssuers {
  return new CoordinatedIssuers(parts.coordinator, parts.clock);
}

/** Whether a secret has the form of a JSON Web Token; access tokens have no dots. */
export function looksLikeJwt(secret: string): boolean {
  return /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*$/.test(secret);
}

/** All are read with each such sign-in. */
const maxTrusts = 100;
/** Those of CI services have 1 to 2 KB. */
const maxTokenLength = 8192;
/** Of the issuer's clock against this one. */
const clockToleranceSeconds = 30;
/** Longer values match nothing: a match takes pattern x value steps. */
const maxClaimLength = 1024;
const maxClaims = 16;
const maxPatternLength = 256;
/** Of a subject, in logs and trails. */
const maxShownSubject = 160;

class CoordinatedIssuers implements OpenIdIssuers {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;
  readonly #keySets: KeySets;

  constructor(coordinator: Coordinator, clock: Clock) {
    this.#coordinator = coordinator;
    this.#clock = clock;
    this.#keySets = new KeySets(clock, maxTrusts);
  }

  async set(trust: OpenIdTrust): Promise<OpenIdTrust> {
    const problem = trustProblem(trust);
    if (problem !== undefined) throw new QuorateError('invalid-argument', problem);
    const known = await this.list();
    if (known.length >= maxTrusts && !known.some(({ name }) => name === trust.name)) {
      throw new QuorateError('resource-exhausted', `there are at most ${maxTrusts} issuers`);
    }
    await this.#coordinator.transaction({
      binding: true,
      compares: [],
      success: [{ type: 'put', key: keys.issuer(trust.name), value: encodeRecord(trust) }],
      failure: [],
    });
    return trust;
  }

  async list(): Promise<readonly OpenIdTrust[]> {
    const entries = await readAll(this.#coordinator, keys.issuers);
    return entries.map((entry) => decodeRecord(trustRecord, entry));
  }

  async remove(name: string): Promise<void> {
    const key = keys.issuer(name);
    const gone =
      isUserName(name) &&
      (await this.#coordinator.transaction({
        binding: true,
        compares: [{ key, target: 'createRevision', op: '>', operand: 0 }],
        success: [{ type: 'delete', key }],
        failure: [],
      }));
    if (gone === false || !gone.succeeded) {
      throw new QuorateError('not-found', `there is no issuer ${name}`);
    }
  }

  async authenticate(token: string): Promise<Principal | undefined> {
    const issuer = await unverifiedIssuer(token);
    if (issuer === undefined) return undefined;
    const reach: PatternLevel[] = [];
    const aliases: string[] = [];
    let name: string | undefined;
    for (const trust of await this.list()) {
      if (trust.issuer !== issuer) continue;
      const payload = await this.#verify(token, trust);
      if (payload === undefined || !claimsMatch(trust, payload)) continue;
      reach.push({ pattern: trust.repositories, level: trust.level });
      aliases.push(`oidc:${trust.name}`);
      name ??= `oidc:${trust.name}:${shownSubject(payload)}`;
    }
    return name === undefined ? undefined : { kind: 'machine', name, reach, aliases };
  }

  async #verify(token: string, trust: OpenIdTrust): Promise<JWTPayload | undefined> {
    const { errors, jwtVerify } = await import('jose');
    const keySet = await this.#keySets.of(trust.issuer, trust.jwksUrl);
    try {
      const { payload } = await jwtVerify(token, keySet, {
        issuer: trust.issuer,
        audience: trust.audience,
        algorithms: [...trust.algorithms],
        requiredClaims: ['exp', 'sub'],
        clockTolerance: clockToleranceSeconds,
        currentDate: new Date(this.#clock.nowMs()),
      });
      return payload;
    } catch (error) {
      if (error instanceof QuorateError) throw error;
      if (error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid) {
        throw new QuorateError('unavailable', 'the keys of the token issuer cannot be had', {
          cause: error,
        });
      }
      if (error instanceof errors.JOSEError || error instanceof TypeError) return undefined;
      throw error;
    }
  }
}

/** Which issuer a token claims to be of; nothing of it is believed yet. */
async function unverifiedIssuer(token: string): Promise<string | undefined> {
  if (token.length > maxTokenLength) return undefined;
  // Loaded with the first such token: most servers never see one.
  const { decodeJwt, errors } = await import('jose');
  try {
    const { iss } = decodeJwt(token);
    return iss;
  } catch (error) {
    if (error instanceof errors.JOSEError) return undefined;
    throw error;
  }
}

function claimsMatch(trust: OpenIdTrust, payload: JWTPayload): boolean {
  return Object.entries(trust.claims).every(([claim, pattern]) => {
    const value = Object.hasOwn(payload, claim) ? payload[claim] : undefined;
    if (typeof value !== 'string' && typeof value !== 'boolean' && typeof value !== 'number') {
      return false;
    }
    const text = String(value);
    return text.length <= maxClaimLength && repositoryPatternMatches(pattern, text);
  });
}

function shownSubject({ sub = '' }: JWTPayload): string {
  return sub.replaceAll(/[^\x21-\x7e]/g, '?').slice(0, maxShownSubject);
}

function trustProblem(trust: OpenIdTrust): string | undefined {
  if (!isUserName(trust.name)) {
    return 'name: has to be 1 to 64 of a-z 0-9 . _ - and start with a letter or digit';
  }
  const issuer = issuerUrlProblem(trust.issuer);
  if (issuer !== undefined) return `issuer: ${issuer}`;
  const jwksUrl = trust.jwksUrl === null ? undefined : issuerUrlProblem(trust.jwksUrl);
  if (jwksUrl !== undefined) return `jwksUrl: ${jwksUrl}`;
  if (trust.audience === '' || trust.audience.length > 1024) {
    return 'audience: has to be 1 to 1,024 characters long';
  }
  if (trust.algorithms.length === 0) return 'algorithms: has to name at least one';
  const claims = Object.entries(trust.claims);
  // Without one, every token of a public CI service would be let in.
  if (claims.length === 0) return 'claims: has to name at least one claim to go by';
  if (claims.length > maxClaims) return `claims: has to name at most ${maxClaims}`;
  if (claims.some(([, pattern]) => pattern === '' || pattern.length > maxPatternLength)) {
    return `claims: a pattern is 1 to ${maxPatternLength} characters long`;
  }
  const repositories = repositoryPatternProblem(trust.repositories);
  return repositories === undefined ? undefined : `repositories: ${repositories}`;
}
