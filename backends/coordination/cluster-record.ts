import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import type { KeyValue } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';

/** In the coordinator. */
const clusterRecord = z.object({
  /** Random, for ever. */
  id: z.string().regex(/^[0-9a-f]{32}$/),
  /** Raised whenever people decided to go on from an older copy of the coordinator. */
  incarnation: z.number().int().min(1),
  /** Random, of the recovery that made this incarnation; absent in the first, and after one of an earlier version. */
  recovery: z
    .string()
    .regex(/^[0-9a-f]{32}$/)
    .optional(),
  /**
   * A process found that this is an older copy. Said here for all others: what they remember may be less, and whatever
   * is still written (that processes are alive) soon carries the revision past it. With the highest incarnation that
   * one of those who found it has seen (absent: of an earlier version): the next is to be a later one.
   */
  frozen: z
    .object({ message: z.string(), incarnation: z.number().int().min(1).optional() })
    .optional(),
});

/** On this process' disk: what it saw last. */
const seenRecord = z.object({
  version: z.literal(1),
  id: clusterRecord.shape.id,
  incarnation: clusterRecord.shape.incarnation,
  /** Absent as well when it was written by an earlier version. */
  recovery: clusterRecord.shape.recovery,
  /** `CoordinatorIdentity.clusterId`. */
  storeId: z.string(),
  revision: z.number().int().min(0),
  /** A head that was there, and its revision. */
  witness: z.object({ key: z.string(), revision: z.number().int().min(1) }).optional(),
});

export type ClusterRecord = z.infer<typeof clusterRecord>;
export type SeenRecord = z.infer<typeof seenRecord>;

/** Undefined: this process has seen no coordinator yet. `data-corrupt` when the file does not say what it should. */
export async function readSeen(file: string): Promise<SeenRecord | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return seenRecord.parse(JSON.parse(text));
  } catch (error) {
    throw new QuorateError('data-corrupt', `${file} does not say which cluster this data is of`, {
      cause: error,
    });
  }
}

export function encodeCluster(record: ClusterRecord): Uint8Array {
  return Buffer.from(JSON.stringify(record));
}

export function decodeCluster(value: Uint8Array): ClusterRecord {
  try {
    return clusterRecord.parse(JSON.parse(Buffer.from(value).toString('utf8')));
  } catch (error) {
    throw new QuorateError('data-corrupt', `the coordinator's ${keys.cluster} is damaged`, {
      cause: error,
    });
  }
}

/**
 * A name of the incarnation that the coordinator is in, by its entry of the cluster: no other one ever has it. Undefined
 * without a cluster, and while somebody says that this is an older copy.
 */
export function incarnationName(entry: KeyValue | undefined): string | undefined {
  if (entry === undefined) return undefined;
  const { id, incarnation, recovery = id, frozen } = decodeCluster(entry.value);
  return frozen === undefined ? `${incarnation}.${recovery}` : undefined;
}
