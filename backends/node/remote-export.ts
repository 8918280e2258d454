import { QuorateError } from '../contract/errors.js';
import type { RefEntry } from '../contract/objects.js';
import type { Replica, ReplicaExport } from '../contract/replica.js';
import { type ClientCall, settledError } from './client-call.js';
import { decodeMessage, results } from './messages.js';
import type { NodeClient } from './node-client.js';
import { decodeRefs, snapshotPart } from './snapshot-wire.js';

/** A generation on its way from a node: refs first, then the pack as it is read. */
export async function receiveExport(
  client: NodeClient,
  repositoryId: string,
  options: Parameters<Replica['export']>[1],
): Promise<ReplicaExport> {
  const { atLeast, have, held, signal } = options;
  const args = {
    atLeast,
    have: [...have],
    ...(held === undefined ? {} : { held: { ...held, tips: held.tips && [...held.tips] } }),
  };
  const call = await client.call(repositoryId, 'export', args, { signal });
  try {
    const { refCount, pack, ...about } = decodeMessage(results.exported, await nextJson(call));
    const refs: RefEntry[] = [];
    while (refs.length < refCount) {
      for (const ref of decodeRefs(decodeMessage(snapshotPart, await nextJson(call)))) {
        refs.push(ref);
      }
    }
    if (!pack) await call.next();
    return {
      ...about,
      refs,
      pack: pack ? packOf(call, signal) : undefined,
      release: () => call.abandon(),
    };
  } catch (error) {
    call.abandon();
    throw settledError(error, signal);
  }
}

async function nextJson(call: ClientCall): Promise<Buffer> {
  const { type, payload } = await call.next();
  if (type === 'json') return payload;
  throw new QuorateError('internal', 'a storage node sent no refs where refs were to come');
}

async function* packOf(call: ClientCall, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    for (;;) {
      const { type, payload } = await call.next();
      if (type === 'end') return;
      if (type === 'data') yield payload;
    }
  } catch (error) {
    throw settledError(error, signal);
  } finally {
    call.abandon();
  }
}
