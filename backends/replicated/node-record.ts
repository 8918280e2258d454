import { z } from 'zod';
import type { KeyValue } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';

/** `nodes/{nodeId}`, under the lease of the node's process: a storage node that lives. */
const nodeSchema = z.object({
  storeId: z.string().regex(/^[0-9a-f]{32}$/),
  /** Where its internal API is, `host:port`. */
  address: z.string(),
  zone: z.string(),
  weight: z.int().min(1),
  capacityBytes: z.number().min(0),
  usedBytes: z.number().min(0),
  /** It is shutting down. */
  draining: z.boolean(),
  version: z.string(),
  /** Why it takes nothing new, and the remedy, in words; absent while all is well. */
  problem: z.string().optional(),
  /** Its disk answers nothing: others are asked first, for reads too. */
  hangs: z.boolean().optional(),
  /** Of the cluster, in which the process began; absent in records of earlier versions. */
  incarnation: z.int().min(1).optional(),
});
export type NodeRecord = z.infer<typeof nodeSchema> & { readonly nodeId: string };

const nodeIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** What a node id looks like, for messages. */
export const nodeIdForm = 'letters, digits, dots, dashes and underscores, at most 63';

export function isNodeId(id: string): boolean {
  return nodeIdPattern.test(id);
}

export function decodeNode(kv: KeyValue): NodeRecord {
  const nodeId = kv.key.slice(keys.nodes.length);
  try {
    const record = nodeSchema.parse(JSON.parse(Buffer.from(kv.value).toString('utf8')));
    return { nodeId, ...record };
  } catch (cause) {
    throw new QuorateError('data-corrupt', `the coordinator's record ${kv.key} is damaged`, {
      cause,
    });
  }
}

export function encodeNode({ nodeId: _nodeId, ...record }: NodeRecord): Uint8Array {
  return Buffer.from(JSON.stringify(record));
}

/** Undefined for a record of a later version. */
export function understood(kv: KeyValue): NodeRecord | undefined {
  try {
    return decodeNode(kv);
  } catch {
    return undefined;
  }
}
