import { z } from 'zod';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { encodeRecord, scan } from './records.js';

/**
 * What people decided about a node: `draining`, what it has moves away and nothing new comes; `removed`, it is not to
 * come back. Kept while the node is away, unlike its own record.
 */
export const nodeMarks = ['draining', 'removed'] as const;
export type NodeMark = (typeof nodeMarks)[number];

/** A mark, and when it was given: milliseconds since the Unix epoch, absent in records of earlier versions. */
export interface MarkRecord {
  readonly mark: NodeMark;
  readonly atMs?: number | undefined;
}

const schema = z.object({ mark: z.enum(nodeMarks), atMs: z.number().optional() });

export async function readNodeMarks(
  coordinator: Coordinator,
): Promise<ReadonlyMap<string, NodeMark>> {
  const records = await readMarkRecords(coordinator);
  return new Map([...records].map(([nodeId, { mark }]) => [nodeId, mark]));
}

export async function readMarkRecords(
  coordinator: Coordinator,
): Promise<ReadonlyMap<string, MarkRecord>> {
  const marks = new Map<string, MarkRecord>();
  for await (const { key, value } of scan(coordinator, keys.nodeMarks)) {
    marks.set(key.slice(keys.nodeMarks.length), decodeNodeMark(value));
  }
  return marks;
}

/** One of a later version says `draining`: whatever it means, nothing new is put there. */
export function decodeNodeMark(value: Uint8Array): MarkRecord {
  const parsed = schema.safeParse(JSON.parse(new TextDecoder().decode(value)));
  return parsed.success ? parsed.data : { mark: 'draining' };
}

/** Undefined takes the mark away. */
export async function markNode(
  coordinator: Coordinator,
  nodeId: string,
  mark: NodeMark | undefined,
  atMs?: number,
): Promise<void> {
  const key = keys.nodeMark(nodeId);
  await coordinator.transaction({
    binding: true,
    compares: [],
    success: [
      mark === undefined
        ? { type: 'delete', key }
        : { type: 'put', key, value: encodeRecord({ mark, atMs }) },
    ],
    failure: [],
  });
}
