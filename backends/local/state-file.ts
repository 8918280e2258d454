import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { QuorateError } from '../contract/errors.js';
import type { ObjectFormat } from '../contract/objects.js';
import type { QuarantineKey } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import type { FileStep } from '../git/file-steps.js';
import { isMissing, writeFileDurably } from '../git/repository-files.js';

/** What a store says of one repository: the durable marker, and the intent while an entry is being applied. */
export interface RepositoryState {
  readonly objectFormat: ObjectFormat;
  /** The applied generation: refs and objects of every entry up to it are on this disk. */
  readonly generation: number;
  /** Digest of the refs at `generation`. */
  readonly digest: string;
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
const head = z.union([z.strictObject({ symref: z.string() }), z.strictObject({ oid })]);
const schema = z.strictObject({
  objectFormat: z.enum(['sha1', 'sha256']),
  generation: z.int().min(0),
  digest: z.string(),
  applying: z
    .strictObject({
      entries: z.array(
        z.strictObject({
          generation: z.int(),
          pushId: z.string(),
          updates: z.array(z.strictObject({ ref: z.string(), oldOid: oid, newOid: oid })),
          head: z.strictObject({ old: head, new: head }).exactOptional(),
          digest: z.string(),
        }),
      ),
      quarantines: z.array(
        z.strictObject({ repositoryId: z.string(), pushId: z.string(), attempt: z.int() }),
      ),
    })
    .exactOptional(),
});

/** Of the text before it. One digit that turned over would make a copy seem ahead, or behind. */
const checksum = /,"checksum":"([0-9a-f]{16})"\}$/;

function checksumOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

function encodeState(state: RepositoryState): string {
  const text = JSON.stringify(state);
  return `${text.slice(0, -1)},"checksum":"${checksumOf(text)}"}`;
}

/** Files of earlier versions have no checksum. */
function decodeState(text: string): RepositoryState {
  const state = text.replace(checksum, '}');
  const known = checksum.exec(text)?.[1];
  if (known !== undefined && known !== checksumOf(state)) throw new Error('the checksum is wrong');
  return schema.parse(JSON.parse(state));
}

/** `not-found` when this store does not have the repository. */
export async function readState(path: string): Promise<RepositoryState> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (isMissing(cause)) {
      throw new QuorateError('not-found', 'this store does not have the repository', { cause });
    }
    throw new QuorateError('storage-failure', 'the state of a repository cannot be read', {
      cause,
    });
  }
  try {
    return decodeState(text);
  } catch (cause) {
    throw new QuorateError('data-corrupt', 'the state of a repository is damaged', { cause });
  }
}

/** Durable on return; a crash leaves the old state or the new one. */
export async function writeState(path: string, state: RepositoryState): Promise<void> {
  await writeFileDurably(path, encodeState(state));
}

/** As `writeState`, in steps. */
export function intentSteps(path: string, state: RepositoryState): readonly FileStep[] {
  return [
    { do: 'replace', path, text: encodeState(state) },
    { do: 'sync', path: dirname(path) },
  ];
}

/**
 * Says that what was being applied is applied. Not synced as to its name: a power cut may bring the intent back, which
 * holds all that it takes to apply it again. The next intent is durable, and this with it.
 */
export function markerSteps(path: string, state: RepositoryState): readonly FileStep[] {
  return [{ do: 'replace', path, text: encodeState(state) }];
}
