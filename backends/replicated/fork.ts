import { QuorateError } from '../contract/errors.js';
import type { RefEntry } from '../contract/objects.js';
import type { LogReader, ReplicaRead } from '../contract/replica.js';
import type { HeadRecord, NewFork } from '../contract/repository.js';
import { digestOf } from '../git/digest.js';
import { createRefSnapshot } from '../git/ref-snapshot.js';
import { type FirstCopiesDependencies, makeCopies } from './first-copies.js';
import type { Enrolment } from './pools.js';
import type { RepositoryRecord } from './records.js';
import { primaryOf } from './voters.js';

export interface ForkDependencies extends FirstCopiesDependencies {
  readonly log: LogReader;
}

/** Each try reads the source anew; only a source that is pushed to all the time, and whose store restarts, needs more. */
const maxTries = 5;

/** What the head of a fork is to be, and the voters that have its files: a majority of those placed, at least. */
export interface MadeFork {
  readonly head: HeadRecord;
  readonly voters: RepositoryRecord['voters'];
}

/** Makes the files of an enrolled fork on its stores. */
export async function makeForkFiles(
  dependencies: ForkDependencies,
  enrolment: Enrolment,
  visible: NewFork['visible'],
): Promise<MadeFork> {
  for (let tries = 1; ; tries++) {
    try {
      return await tryMakeFiles(dependencies, enrolment, visible);
    } catch (error) {
      const movedOn = error instanceof QuorateError && error.code === 'aborted';
      if (!movedOn || tries === maxTries) throw error;
    }
  }
}

async function tryMakeFiles(
  dependencies: ForkDependencies,
  { source, fork, poolId }: Enrolment,
  visible: NewFork['visible'],
): Promise<MadeFork> {
  const { replicas, log } = dependencies;
  const { generation } = await log.head(source.id);
  const read = await primaryOf(replicas, source.voters).read(source.id, generation);
  try {
    const refs = forkedRefs(read, visible);
    const head = forkedHead(read, visible);
    const request = {
      repositoryId: fork.id,
      sourceId: source.id,
      poolId,
      objectFormat: source.objectFormat,
      sourceGeneration: read.snapshot.generation,
      head,
      refs,
    };
    const voters = await makeCopies(dependencies, fork, (replica) => replica.fork(request));
    const snapshot = createRefSnapshot({ generation: 1, head: { symref: head }, refs });
    return { head: { generation: 1, digest: digestOf(snapshot) }, voters };
  } finally {
    read.release();
  }
}

/** Symbolic refs are left out: no push makes any, and the digest does not count them. */
function forkedRefs({ snapshot }: ReplicaRead, visible: NewFork['visible']): readonly RefEntry[] {
  return snapshot.refs.filter(({ name, symref }) => symref === undefined && visible.test(name));
}

/** The branch that HEAD names, unless nobody is to know of it. */
function forkedHead({ snapshot: { head } }: ReplicaRead, visible: NewFork['visible']): string {
  return 'symref' in head && visible.test(head.symref) ? head.symref : 'refs/heads/main';
}
