import { QuorateError } from '../contract/errors.js';
import type { InspectedFile, PushFact, TrustedSigners } from '../contract/inspection.js';
import type { Oid } from '../contract/objects.js';
import { writeRevisions } from './connectivity.js';
import type { GitCommand, GitResult, GitRunner } from './git-runner.js';
import { gitOver, tookTooLong } from './history-command.js';
import type { ObjectSources } from './object-environment.js';
import { type ChangedPath, readChangedPaths } from './changed-paths.js';
import { readCommits } from './commit-stream.js';
import { createSignatureCheck } from './signatures.js';

export interface HistoryInspection extends ObjectSources {
  readonly git: GitRunner;
  readonly tip: Oid;
  /** History that is not looked at. */
  readonly known: readonly Oid[];
  readonly commits: boolean;
  readonly files: boolean;
  readonly signers?: TrustedSigners;
  /** Where the keyrings may lie while they are used. Made if it is not there. */
  readonly scratchParent?: string;
  readonly signal: AbortSignal;
}

/** A push of more is an import, which is better done before the rules are set. 4 MB of object ids. */
const maxCommits = 100_000;
/** 5 ms of ssh-keygen or gpg each. */
const maxSignatures = 10_000;
/** Questions of one `cat-file --batch-check`: answers of 100 KB, and few spawns. */
const sizesAtOnce = 2_000;
/** Commits of one `verify-commit`: some kilobytes of arguments. */
const signaturesAtOnce = 50;

/** Tells what is in the history of `tip` beyond `known`; `Inspect` in the contract says what is promised. */
export async function* inspectHistory(inspection: HistoryInspection): AsyncGenerator<PushFact> {
  const oids = await newCommits(inspection);
  if (inspection.commits || inspection.signers !== undefined) yield* commits(inspection, oids);
  if (inspection.files) yield* files(inspection, oids);
}

async function newCommits(inspection: HistoryInspection): Promise<readonly Oid[]> {
  const { git, tip, known } = inspection;
  // Also keeps what is no object id out of the arguments.
  const revisions = writeRevisions([tip], known);
  const isCommit = await run(git, gitOver(inspection, ['cat-file', '-e', `${tip}^{commit}`]));
  if (isCommit.exitCode !== 0) {
    throw new QuorateError('invalid-argument', 'it is no commit and no tag of one');
  }
  const listed = await run(git, {
    ...gitOver(inspection, ['rev-list', `--max-count=${maxCommits + 1}`, '--stdin']),
    stdin: revisions,
  });
  if (listed.exitCode !== 0)
    throw new QuorateError('storage-failure', 'git could not list commits');
  const oids = listed.stdout.toString('latin1').split('\n').slice(0, -1);
  if (oids.length > maxCommits) {
    throw new QuorateError('resource-exhausted', `it has more than ${maxCommits} new commits`);
  }
  if (inspection.signers !== undefined && oids.length > maxSignatures) {
    throw new QuorateError(
      'resource-exhausted',
      `it has more than ${maxSignatures} new commits whose signatures are to be checked`,
    );
  }
  return oids;
}

async function* commits(
  inspection: HistoryInspection,
  oids: readonly Oid[],
): AsyncGenerator<PushFact> {
  const { git, signers, scratchParent } = inspection;
  const check =
    signers === undefined || scratchParent === undefined
      ? undefined
      : await createSignatureCheck({ inspection, git, signers, scratchParent });
  try {
    for await (const batch of inBatches(readCommits(inspection, oids), signaturesAtOnce)) {
      const signed = batch.filter((commit) => commit.signed).map(({ oid }) => oid);
      const good = (await check?.good(signed)) ?? new Set();
      for (const { oid, parents, message, signed: hasSignature } of batch) {
        const verdict = !hasSignature ? 'unsigned' : good.has(oid) ? 'good' : 'refused';
        const signature = check === undefined ? undefined : verdict;
        yield { type: 'commit', oid, parents, message, signature };
      }
    }
  } finally {
    await check?.close();
  }
}

async function* files(
  inspection: HistoryInspection,
  oids: readonly Oid[],
): AsyncGenerator<PushFact> {
  for await (const batch of inBatches(readChangedPaths(inspection, oids), sizesAtOnce)) {
    yield* await withSizes(inspection, batch);
  }
}

async function withSizes(
  inspection: HistoryInspection,
  paths: readonly ChangedPath[],
): Promise<readonly InspectedFile[]> {
  const { stdout, exitCode } = await run(inspection.git, {
    ...gitOver(inspection, ['cat-file', '--batch-check=%(objectsize)']),
    stdin: Buffer.from(paths.map(({ oid }) => `${oid}\n`).join(''), 'latin1'),
  });
  const sizes = stdout.toString('latin1').split('\n').slice(0, -1);
  if (exitCode !== 0 || sizes.length !== paths.length) {
    throw new QuorateError('storage-failure', 'git could not tell the sizes of files');
  }
  return paths.map(({ commit, path, submodule }, index): InspectedFile => {
    // A submodule's commit is not here: `<oid> missing`.
    const sizeBytes = submodule ? 0 : Number(sizes[index]);
    if (!Number.isSafeInteger(sizeBytes)) {
      throw new QuorateError('storage-failure', 'a file of a new commit is missing');
    }
    return { type: 'file', commit, path, sizeBytes };
  });
}

/** As `git.run`; a git that was ended is an error. */
async function run(git: GitRunner, command: GitCommand): Promise<GitResult> {
  const result = await git.run(command);
  if (result.exitCode === null) throw tookTooLong();
  return result;
}

async function* inBatches<T>(
  items: AsyncIterable<T>,
  size: number,
): AsyncGenerator<readonly T[], void, undefined> {
  let batch: T[] = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
