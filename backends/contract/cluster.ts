import type { MaintenanceProgress } from './backend.js';
import type { Oid } from './objects.js';
import type { VerifyReport } from './replica.js';

/** A storage node, alive or not. */
export interface NodeInfo {
  readonly nodeId: string;
  /** Random, of its disk; undefined when the node is away and nothing says what it had. */
  readonly storeId: string | undefined;
  readonly alive: boolean;
  /** It announces itself, and does not answer the process that was asked. */
  readonly silent: boolean;
  /** What people decided: it is to be emptied, or is not to come back. */
  readonly mark: 'draining' | 'removed' | undefined;
  /** When they did, milliseconds since the Unix epoch; undefined without a mark, or when that was not noted. */
  readonly markedAtMs: number | undefined;
  /** Of a node that is alive or silent. */
  readonly address: string | undefined;
  readonly zone: string | undefined;
  readonly weight: number | undefined;
  readonly capacityBytes: number | undefined;
  readonly usedBytes: number | undefined;
  /**
   * Why it takes nothing new although it runs (its disk is full, say), and the remedy, in its own words; of a silent
   * one, what the asked process knows of why.
   */
  readonly problem: string | undefined;
  /** By how much its clock on the wall is ahead of the asked process'; undefined while they are together, or it is away. */
  readonly clockApartMs: number | undefined;
  /** Copies that it has, learners and readers included. */
  readonly copies: number;
}

/** A storage node, as a process knows it that cannot ask the coordinator. */
export interface KnownNode {
  readonly nodeId: string;
  readonly address: string;
  readonly zone: string;
  /** As this process heard last. */
  readonly mark: NodeInfo['mark'];
  /** It answered this process' last question, of the last second or two. */
  readonly answers: boolean;
  /** Of one that answers what it says is wrong with it; of another one what is known of why it does not. */
  readonly problem: string | undefined;
}

/** One copy of a repository. */
export interface ReplicaInfo {
  readonly nodeId: string;
  readonly storeId: string;
  /** A `reader` is there while the repository is read much; it counts for no push. */
  readonly role: 'voter' | 'learner' | 'reader';
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
  /**
   * `received`, `uploaded`, `locked`, `not locked`, `prepared`, `judged`, `judged again`, `committed`, `applied`,
   * `post-receive`, `refused`, `failed`.
   */
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
  /** Its name now; absent when it is gone. */
  readonly repository?: string;
  readonly actor: string;
  /** Name of the front-end that took it. */
  readonly frontEnd: string;
  readonly steps: readonly PushStep[];
}

/** A copy of a repository whose majority may be lost. */
export interface LossCopy {
  readonly nodeId: string;
  readonly storeId: string;
  /** `unnamed`: the repository's record, of an older copy of the coordinator, does not name it. */
  readonly role: ReplicaInfo['role'] | 'unnamed';
  /** Its store answers. */
  readonly alive: boolean;
  /** Applied generation and digest; undefined when it does not answer or has nothing. */
  readonly generation: number | undefined;
  readonly digest: string | undefined;
  readonly frozen: string | undefined;
  /** Something can go on from it. */
  readonly usable: boolean;
  /**
   * Why it is taken to be gone for good: its node was removed, came back with another store, has nothing of it any
   * more, has been away for long, or was named. Undefined: it may come back.
   */
  readonly gone: 'removed' | 'replaced' | 'empty' | 'away' | 'named' | undefined;
}

/** A value of a ref that a recovery does not go on from. */
export interface OverruledRef {
  readonly ref: string;
  /** Undefined: the ref was deleted, and is there again. */
  readonly oid: Oid | undefined;
  /** Ref under which it is kept; undefined when no store that answers has its objects. */
  readonly keptAs: string | undefined;
}

/** A push that no store which answers has applied. */
export interface OverruledPush {
  /** Undefined for one that was prepared, and of whose commit nothing is known: it was acknowledged to nobody. */
  readonly generation: number | undefined;
  readonly pushId: string;
  readonly actor: string | undefined;
  readonly atMs: number | undefined;
  /** Undefined when only the lost stores knew. */
  readonly refs: readonly OverruledRef[] | undefined;
  /** Branch that HEAD was made to name, and does not any more. */
  readonly head: string | undefined;
}

/** What there is of a repository after stores were lost, and what a recovery makes of it. */
export interface LossReport {
  /** Committed, says the coordinator; less than the survivor's when that is an older copy of itself. */
  readonly generation: number;
  readonly copies: readonly LossCopy[];
  /** The copy from which it goes on: of those that answer, one with the highest generation. */
  readonly survivor: { readonly nodeId: string; readonly generation: number } | undefined;
  readonly overruled: readonly OverruledPush[];
  /** Why it is not to be recovered in this way, or not yet; undefined when it may be. */
  readonly refusal: string | undefined;
  /** Generation that it has now; undefined when nothing was changed. */
  readonly recovered: number | undefined;
}

export interface LossRecovery {
  /** Generation of the survivor, as the report says: the recovery is carried out. Undefined: only the report. */
  readonly accept: number | undefined;
  /** Nodes that somebody says are gone for good. */
  readonly gone: readonly string[];
  /** Keeps what was prepared and never acknowledged as refs, too. */
  readonly keepUnacknowledged: boolean;
  /** Who wants it, for the push log. */
  readonly actor: string;
  readonly signal: AbortSignal;
}

export interface CopyVerified extends Partial<VerifyReport> {
  readonly nodeId: string;
  readonly storeId: string;
  /**
   * Why it could not be verified: its node is away, or its machine is short of what it takes. Nothing is said of such a
   * copy.
   */
  readonly unread?: string;
  /** Why what was found damaged could not be noted: nothing heals it before it is found again. */
  readonly unreported?: string;
}

/** What people see of the stores, the copies on them and the pushes to them. Errors: `not-found`, `unavailable`. */
export interface StoreView {
  /** Those that are alive, that have a mark, or that a repository has a copy on. In order of their ids. */
  nodes(): Promise<readonly NodeInfo[]>;
  /** Those that had announced themselves when the coordinator was heard of last, without asking it. By their ids. */
  known(): readonly KnownNode[];
  replicas(repositoryId: string): Promise<readonly ReplicaInfo[]>;
  /** Reads every copy from its disk. What is found damaged is healed in the background, where others have it sound. */
  verify(
    repositoryId: string,
    options: {
      readonly signal: AbortSignal;
      readonly progress: (progress: MaintenanceProgress) => void;
    },
  ): Promise<readonly CopyVerified[]>;
  /** The life of a push of the last day. */
  explain(pushId: string): Promise<PushStory | undefined>;
}

/** Repositories of which too few voters answer for a push at `quorum`. */
export interface MissedMajorities {
  readonly repositories: number;
  /** Nodes whose copies of these do not answer, or that came back without; in order of their ids. */
  readonly nodes: readonly string[];
}

/** A setting that has to be the same at all front-ends, and is not. */
export interface DifferingSetting {
  readonly name: string;
  readonly values: readonly { readonly value: string; readonly frontEnds: readonly string[] }[];
}

/** A copy that could not be filled, since nothing came of it for too long, or its disk hangs. */
export interface FillGivenUp {
  /** Its name, or its id when it is gone. */
  readonly repository: string;
  readonly nodeId: string;
  /** How often, one after the other. */
  readonly times: number;
  readonly reason: string;
}

/** What people do with the nodes of a cluster and the copies on them. Errors: `not-found`, `invalid-argument`, `failed-precondition`, `unavailable`. */
export interface ClusterControl {
  /** Copies that a repository is to have. */
  readonly replicationFactor: number;
  /**
   * Why no other storage node takes part with this process, where credentials are the reason, with the remedy; undefined
   * while one does, or there is no other.
   */
  readonly stranger: string | undefined;
  /** Undefined takes any mark away. A node that was removed is not drained: `failed-precondition`. */
  mark(nodeId: string, mark: 'draining' | undefined): Promise<void>;
  /**
   * The node is not to come back: its copies are made elsewhere at once. One that lives was drained before and has no
   * copy any more, or else it takes `force`; without that it is refused with `failed-precondition`. Of one that was
   * removed already nothing is asked.
   */
  remove(nodeId: string, options: { readonly force: boolean }): Promise<void>;
  /** The nodes that a repository is to be on from now on; undefined leaves it to placement again. Resolves at once. */
  move(repositoryId: string, nodeIds: readonly string[] | undefined): Promise<void>;
  /**
   * For a repository that has lost the majority of its stores for good: goes on from a copy that is left, as the next
   * generation, and keeps the values that this overrules as refs. Refused with `failed-precondition` while that is not
   * needed, or while the others may come back.
   */
  recover(repositoryId: string, recovery: LossRecovery): Promise<LossReport>;
  /** How many repositories' copies are being changed, or wait for it, in the whole cluster. */
  repairing(): Promise<number>;
  /** Copies whose fill was given up and is tried again later, as whoever keeps the sets told; some, if there are many. */
  fillsGivenUp(): Promise<readonly FillGivenUp[]>;
  /** Settings in which the front-ends that live differ, and must not. */
  differingSettings(): Promise<readonly DifferingSetting[]>;
  /**
   * Copies that are known to lack pushes which every voter had (a disk was put back to an older copy, or lost files), by
   * node, as whoever keeps the sets told; not from when that happened, but from when copies were compared.
   */
  copiesBehind(): Promise<Readonly<Record<string, number>>>;
  /** How many repositories have a push that some voter has not applied, in the whole cluster. */
  lagging(): Promise<number>;
  /** As this process sees the nodes, in the whole cluster. */
  withoutMajority(): Promise<MissedMajorities>;
}
