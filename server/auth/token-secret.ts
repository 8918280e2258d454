import { createHash } from 'node:crypto';
import type { Random } from '../../backends/contract/environment.js';

/**
 * The secret of an access token: `qrt_`, 43 characters that carry 256 random bits (base64url), and 6 characters of
 * checksum over them. The prefix lets secret scanners find leaked ones; the checksum tells a typo from an unknown
 * token, in logs only.
 */
const prefix = 'qrt_';
const randomBytes = 32;
const bodyLength = 43;
const checksumLength = 6;

/** Hexadecimal digits of the hash that name a token in public: 64 bits, so that two never meet. */
const idLength = 16;

/** Makes a new secret. */
export function makeTokenSecret(random: Random): string {
  const body = Buffer.from(random.bytes(randomBytes)).toString('base64url');
  return `${prefix}${body}${checksumOf(body)}`;
}

/**
 * What a presented secret looks like, for logs: `mistyped` has the form and a wrong checksum, `foreign` is no token of
 * this server's kind at all. The client is told the same in every case.
 */
export function classifyTokenSecret(secret: string): 'well-formed' | 'mistyped' | 'foreign' {
  if (secret.length !== prefix.length + bodyLength + checksumLength) return 'foreign';
  if (!/^qrt_[A-Za-z0-9_-]+$/.test(secret)) return 'foreign';
  const body = secret.slice(prefix.length, prefix.length + bodyLength);
  return secret.endsWith(checksumOf(body)) ? 'well-formed' : 'mistyped';
}

/** Under what a token is stored: SHA-256, hexadecimal. Fast on purpose: 256 random bits cannot be guessed. */
export function hashTokenSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

/** The token's public id: a prefix of its hash, so that it can be found by a range read. */
export function tokenIdOf(hash: string): string {
  return hash.slice(0, idLength);
}

/** Whether a string can be a token's public id. */
export function isTokenId(id: string): boolean {
  return id.length === idLength && /^[0-9a-f]+$/.test(id);
}

function checksumOf(body: string): string {
  return createHash('sha256')
    .update(`quorate token ${body}`)
    .digest('base64url')
    .slice(0, checksumLength);
}
