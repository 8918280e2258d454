import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import type { LogReader, PeerSource } from '../contract/replica.js';
import type { TakeFileSteps } from '../git/file-steps.js';
import type { GitRunner } from '../git/git-runner.js';
import type { ObjectReader } from '../git/object-reader.js';
import type { PackIndexer } from '../git/pack-indexer.js';
import type { RefTransactions } from '../git/ref-transaction.js';

export interface LocalReplicaDependencies {
  readonly root: string;
  readonly git: GitRunner;
  readonly refs: RefTransactions;
  readonly objects: ObjectReader;
  readonly indexer: PackIndexer;
  readonly log: LogReader;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly files?: TakeFileSteps;
  /** How long an object that nothing reaches is kept after that was noticed. */
  readonly pruneGraceMs: number;
  /** Told after each applied entry, and when something else makes maintenance worth a look. */
  readonly applied: (repositoryId: string) => void;
  /** Told of a repository over which git failed for no reason that was asked of it: its copy may be damaged. */
  readonly suspect?: (repositoryId: string) => void;
  /** Where a repository's missing objects come from; absent where this store is the only one. */
  readonly peers?: (repositoryId: string) => PeerSource;
}
