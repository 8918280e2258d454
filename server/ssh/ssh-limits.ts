/** Bounds of the SSH listener. */
export interface SshLimits {
  /** Open connections in all; beyond them a new one is closed at once. */
  readonly maxConnections: number;
  /** Open connections of one address (IPv6: one /64). */
  readonly maxConnectionsPerAddress: number;
  /** Open connections of one user; what more of them ask is refused. */
  readonly maxConnectionsPerPrincipal: number;
  /** Open channels on one connection (`ControlMaster`). */
  readonly maxChannels: number;
  /** Authentication requests on one connection. An agent offers all its keys one by one. */
  readonly maxAuthenticationAttempts: number;
  /** Time from connecting to being authenticated. */
  readonly loginGraceMs: number;
  /** Longest time that a client may leave us waiting: for its bytes, for its reading, or for its next command. */
  readonly idleTimeoutMs: number;
  /** Longest exchange in all. */
  readonly requestTimeoutMs: number;
  /** A silent client is asked for a sign of life this often, and is taken for dead after three unanswered asks. */
  readonly keepaliveIntervalMs: number;
  /** Keys are exchanged anew after this many bytes, in case the client does not do so by itself. */
  readonly rekeyAfterBytes: number;
}

export const defaultSshLimits: SshLimits = {
  maxConnections: 10_000,
  maxConnectionsPerAddress: 512,
  maxConnectionsPerPrincipal: 256,
  // What sshd allows (MaxSessions).
  maxChannels: 10,
  // sshd's 6 locks out people with many keys in their agent; each attempt costs one small read.
  maxAuthenticationAttempts: 20,
  loginGraceMs: 30_000,
  idleTimeoutMs: 300_000,
  // A 100 GB push over 50 Mbit/s takes under 5 hours.
  requestTimeoutMs: 6 * 3_600_000,
  keepaliveIntervalMs: 30_000,
  // RFC 4344 section 3.2: AES keys last for 2^32 blocks of 16 bytes. Half of that; OpenSSH comes first anyway.
  rekeyAfterBytes: 32 * 1024 ** 3,
};
