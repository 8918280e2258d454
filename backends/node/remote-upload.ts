import { QuorateError } from '../contract/errors.js';
import type { QuarantineKey, Uploaded, UploadOptions } from '../contract/replica.js';
import { answerOf, type ClientCall, settledError } from './client-call.js';
import { decodeMessage, pushOf, results } from './messages.js';
import type { NodeClient } from './node-client.js';

/** `Replica.upload` at a node. */
export async function uploadRemotely(
  client: NodeClient,
  key: QuarantineKey,
  pack: AsyncIterable<Uint8Array>,
  { settings, basis, signal, progress }: UploadOptions,
): Promise<Uploaded> {
  const args = { key: pushOf(key), settings, ...(basis === undefined ? {} : { basis }) };
  const chunks = pack[Symbol.asyncIterator]();
  let over = false;
  let call: ClientCall | undefined;
  try {
    call = await client.call(key.repositoryId, 'upload', args, { signal });
    // What ends first ends the other: a pack that breaks off, or a node that has seen enough.
    const sending = sendPack(call, chunks, () => over);
    const answer = answerOf(call, (type, payload) => {
      if (type === 'text') progress(payload);
    });
    const broken = sending.then(() => answer);
    answer.catch(() => undefined);
    return decodeMessage(results.uploaded, await Promise.race([broken, answer]));
  } catch (error) {
    throw settledError(error, signal);
  } finally {
    over = true;
    call?.abandon();
    // A source that is silent now takes this only when it speaks again; nobody waits for it.
    void chunks.return?.().catch(() => undefined);
  }
}

/**
 * Sends a pack until it ends, or until the call is over: then why is in its answer. Rejects with `cancelled` when the
 * pack breaks off.
 */
async function sendPack(
  call: ClientCall,
  chunks: AsyncIterator<Uint8Array>,
  isOver: () => boolean,
): Promise<void> {
  for (;;) {
    let result: IteratorResult<Uint8Array>;
    try {
      result = await chunks.next();
    } catch (error) {
      throw brokeOff(error);
    }
    if (isOver()) return;
    try {
      if (result.done === true) {
        await call.mark();
        return;
      }
      await call.data(result.value);
    } catch {
      return;
    }
  }
}

function brokeOff(error: unknown): QuorateError {
  if (error instanceof QuorateError) return error;
  return new QuorateError('cancelled', 'the pack broke off', { cause: error });
}
