import type { MaintenanceProgress } from './backend.js';
import type { VerifyReport } from './replica.js';

/** A storage node, alive or not. */
export interface NodeInfo {
  readonly nodeId: string;
  /** Random, of its disk; undefined when the node is away and nothing says what it had. */
  readonly storeId: string | undefined;
  readonly alive: boolean;
  /** What people decided: it is to be emptied, or is not to come back. */
  readonly mark: 'draining' | 'removed' | undefined;
  /** Of a node that is alive. */
  readonly address: string | undefined;
  readonly zone: string | undefined;
  readonly weight: number | undefined;
  readonly capacityBytes: number | undefined;
  readonly usedBytes: number | undefined;
  /** Copies that it has, learners included. */
  readonly copies: number;
}

/** One copy of a repository. */
export interface ReplicaInfo {
  readonly nodeId: string;
  readonly storeId: string;
  readonly role: 'voter' | 'learner';
  /** Declared by a change of configuration. */
  readonly declared: 'down' | 'stale' | undefined;
  readonly alive: boolean;
  /** Applied generation; undefined when it does not answer or has nothing. */
  readonly generation: number | undefined;
  /** Generations behind the head. */
  readonly lag: number | undefined;
  /** Its refs are those of the head; undefined when it is behind or does not answer. */
  readonly sound: boolean | undefined;
  /** Why it neither serves nor changes this copy. */
  readonly frozen: string | undefined;
}

/** One step of a push's life. */
export interface PushStep {
  /** `received`, `uploaded`, `locked`, `prepared`, `judged`, `committed`, `applied`, `told`, `refused`, `failed`. */
  readonly step: string;
  readonly atMs: number;
  /** Node whose step it was, when it was one's. */
  readonly nodeId?: string;
  /** Whatever else is known: a generation, a reason. */
  readonly detail?: string;
}

export interface PushStory {
  readonly pushId: string;
  readonly repositoryId: string;
  readonly actor: string;
  /** Name of the front-end that took it. */
  readonly frontEnd: string;
  readonly steps: readonly PushStep[];
}

export interface CopyVerified extends VerifyReport {
  readonly nodeId: string;
  readonly storeId: string;
}

/** What people do with the nodes of a cluster and the copies on them. Errors: `not-found`, `invalid-argument`, `unavailable`. */
export interface ClusterControl {
  /** Those that are alive, that have a mark, or that a repository has a copy on. In order of their ids. */
  nodes(): Promise<readonly NodeInfo[]>;
  /** Undefined takes the mark away. */
  mark(nodeId: string, mark: 'draining' | 'removed' | undefined): Promise<void>;
  replicas(repositoryId: string): Promise<readonly ReplicaInfo[]>;
  /** The nodes that a repository is to be on from now on; undefined leaves it to placement again. Resolves at once. */
  move(repositoryId: string, nodeIds: readonly string[] | undefined): Promise<void>;
  /** Reads every copy from its disk. What is found damaged is healed from the others in the background. */
  verify(
    repositoryId: string,
    options: {
      readonly signal: AbortSignal;
      readonly progress: (progress: MaintenanceProgress) => void;
    },
  ): Promise<readonly CopyVerified[]>;
  /** The life of a push of the last day. */
  explain(pushId: string): Promise<PushStory | undefined>;
  /** Repositories whose copies are being changed, when this process does it. */
  repairing(): readonly string[];
  /** Repositories of whose pushes through this process some voter has not applied all. */
  lagging(): readonly string[];
}
