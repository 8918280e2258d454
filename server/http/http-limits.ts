/** Bounds of the HTTP listener. 0 switches off where the comment says so. */
export interface HttpLimits {
  /** Bytes of request line and headers; beyond them 431. */
  readonly headerBytes: number;
  /** Time a client has for its request line and headers; then 408. */
  readonly headersTimeoutMs: number;
  /** Longest silence of a client that we wait for: its body, or its reading of our answer. */
  readonly idleTimeoutMs: number;
  /** Longest request in all. */
  readonly requestTimeoutMs: number;
  /** How long an idle connection is kept. */
  readonly keepAliveTimeoutMs: number;
  /** Bytes of a fetch request after decoding; beyond them 413. */
  readonly maxFetchBodyBytes: number;
  /** Bytes of a push after decoding (0: only the repository's own limit); beyond them 413. */
  readonly maxPushBodyBytes: number;
  /** Open connections in all; beyond them 503. */
  readonly maxConnections: number;
  /** Open connections of one address (IPv6: one /64); beyond them 429. */
  readonly maxConnectionsPerAddress: number;
  /** Wrong credentials from one address in a minute (0: no limit); beyond them 429 until the minute is over. */
  readonly maxAuthenticationFailuresPerMinute: number;
}

export const defaultHttpLimits: HttpLimits = {
  headerBytes: 16 * 1024,
  headersTimeoutMs: 30_000,
  idleTimeoutMs: 120_000,
  // A 100 GB push over 50 Mbit/s takes under 5 hours.
  requestTimeoutMs: 6 * 3_600_000,
  keepAliveTimeoutMs: 65_000,
  // A want line is 50 bytes: a million wants, more refs than a repository may hold.
  maxFetchBodyBytes: 64 * 1024 ** 2,
  maxPushBodyBytes: 0,
  maxConnections: 10_000,
  maxConnectionsPerAddress: 512,
  maxAuthenticationFailuresPerMinute: 30,
};
