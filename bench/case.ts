import type { Fixture, FixtureName } from './fixtures.js';
import type { Peer } from './peers/peer.js';

/** One measurement: `before` and `after` are not in it. */
export interface Operation {
  /** Resolves with how many operations were done: figures are per operation. */
  timed(): Promise<number>;
  before?(): Promise<void>;
  after?(): Promise<void>;
}

/** A case whose repositories are in place. Rounds count from 0, the first one to warm up. */
export type Prepared = (peer: Peer, round: number) => Operation;

export interface Place {
  readonly fixture: Fixture;
  /** Rounds that there will be at most, those to warm up included. */
  readonly rounds: number;
  /** A directory of the case's own, which exists; the client's repositories go there. */
  readonly directory: string;
  readonly quick: boolean;
}

export interface Case {
  readonly key: string;
  readonly title: string;
  readonly fixture: FixtureName;
  /** The peers start without a copy of the fixture. */
  readonly startsEmpty?: true;
  /** The server may go on working when the client is done. */
  readonly pushes?: true;
  /**
   * Rounds before those that count, when the run is not quick; default 5. More where an operation takes milliseconds
   * of a server, which has compiled little of its code after a few.
   */
  readonly warmUps?: number;
  /** Costs tens of seconds a round: fewer rounds do, and `--quick` does without warming up. */
  readonly heavy?: true;
  /** Why a peer cannot do it. */
  readonly impossibleFor?: (peer: Peer) => string | undefined;
  prepare(place: Place): Promise<Prepared>;
}
