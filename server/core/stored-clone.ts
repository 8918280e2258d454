/**
 * A clone of everything, from a stored pack (`ReadSession.wholePack`): the pack's bytes in side-band packets, without
 * a git. Relaying what git makes of the same pack costs several times the CPU.
 */
import type { StoredPack } from '../../backends/contract/backend.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { flushPkt, maxPktBytes, pktLength } from '../wire/pkt-line.js';
import { maxSideBandDataBytes, writeSideBand } from '../wire/side-band.js';
import type { FetchScope } from '../wire/fetch-request.js';
import type { Place } from './admission.js';
import type { FetchGround } from './fetch-checks.js';
import { frameBufferBytes, framesPerBuffer } from './frame-buffers.js';
import type { GitContext } from './git-context.js';
import type { GitOutcome } from './git-request.js';
import { failureText } from './upload-run.js';

/** What a fetch without haves has to be, for a whole pack to be its answer. */
export function wantsEverything({ session, view }: FetchGround, scope: FetchScope): boolean {
  const { snapshot } = session;
  if (scope.wants.length === 0 || scope.shallow.length > 0 || scope.filter !== undefined) {
    return false;
  }
  if (
    scope.depth !== undefined ||
    scope.deepenSince !== undefined ||
    scope.deepenNot.length > 0 ||
    'oid' in snapshot.head
  ) {
    return false;
  }
  // What a hidden ref alone reaches is in the pack.
  if (view.refs.length !== snapshot.refs.length) return false;
  const wants = new Set(scope.wants);
  return (
    snapshot.refs.every(({ oid }) => wants.has(oid)) &&
    scope.wants.every((want) => snapshot.hasTip(want))
  );
}

export interface StoredClone {
  /** What comes before the pack: v2 the section's name, v0 `NAK`. */
  readonly before: string;
  readonly progress: boolean;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Sends the pack and closes it. Throws `cancelled` when the client goes. */
export async function sendStoredClone(
  context: GitContext,
  pack: StoredPack,
  { before, progress, fields }: StoredClone,
): Promise<GitOutcome> {
  const { output, parts, request } = context;
  const told = { ...fields, stored_pack: true };
  let place: Place;
  try {
    const memoryBytes = Math.min(bufferBytes, 2 * pack.sizeBytes);
    place = await parts.admissions[request.transport].storedPack(request, memoryBytes);
  } catch (error) {
    await pack.close();
    throw error;
  }
  try {
    output.voice = 'none';
    const count = Buffer.from(`Sending a stored pack of ${pack.objectCount} objects.\n`);
    const line = progress ? writeSideBand(2, count) : Buffer.alloc(0);
    await output.write(Buffer.concat([Buffer.from(before), line]));
    await sendFrames(context, pack);
    await output.write(flushPkt);
    output.voice = 'error-packet';
    return { status: 'ok', exitCode: 0, fields: told };
  } catch (error) {
    if (!(error instanceof QuorateError) || error.code === 'cancelled') throw error;
    parts.logger.error(
      { component: 'core', request_id: request.requestId, err: error },
      'a stored pack could not be read',
    );
    // Whole packets were written up to here.
    output.voice = 'side-band';
    output.tell(failureText(context));
    return { status: 'error', exitCode: 128, fields: told };
  } finally {
    place.leave();
    await pack.close();
  }
}

const frameHeaderBytes = maxPktBytes - maxSideBandDataBytes;
/** Of one stream: two buffers. */
const bufferBytes = 2 * frameBufferBytes;

/** Reads one megabyte while the one before is written. Two buffers, used in turn. */
async function sendFrames({ output, parts }: GitContext, pack: StoredPack): Promise<void> {
  const dataBytes = framesPerBuffer * maxSideBandDataBytes;
  const buffers: Buffer[] = [];
  let turn = 0;
  const readFrom = (offset: number): Promise<Buffer> => {
    const buffer = (buffers[turn] ??= parts.frames.take());
    turn = 1 - turn;
    const reading = readFrames(pack, offset, buffer);
    // It is awaited after the write beside it, which may take long.
    reading.catch(() => undefined);
    return reading;
  };
  let next = readFrom(0);
  try {
    for (let offset = 0; offset < pack.sizeBytes; offset += dataBytes) {
      const framed = await next;
      const behind = offset + dataBytes;
      if (behind < pack.sizeBytes) next = readFrom(behind);
      await output.writeThrough(framed);
    }
  } catch (error) {
    // The file may not be closed under a read. The buffers may still be in use below, and are not given back.
    await next.catch(() => undefined);
    throw error;
  }
  parts.frames.giveBack(buffers);
}

/** Fills `buffer` with packets of the pack's bytes from `offset` on; returns the part that is filled. */
async function readFrames(pack: StoredPack, offset: number, buffer: Buffer): Promise<Buffer> {
  const views: Buffer[] = [];
  let from = offset;
  let to = 0;
  while (to < buffer.length && from < pack.sizeBytes) {
    const length = Math.min(maxSideBandDataBytes, pack.sizeBytes - from);
    buffer.write(pktLength(length + 1), to, 'latin1');
    buffer[to + frameHeaderBytes - 1] = 1;
    to += frameHeaderBytes;
    views.push(buffer.subarray(to, to + length));
    from += length;
    to += length;
  }
  await pack.read(views, offset);
  return buffer.subarray(0, to);
}
