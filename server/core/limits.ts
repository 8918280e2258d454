/** Bounds of one git request. Sizes of packs and counts of ref updates are repository settings. */
export interface GitServiceLimits {
  /** A v2 command request, or the want section of v0: about 300,000 wants and haves. `git http-backend` takes 10 MiB. */
  readonly maxFetchRequestBytes: number;
  /** The commands of a push: 50,000 of them with long names, and more. */
  readonly maxPushCommandBytes: number;
  readonly maxPushOptions: number;
  readonly maxPushOptionBytes: number;
  /** `shallow` lines of a push. */
  readonly maxPushShallow: number;
  /** Objects in one `object-info` request. */
  readonly maxObjectInfos: number;
  /** Encoded reference lists kept in memory, over all repositories. */
  readonly refCacheBytes: number;
  /** Small answers kept ready in memory, over all repositories. */
  readonly answerCacheBytes: number;
  /** Progress waiting for a slow pusher; what does not fit is dropped. */
  readonly maxPendingProgressBytes: number;
  /** Silence after which a pusher is sent a keep-alive. git's own servers take 5 s. */
  readonly keepAliveMs: number;
  /** Longest that a report waits for the audit log's disk. */
  readonly auditFlushMs: number;
  /** Bytes of a refused pack read and dropped, so that the pusher gets to read its report. */
  readonly maxDrainBytes: number;
}

export const defaultGitServiceLimits: GitServiceLimits = {
  maxFetchRequestBytes: 16 * 1024 ** 2,
  maxPushCommandBytes: 16 * 1024 ** 2,
  maxPushOptions: 100,
  maxPushOptionBytes: 64 * 1024,
  maxPushShallow: 10_000,
  maxObjectInfos: 10_000,
  refCacheBytes: 64 * 1024 ** 2,
  answerCacheBytes: 32 * 1024 ** 2,
  maxPendingProgressBytes: 256 * 1024,
  keepAliveMs: 5_000,
  auditFlushMs: 1_000,
  maxDrainBytes: 1024 ** 3,
};
