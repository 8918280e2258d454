import { QuorateError } from '../contract/errors.js';
import type { QuarantineKey, Uploaded, UploadOptions } from '../contract/replica.js';
import { answerOf, type ClientCall, settledError } from './client-call.js';
import { type Arguments, decodeMessage, pushOf, results } from './messages.js';
import type { NodeClient } from './node-client.js';

/** A pack that is here at once goes out with the arguments: one message each way, and no wait between them. */
const maxWholeBytes = 64 * 1024;
/** What comes later belongs to a stream, which tells the node from its beginning that the sender lives. */
const wholeWithinMs = 20;

/** `Replica.upload` at a node. */
export async function uploadRemotely(
  client: NodeClient,
  key: QuarantineKey,
  pack: AsyncIterable<Uint8Array>,
  { settings, basis, signal, progress }: UploadOptions,
): Promise<Uploaded> {
  const args = { key: pushOf(key), settings, ...(basis === undefined ? {} : { basis }) };
  const upload: Upload = { client, repositoryId: key.repositoryId, args, signal, progress };
  try {
    const taken = await takeWhole(pack);
    const payload =
      'whole' in taken ? await sendWhole(upload, taken.whole) : await stream(upload, taken.chunks);
    return decodeMessage(results.uploaded, payload);
  } catch (error) {
    throw settledError(error, signal);
  }
}

interface Upload extends Pick<UploadOptions, 'signal' | 'progress'> {
  readonly client: NodeClient;
  readonly repositoryId: string;
  readonly args: Arguments<'upload'>;
}

/**
 * On a connection that breaks before the answer it is sent again, like every call. Had the node taken it all the same,
 * it finds the name of the quarantine taken, and is left out of this push.
 */
async function sendWhole(
  { client, repositoryId, args, signal, progress }: Upload,
  data: Buffer,
): Promise<Buffer> {
  const options = { signal, data };
  const call = await client.call(repositoryId, 'upload', { ...args, whole: true }, options);
  try {
    return await answerOf(call, tellProgress(progress));
  } finally {
    call.abandon();
  }
}

async function stream(
  { client, repositoryId, args, signal, progress }: Upload,
  chunks: AsyncIterator<Uint8Array>,
): Promise<Buffer> {
  let over = false;
  let call: ClientCall | undefined;
  try {
    call = await client.call(repositoryId, 'upload', args, { signal });
    // What ends first ends the other: a pack that breaks off, or a node that has seen enough.
    const sending = sendPack(call, chunks, () => over);
    const answer = answerOf(call, tellProgress(progress));
    const broken = sending.then(() => answer);
    answer.catch(() => undefined);
    return await Promise.race([broken, answer]);
  } finally {
    over = true;
    call?.abandon();
    // A source that is silent now takes this only when it speaks again; nobody waits for it.
    void chunks.return?.().catch(() => undefined);
  }
}

function tellProgress(progress: UploadOptions['progress']) {
  return (type: string, payload: Buffer): void => {
    if (type === 'text') progress(payload);
  };
}

/** The whole pack if it is small and comes at once; else all of its chunks. Rejects as `sendPack`. */
async function takeWhole(
  pack: AsyncIterable<Uint8Array>,
): Promise<{ readonly whole: Buffer } | { readonly chunks: AsyncIterator<Uint8Array> }> {
  const chunks = pack[Symbol.asyncIterator]();
  const taken: Uint8Array[] = [];
  let sizeBytes = 0;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(resolve, wholeWithinMs, 'late');
  });
  try {
    while (sizeBytes <= maxWholeBytes) {
      const next = chunks.next();
      const result = await Promise.race([next, late]);
      if (result === 'late') return { chunks: resumed(taken, chunks, next) };
      if (result.done === true) return { whole: Buffer.concat(taken) };
      taken.push(result.value);
      sizeBytes += result.value.byteLength;
    }
    return { chunks: resumed(taken, chunks) };
  } catch (error) {
    throw brokeOff(error);
  } finally {
    clearTimeout(timer);
  }
}

/** All chunks again, with one that is awaited already. */
function resumed(
  taken: readonly Uint8Array[],
  chunks: AsyncIterator<Uint8Array>,
  awaited?: Promise<IteratorResult<Uint8Array>>,
): AsyncIterator<Uint8Array> {
  // Whoever reads on is told; perhaps nobody does.
  awaited?.catch(() => undefined);
  const before: (IteratorResult<Uint8Array> | Promise<IteratorResult<Uint8Array>>)[] = [
    ...taken.map((value) => ({ done: false as const, value })),
    ...(awaited === undefined ? [] : [awaited]),
  ];
  return {
    next: async () => before.shift() ?? chunks.next(),
    return: async () => (await chunks.return?.()) ?? { done: true as const, value: undefined },
  };
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
