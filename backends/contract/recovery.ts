/** A copy of a repository, for a comparison with its head. */
export interface CopyFound {
  readonly nodeId: string;
  readonly storeId: string;
  /** Generation that its disk says it has; undefined when it has nothing, or does not answer. */
  readonly generation: number | undefined;
  /** It does not answer, and may come back: it might hold more than the others. */
  readonly silent: boolean;
  /** The repository's record names it. Another one came to be after the coordinator's copy was made, or was left over. */
  readonly named: boolean;
  /**
   * Why it does not answer; or why its copy cannot be read, which is then never gone on from, and filled anew from the
   * others. Undefined when neither is so.
   */
  readonly trouble: string | undefined;
}

/** A storage node that announces itself. */
export interface NodeHeard {
  readonly nodeId: string;
  /** Repositories of which it holds something; undefined when it does not say. */
  readonly copies: number | undefined;
  /** Why it does not say. */
  readonly trouble: string | undefined;
}

/**
 * What the stores hold of a repository against what the coordinator says is committed, and where:
 * - `behind`: the coordinator; its head can be raised to the generation that a store holds. Where that is on too few of
 *   the voters, the stores that hold it, whether the record names them or not, become the voters;
 * - `moved`: the head is right, and on too few of the voters: as above;
 * - `split`: copies differ at one generation, so something else was committed on an older copy of the coordinator;
 * - `unreachable`: a store that the record names does not say how far it is, and might hold more; or a copy that cannot
 *   be read says that it is ahead of all that can. One that is gone for good (its node was removed, or came back with
 *   another disk) is not waited for where a majority of the voters answers, or as many others hold the highest
 *   generation;
 * - `majority-lost`: as `unreachable`, and whoever does not say is gone for good: what is left may lack what was
 *   acknowledged, so that it is gone on from by an explicit word only (`ClusterControl.recover`);
 * - `missing`: no store has anything (deleted after the coordinator's copy was made);
 * - `unfinished`: by the coordinator it is still being made, or removed again, and the stores hold pushes of later, or,
 *   while commits are frozen, as many of them have it as making one takes: it can be raised as for `behind`, and gets
 *   its name;
 * - `name-taken`: as `unfinished`, with pushes, and another has its name, or one above or below it, by the coordinator.
 *   Nothing of it is removed; when that one is renamed or deleted, it is `unfinished`.
 */
export type HeadVerdict =
  | 'behind'
  | 'moved'
  | 'split'
  | 'unreachable'
  | 'majority-lost'
  | 'missing'
  | 'unfinished'
  | 'name-taken';

export interface HeadFound {
  readonly repositoryId: string;
  readonly name: string;
  readonly verdict: HeadVerdict;
  /** Generation that the coordinator says is committed. */
  readonly headGeneration: number;
  /** The highest that a store holds. */
  readonly generation: number;
  /** Those that the record names first. */
  readonly copies: readonly CopyFound[];
}

export interface HeadsCompared {
  /** Repositories looked at: those that are there by their records, and those of which something is found. */
  readonly compared: number;
  /** Those where something is not as it should be, in order of their ids. */
  readonly found: readonly HeadFound[];
  /** All that were asked what they hold, in order of their ids. Nobody can know of a node that is not among them. */
  readonly nodes: readonly NodeHeard[];
  /** Ids of those of them that do not say, which might be the latest of anything. */
  readonly unheard: readonly string[];
  /** Ids of repositories that are on stores and in no record: made after the coordinator's copy was. In order. */
  readonly unrecorded: readonly string[];
}

/** Compares heads with what is on the disks, and raises them, after the coordinator was put back to an older copy. */
export interface HeadRecovery {
  /**
   * Asks every storage node that lives what it holds, and who holds something of a repository, how far it is. `frozen`:
   * nobody commits anything, so that what is being made by its record is being made by nobody.
   */
  compare(signal: AbortSignal, options: { readonly frozen: boolean }): Promise<HeadsCompared>;
  /**
   * Raises a head that is `behind`, or `unfinished`, and has who holds it vote, as for `moved`. `aborted` when it changed since it was
   * compared. Log entries in between are gone with the coordinator's newer copy: voters that lack them are filled from
   * the one that has them.
   */
  raise(found: HeadFound): Promise<void>;
  /**
   * Before an older copy of the coordinator is gone on from: what it says is to be removed from a store may be of long
   * ago, and the store have been given the repository anew since. What stores have of these repositories, which were
   * not raised, stays, and so does what a store has that does not answer now: another recovery is to find it.
   */
  keepCopies(stuck: readonly HeadFound[]): Promise<void>;
}

export interface RecoveryReport extends HeadsCompared {
  /** Why nothing is committed now; undefined when all is well. */
  readonly frozen: string | undefined;
  /**
   * True when the heads were raised and, if commits were frozen, the incarnation advanced: every server is to be
   * started again then.
   */
  readonly applied: boolean;
  /**
   * The recovery was applied, now or before, and processes are to be started again for it: until then they commit
   * nothing. `members`: node ids of those that live, none for a server that stands alone, which is to be itself.
   */
  readonly restart: { readonly members: readonly string[] } | undefined;
}

/** `quorate recover`. */
export interface ClusterRecovery {
  /**
   * Without `apply` nothing changes. With it, heads that are behind are raised and the coordinator is accepted as it
   * is, if that was refused. `failed-precondition` when nothing is frozen or behind, or it was applied before, or when
   * some heads cannot be raised, or storage nodes do not say what they hold, and `force` is not given: those
   * repositories then stay as the coordinator says, or frozen where a disk contradicts it.
   */
  run(options: {
    readonly apply: boolean;
    readonly force: boolean;
    readonly signal: AbortSignal;
  }): Promise<RecoveryReport>;
}
