import { join } from 'node:path';
import { stat } from 'node:fs/promises';
import { QuorateError } from '../contract/errors.js';
import type { Oid, RefCommand } from '../contract/objects.js';
import type { PrepareRequest } from '../contract/replica.js';
import type { Clock } from '../contract/environment.js';
import { findUnconnected } from '../git/connectivity.js';
import type { GitRunner } from '../git/git-runner.js';
import type { FileStep } from '../git/file-steps.js';
import { findInPackIndex } from '../git/pack-index.js';
import type { IndexedPack } from '../git/pack-indexer.js';
import type { ObjectSources } from '../git/object-environment.js';
import type { RefFailure } from '../git/ref-dry-run.js';
import type { RefTransactions } from '../git/ref-transaction.js';
import { isMissing } from '../git/repository-files.js';
import { storageFailure } from './disk-errors.js';
import { isZero, judgeNames } from './judge-names.js';
import type { OpenRepository } from './open-repository.js';
import { stepsOfPlainMoves } from './plain-moves.js';

export interface JudgeDependencies {
  readonly git: GitRunner;
  readonly refs: RefTransactions;
  readonly clock: Clock;
}

/**
 * With this many refs or fewer, all of them bound the walk over new objects; with more, naming them all costs more
 * than it saves (33 ms of `rev-list --not --all` on a big repository against a walk that ends at the old value).
 */
const maxKnownTips = 1000;

/** The objects of a push, and what its upload found out about them. */
export interface JudgedObjects {
  readonly sources: ObjectSources;
  /** A directory of the store's in which packs are shown to git while it judges them. */
  readonly judgingDirectory: string;
  readonly indexed: IndexedPack | undefined;
  readonly names: JudgedNames;
  /** Whether the look at the files of the refs was taken, and found nothing. */
  readonly passed: Promise<boolean>;
}

/** Where git finds the objects of a push: its quarantine, unless it brought none, and the repository. */
export async function objectSources(
  repository: OpenRepository,
  quarantineDirectory: string,
): Promise<ObjectSources> {
  const present = await stat(join(quarantineDirectory, 'pack')).then(
    () => true,
    (error: unknown) => {
      if (isMissing(error)) return false;
      throw storageFailure(error);
    },
  );
  return {
    gitDir: repository.gitDirectory,
    objectDirectory: present ? quarantineDirectory : undefined,
  };
}

/** To judge a push without the objects that it brought would be to call them missing. */
export function refuseGone(
  { uploaded }: Pick<PrepareRequest, 'uploaded'>,
  { objectDirectory }: ObjectSources,
): void {
  if (uploaded !== true || objectDirectory !== undefined) return;
  throw new QuorateError(
    'unavailable',
    'the objects of the push went when the storage node was started again; nothing changed, push again',
    { details: { gone: true } },
  );
}

const dryRunWords: Readonly<Record<RefFailure, string>> = {
  stale: 'stale info: it moved meanwhile',
  'name-conflict': 'another ref is in the way of this name',
  refused: 'failed to update ref',
};

/** git says so beside its verdict; an annotated tag is what people mistake for a commit. */
const branchHint = ' (a branch takes commits only)';

/** What is known of a push before anybody looks at the disk. */
export interface JudgedNames {
  /** Refs that are refused, and the text of their `ng` line. */
  readonly refused: ReadonlyMap<string, string>;
  /** The others. */
  readonly commands: readonly RefCommand[];
  /** Steps that, if none of them fails, stand for git's dry run of these; undefined when nothing does. */
  readonly look: readonly FileStep[] | undefined;
}

/** Judges names and old values against the applied refs in memory. */
export function judgeFromMemory(
  { gitDirectory, snapshot }: OpenRepository,
  request: PrepareRequest,
  indexed: IndexedPack | undefined,
): JudgedNames {
  const refused = judgeNames(snapshot, request.commands, request.settings);
  const commands = request.commands.filter(({ ref }) => !refused.has(ref));
  return { refused, commands, look: stepsOfPlainMoves(gitDirectory, commands, indexed) };
}

/**
 * Judges what names alone do not tell: connectivity, and a dry run of the very transaction that would be committed,
 * unless a look at all that it would look at (`passed`) found nothing. Returns ref -> text of the `ng` line; what is left
 * applies together, unless the disk fails.
 */
export async function judge(
  dependencies: JudgeDependencies,
  repository: OpenRepository,
  request: PrepareRequest,
  objects: JudgedObjects,
): Promise<Map<string, string>> {
  const { commands } = objects.names;
  const refused = new Map(objects.names.refused);
  if (commands.length === 0) return refused;
  const [failures, unconnected] = await Promise.all([
    refFailures(dependencies, repository, { commands, signal: request.signal, objects }),
    unconnectedRefs(dependencies, repository, commands, request, objects),
  ]);
  for (const [ref, failure] of failures) {
    const hint = failure === 'refused' && ref.startsWith('refs/heads/') ? branchHint : '';
    refused.set(ref, `${dryRunWords[failure]}${hint}`);
  }
  const missing =
    request.shallow.length > 0 ? 'shallow update not allowed' : 'missing necessary objects';
  for (const ref of unconnected) refused.set(ref, missing);
  return refused;
}

/** What git would not do as one transaction. */
async function refFailures(
  dependencies: JudgeDependencies,
  repository: OpenRepository,
  {
    commands,
    signal,
    objects,
  }: {
    readonly commands: readonly RefCommand[];
    readonly signal: AbortSignal;
    readonly objects: JudgedObjects;
  },
): Promise<ReadonlyMap<string, RefFailure>> {
  if (await objects.passed) return new Map();
  return repository.dryRuns.judge(dependencies, {
    ...objects.sources,
    updates: commands,
    signal,
    judgingDirectory: objects.judgingDirectory,
    ...(objects.indexed?.files === undefined ? {} : { packFiles: objects.indexed.files }),
  });
}

/** Refs whose new value is not there with all that it reaches. */
async function unconnectedRefs(
  { git }: JudgeDependencies,
  repository: OpenRepository,
  commands: readonly RefCommand[],
  request: PrepareRequest,
  objects: JudgedObjects,
): Promise<readonly string[]> {
  const { snapshot } = repository;
  const unknown = new Set(
    commands.map(({ newOid }) => newOid).filter((oid) => !isZero(oid) && !snapshot.hasTip(oid)),
  );
  if (unknown.size === 0) return [];
  const complete = await completeByUpload(repository, [...unknown], objects);
  const newOids = [...unknown].filter((oid) => !complete.has(oid));
  if (newOids.length === 0) return [];
  // Until then they may not have their own place.
  await objects.passed;
  const { unconnected } = await findUnconnected({
    git,
    ...objects.sources,
    newOids,
    knownTips: knownTips(repository, commands),
    signal: request.signal,
  });
  const missing = new Set(unconnected);
  return commands.filter(({ newOid }) => missing.has(newOid)).map(({ ref }) => ref);
}

/** Beyond this many new values one walk for all of them is cheaper than looking each one up in the pack's index. */
const maxLookedUp = 500;

/** Those of `oids` of which the upload found out that everything they reach is there. */
async function completeByUpload(
  { snapshot }: OpenRepository,
  oids: readonly Oid[],
  { indexed, sources: { objectDirectory } }: JudgedObjects,
): Promise<ReadonlySet<Oid>> {
  if (indexed?.name === undefined || objectDirectory === undefined) return new Set();
  const { closure, name, selfContained } = indexed;
  if (selfContained === true && oids.length <= maxLookedUp) {
    return findInPackIndex(join(objectDirectory, 'pack', `${name}.idx`), oids);
  }
  // What a ref has is complete, and so is a pack that builds on nothing else.
  const builtOnTips =
    closure !== undefined && closure.boundary.every((oid) => snapshot.hasTip(oid));
  return new Set(builtOnTips ? [...closure.commits, ...closure.tags] : []);
}

function knownTips(repository: OpenRepository, commands: readonly RefCommand[]): readonly string[] {
  const { refs, head } = repository.snapshot;
  if (refs.length <= maxKnownTips) return [...new Set(refs.map(({ oid }) => oid))];
  const current = 'symref' in head ? repository.snapshot.find(head.symref)?.oid : head.oid;
  const old = commands.map(({ oldOid }) => oldOid).filter((oid) => !isZero(oid));
  return [...new Set(current === undefined ? old : [current, ...old])];
}
