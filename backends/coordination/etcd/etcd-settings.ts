/** How to reach an etcd cluster. Plain data: it is handed to the thread that keeps leases alive. */
export interface EtcdSettings {
  /** `HOST:PORT` of the members, an IPv6 address in brackets. At least one; those of one cluster. */
  readonly endpoints: readonly string[];
  /** Every key begins with it, so that one etcd can serve several clusters and other programs. May be empty. */
  readonly prefix: string;
  /** TLS is spoken exactly when this is given. PEM. */
  readonly tls?: {
    readonly ca: Uint8Array;
    readonly cert?: Uint8Array;
    readonly key?: Uint8Array;
  };
  /**
   * How long a request that may be repeated, or was not taken yet, is tried. Default 5,000: several elections at etcd's
   * own timeouts (one takes 1 to 2 s).
   */
  readonly patienceMs?: number;
  /**
   * Longest wait for one answer. Default 3,000: a healthy member answers in milliseconds, one with a busy disk in a
   * second or two. That a member hangs, or has lost its leader, is noticed sooner (`LeaderWatch`): etcd itself would
   * hold a request for seven seconds then.
   */
  readonly answerMs?: number;
  readonly auth?: { readonly user: string; readonly password: string };
}

export const defaultAnswerMs = 3_000;
