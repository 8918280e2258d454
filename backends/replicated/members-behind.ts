import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { beganIn } from './front-end-name.js';
import { decodeNode } from './node-record.js';
import { scan } from './records.js';

/**
 * Node ids of the members that live and began in an earlier incarnation of the cluster: they have not been started
 * again since the recovery that made this one. In order.
 */
export async function membersBehind(
  coordinator: Coordinator,
  incarnation: number,
): Promise<readonly string[]> {
  const behind = new Set<string>();
  for await (const entry of scan(coordinator, keys.nodes)) {
    const { nodeId, incarnation: began = 1 } = decodeNode(entry);
    if (began < incarnation) behind.add(nodeId);
  }
  const prefix = keys.frontEndName('');
  for await (const entry of scan(coordinator, prefix)) {
    if (beganIn(entry) < incarnation) behind.add(entry.key.slice(prefix.length));
  }
  return [...behind].sort((a, b) => a.localeCompare(b));
}
