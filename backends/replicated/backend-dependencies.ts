import type { Locks } from '../coordination/locks.js';
import type { ClusterControl, StoreView } from '../contract/cluster.js';
import type { Coordinator, ProcessLease } from '../contract/coordinator.js';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import type { RefSnapshot } from '../contract/objects.js';
import type { PastReads } from '../contract/past-reads.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { LogReader } from '../contract/replica.js';
import type { HeadRecord, LogEntry } from '../contract/repository.js';
import type { GitRunner } from '../git/git-runner.js';
import type { KnownDamages } from './known-damages.js';
import type { PushTraces } from './push-trace.js';
import type { Consistency } from './quorum.js';
import type { FrontEndFacts } from './shared-settings.js';
import type { InlineLimit } from './stored-updates.js';
import type { ReplicaDirectory } from './voters.js';

/** What a `ReplicatedBackend` is made of. */
export interface ReplicatedBackendDependencies extends InlineLimit {
  readonly coordinator: Coordinator;
  /** For the recovery: refuses nothing while commits are frozen. Absent: the same. */
  readonly unguarded?: Coordinator;
  /** By which others see that this front-end lives. */
  readonly lease: ProcessLease;
  /** What it says of itself there; absent where it is alone. */
  readonly facts?: FrontEndFacts;
  readonly locks: Locks;
  readonly log: LogReader;
  readonly replicas: ReplicaDirectory;
  /** Copies that are to be read last; absent where there is no other copy. */
  readonly damages?: Pick<KnownDamages, 'has'>;
  /** The refs of a committed generation, where this process knows them; absent where a store's are as near. */
  readonly knownSnapshot?: (repositoryId: string, head: HeadRecord) => RefSnapshot | undefined;
  /** Told of every commit of this process, from which the refs may be known without asking a store. Never throws. */
  readonly learnCommit?: (repositoryId: string, entry: LogEntry) => void;
  readonly pipeline: PushPipeline;
  readonly git: GitRunner;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  /** Where an import is fetched to before it is pushed. */
  readonly scratchDirectory: string;
  readonly lockTimeoutMs: number;
  /** Stores that a new repository is put on. */
  readonly replicationFactor: number;
  /** Of pushes that say nothing else, to repositories that say nothing else. */
  readonly consistency: Consistency;
  /** Of reads of repositories that say nothing else. */
  readonly readConsistency: 'strong' | 'eventual';
  /** For eventual reads while the coordinator cannot be reached; absent: there are none. */
  readonly past?: PastReads;
  /** Reads per second from which on a repository is told to who keeps the sets; absent: nothing is told. */
  readonly reportReadsFrom?: number;
  /** Where the lives of pushes are kept; absent: nowhere. */
  readonly traces?: PushTraces;
  /** What people see of stores, copies and pushes. */
  readonly stores?: StoreView;
  /** What people do with nodes and copies; absent with a single store. */
  readonly cluster?: ClusterControl;
  /** What runs beside it, from its start to its close. */
  readonly companions?: readonly { start(): void; close(): Promise<void> }[];
  /** `local`, or `replicated`. */
  readonly name: string;
  /** What only the stores of this process know; zeros where it has none. */
  readonly local: {
    readonly objectEngine: string;
    readonly quarantines: () => number;
    readonly maintenanceQueued: () => number;
    /** Settles quarantines that an earlier process left; called once the log is applied. */
    readonly resolveQuarantines: () => Promise<void>;
    readonly close: () => Promise<void>;
  };
}
