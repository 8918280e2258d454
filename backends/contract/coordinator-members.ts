/** A member of the coordinator, by its own answer and nobody else's. */
export interface CoordinatorMember {
  /** `HOST:PORT`, as this process was told it. */
  readonly address: string;
  readonly answers: boolean;
  /** It leads the others. */
  readonly leads: boolean;
  /** It knows of a leader, so that it is one of a majority. */
  readonly hasLeader: boolean;
  /** Why it does not answer, or what it says is wrong with it, for people. */
  readonly problem: string | undefined;
}

/**
 * Asks every member by itself, so that it also tells while no majority answers. Takes ten seconds at most, and never
 * rejects.
 */
export type AskCoordinatorMembers = () => Promise<readonly CoordinatorMember[]>;
