import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { QuorateError } from '../contract/errors.js';
import type { ObjectFormat } from '../contract/objects.js';
import type { QuarantineKey } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import type { FileStep } from '../git/file-steps.js';
import {
  isMissing,
  replaceFile,
  syncDirectory,
  syncFile,
  writeFileDurably,
} from '../git/repository-files.js';
import { decodeCheckedLine, encodeCheckedLine } from './checked-line.js';

/**
 * What a store says of one repository, in two files that are written in place, in turn: `state`, the marker, and
 * `intent`, the entries that are applied next. Each is durable before the other is touched, so that one of them is whole
 * at any time.
 */
export interface RepositoryState {
  readonly objectFormat: ObjectFormat;
  /** The applied generation: refs and objects of every entry up to it are on this disk. */
  readonly generation: number;
  /** Digest of the refs at `generation`. */
  readonly digest: string;
  /**
   * The copy was begun, and nothing has filled it yet: generation and digest say only what it is filled from. The first
   * marker after that says so no more. Absent from what earlier versions wrote.
   */
  readonly begun?: true;
  /** Consecutive entries being applied together: their effects may be there in part. Recovery runs them again. */
  readonly applying?: {
    readonly entries: readonly Pick<
      LogEntry,
      'generation' | 'pushId' | 'updates' | 'head' | 'digest'
    >[];
    readonly quarantines: readonly QuarantineKey[];
  };
}

const oid = z.string().regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/);
const head = z.union([z.object({ symref: z.string() }), z.object({ oid })]);
const schema = z.object({
  objectFormat: z.enum(['sha1', 'sha256']),
  generation: z.int().min(0),
  digest: z.string(),
  begun: z.literal(true).exactOptional(),
  applying: z
    .object({
      entries: z.array(
        z.object({
          generation: z.int(),
          pushId: z.string(),
          updates: z.array(z.object({ ref: z.string(), oldOid: oid, newOid: oid })),
          head: z.object({ old: head, new: head }).exactOptional(),
          digest: z.string(),
        }),
      ),
      quarantines: z.array(
        z.object({ repositoryId: z.string(), pushId: z.string(), attempt: z.int() }),
      ),
    })
    .exactOptional(),
});

const markerName = 'state';
const intentName = 'intent';

/**
 * Undefined when it is damaged, or empty. Files of earlier versions have no checksum, and no field that is not known
 * here: what reads as one is a checksum of which a bit turned over.
 */
function decodeState(file: string): RepositoryState | undefined {
  const line = decodeCheckedLine(file);
  if (line === undefined) return undefined;
  try {
    return (line.checked ? schema : schema.strict()).parse(JSON.parse(line.text));
  } catch {
    return undefined;
  }
}

/**
 * What the files in a repository's directory say. `not-found` when this store does not have the repository. A marker
 * that a crash tore, or that is damaged, is made good from the intent before it, which is run again.
 */
export async function readState(directory: string): Promise<RepositoryState> {
  const marked = await readOrMissing(join(directory, markerName));
  if (marked === undefined) {
    throw new QuorateError('not-found', 'this store does not have the repository');
  }
  const marker = decodeState(marked);
  const intent = decodeState((await readOrMissing(join(directory, intentName))) ?? '');
  const intended = intent?.applying?.entries.at(-1)?.generation;
  const begun = intended !== undefined && intended > (marker?.generation ?? -1);
  const state = begun ? intent : marker;
  if (state !== undefined) return state;
  throw new QuorateError('data-corrupt', 'the state of a repository is damaged');
}

async function readOrMissing(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (isMissing(cause)) return undefined;
    throw new QuorateError('storage-failure', 'the state of a repository cannot be read', {
      cause,
    });
  }
}

/** The files of a new repository: a marker, and an empty intent. Durable on return. */
export async function createState(directory: string, state: RepositoryState): Promise<void> {
  await replaceFile(join(directory, intentName), '');
  await replaceMarker(directory, state);
}

/**
 * Puts a marker in the place of the one there is, as a whole: no intent would make a torn one good. Durable on return.
 */
export async function replaceMarker(directory: string, state: RepositoryState): Promise<void> {
  await writeFileDurably(join(directory, markerName), encodeCheckedLine(state));
}

/** Earlier versions kept the intent in the marker's file, which is written over now. */
export async function ensureIntentFile(directory: string, state: RepositoryState): Promise<void> {
  const path = join(directory, intentName);
  if ((await readOrMissing(path)) !== undefined) return;
  await writeFileDurably(path, state.applying === undefined ? '' : encodeCheckedLine(state));
}

/**
 * Makes durable what was read, and the names that it was read by: whoever wrote it may have been killed before it was,
 * and from here on both files are written in place only.
 */
export async function syncState(directory: string): Promise<void> {
  const files = [markerName, intentName].map((name) => syncFile(join(directory, name)));
  await Promise.all([...files, syncDirectory(directory)]);
}

/**
 * Makes an intent durable. Torn by a crash, it reads as none: the marker before it is on disk. `again`: an apply failed,
 * perhaps because its marker could not be synced.
 */
export function intentSteps(
  directory: string,
  state: RepositoryState,
  { again }: { readonly again: boolean },
): readonly FileStep[] {
  const sync: FileStep = { do: 'sync', path: `${directory}/${markerName}` };
  const write: FileStep = {
    do: 'overwrite',
    path: `${directory}/${intentName}`,
    text: encodeCheckedLine(state),
  };
  return again ? [sync, write] : [write];
}

/**
 * Says, durably, that what was being applied is applied. Torn by a crash, the intent counts, which holds all that it
 * takes to apply it again; only the next intent takes its place, when this is on disk.
 */
export function markerSteps(directory: string, state: RepositoryState): readonly FileStep[] {
  return [{ do: 'overwrite', path: `${directory}/${markerName}`, text: encodeCheckedLine(state) }];
}
