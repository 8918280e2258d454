import type { FetchImplementation, JWTVerifyGetKey } from 'jose';
import { z } from 'zod';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';

/** An issuer answers in tens of milliseconds; a client is waiting. */
const fetchTimeoutMs = 5_000;
/** A key set with ten keys has 4 KB. */
const maxAnswerBytes = 256 * 1024;
/** Keys are fetched again after this; rotated ones are, by their id, as soon as a token names them. */
const maxAgeMs = 600_000;
/** Between two fetches, whatever tokens name: or strangers could make this server hammer an issuer. */
const cooldownMs = 30_000;

const configurationSchema = z.object({ issuer: z.string(), jwks_uri: z.string() });

interface Known {
  readonly atMs: number;
  readonly keySet: Promise<JWTVerifyGetKey>;
}

/** Why a URL is not one to fetch keys from, or undefined when it is. */
export function issuerUrlProblem(text: string): string | undefined {
  if (!URL.canParse(text)) return 'is no URL';
  const url = new URL(text);
  if (url.username !== '' || url.password !== '') return 'must not hold credentials';
  if (url.protocol === 'https:') return undefined;
  return url.protocol === 'http:' && isLoopback(url.hostname)
    ? undefined
    : 'has to start with https:// (http:// only on this machine)';
}

/** The public keys of issuers: fetched when they are needed, kept for a while, never fetched often. */
export class KeySets {
  readonly #clock: Clock;
  readonly #maxKnown: number;
  readonly #known = new Map<string, Known>();

  constructor(clock: Clock, maxKnown: number) {
    this.#clock = clock;
    this.#maxKnown = maxKnown;
  }

  /** `unavailable` when the issuer's configuration cannot be had; asked for again only after the cooldown. */
  async of(issuer: string, jwksUrl: string | null): Promise<JWTVerifyGetKey> {
    const name = JSON.stringify([issuer, jwksUrl]);
    const nowMs = this.#clock.monotonicMs();
    const known = this.#known.get(name);
    if (known !== undefined && nowMs - known.atMs < maxAgeMs) return await known.keySet;
    const keySet =
      jwksUrl === null ? discover(issuer, this.#clock) : remoteKeys(jwksUrl, this.#clock);
    this.#known.delete(name);
    this.#known.set(name, { atMs: nowMs, keySet });
    const [oldest] = this.#known.keys();
    if (this.#known.size > this.#maxKnown && oldest !== undefined) this.#known.delete(oldest);
    try {
      return await keySet;
    } catch (error) {
      // The failure is remembered for as long as the cooldown.
      this.#known.set(name, { atMs: nowMs - maxAgeMs + cooldownMs, keySet });
      throw error;
    }
  }
}

/** OpenID Connect Discovery 1.0, section 4. */
async function discover(issuer: string, clock: Clock): Promise<JWTVerifyGetKey> {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  const answer = await boundedFetch(url, { signal: AbortSignal.timeout(fetchTimeoutMs) });
  const parsed = configurationSchema.safeParse(
    answer.ok ? await answer.json().catch(() => undefined) : undefined,
  );
  if (!parsed.success || parsed.data.issuer !== issuer) {
    throw unavailable('the configuration of the token issuer is not what it should be');
  }
  const problem = issuerUrlProblem(parsed.data.jwks_uri);
  if (problem !== undefined) throw unavailable(`the key URL of the token issuer ${problem}`);
  return remoteKeys(parsed.data.jwks_uri, clock);
}

async function remoteKeys(url: string, clock: Clock): Promise<JWTVerifyGetKey> {
  const { createRemoteJWKSet, customFetch } = await import('jose');
  // jose's cooldown counts from the last success; without this every token would ask an issuer that is down.
  let failure: { readonly atMs: number; readonly error: unknown } | undefined;
  const fetchOnce: FetchImplementation = async (target, init) => {
    if (failure !== undefined && clock.monotonicMs() - failure.atMs < cooldownMs) {
      throw failure.error;
    }
    try {
      const answer = await boundedFetch(target, { signal: init.signal });
      if (!answer.ok) throw unavailable('the token issuer does not give out its keys');
      failure = undefined;
      return answer;
    } catch (error) {
      failure = { atMs: clock.monotonicMs(), error };
      throw error;
    }
  };
  return createRemoteJWKSet(new URL(url), {
    timeoutDuration: fetchTimeoutMs,
    cooldownDuration: cooldownMs,
    cacheMaxAge: maxAgeMs,
    [customFetch]: fetchOnce,
  });
}

/** No redirects: the URL was judged, another one was not. */
async function boundedFetch(
  url: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<Response> {
  try {
    const answer = await fetch(url, {
      signal,
      redirect: 'error',
      headers: { Accept: 'application/json' },
    });
    const parts: Uint8Array[] = [];
    let length = 0;
    for await (const part of answer.body ?? []) {
      length += part.length;
      if (length > maxAnswerBytes) throw unavailable('the token issuer sent too long an answer');
      parts.push(part);
    }
    return new Response(Buffer.concat(parts), { status: answer.status });
  } catch (error) {
    if (error instanceof QuorateError) throw error;
    throw new QuorateError('unavailable', 'the token issuer cannot be reached', { cause: error });
  }
}

function unavailable(message: string): QuorateError {
  return new QuorateError('unavailable', message);
}

function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname);
}
