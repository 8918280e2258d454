import { Readable } from 'node:stream';
import type { StoredPack } from '../../backends/contract/backend.js';
import type { Repository } from '../../backends/contract/repository.js';
import { hasCapability } from '../wire/capabilities.js';
import { readUploadRequest, type UploadRequest } from '../wire/fetch-request.js';
import { PktReader, pktText } from '../wire/pkt-line.js';
import { WireError } from '../wire/wire-error.js';
import { advertiseFetch, advertiseV2 } from './advertise.js';
import { checkFetch, type FetchGround } from './fetch-checks.js';
import { type GitContext, openSession } from './git-context.js';
import type { GitOutcome } from './git-request.js';
import { relayGit } from './relay-git.js';
import { serveCommands } from './serve-commands.js';
import { sendStoredClone, wantsEverything } from './stored-clone.js';
import { enterPackRun, failureText, groundOf, isShallow, outcomeOf } from './upload-run.js';

/** Serves fetches: the advertisement, one stateless request, or a whole conversation. */
export async function uploadPack(context: GitContext, repository: Repository): Promise<GitOutcome> {
  const { mode, protocol } = context.request;
  if (protocol === 2) {
    if (mode !== 'stateless') await advertiseV2(context, repository);
    return mode === 'advertise' ? done({}) : serveCommands(context, repository);
  }
  const session = await openSession(context, repository, { refsOnly: mode === 'advertise' });
  try {
    return await talkV0(context, groundOf(context, session));
  } finally {
    session.release();
  }
}

function done(fields: Readonly<Record<string, unknown>>): GitOutcome {
  return { status: 'ok', exitCode: 0, fields };
}

/** v0 and v1: these differ in the advertisement's first line only. */
async function talkV0(context: GitContext, ground: FetchGround): Promise<GitOutcome> {
  const { request, input, output, parts } = context;
  if (request.mode !== 'stateless') {
    await advertiseFetch(context, ground.session.repository, ground.view);
  }
  if (request.mode === 'advertise') return done({});
  const reader = new PktReader(input);
  reader.limit(parts.limits.maxFetchRequestBytes);
  reader.record();
  const wanted = await readUploadRequest(reader);
  if (wanted === undefined) return done({ wants: 0 });
  await checkFetch(ground, wanted);
  const whole = await wholePackFor(ground, wanted, reader);
  if (whole !== undefined) {
    return sendStoredClone(context, whole, {
      before: pktText('NAK\n'),
      progress: !hasCapability(wanted.capabilities, 'no-progress'),
      fields: scopeFields(wanted),
    });
  }
  const run = await enterPackRun(context, ground, isShallow(wanted));
  const section = reader.takeRecorded();
  const replay = Readable.from(replayed(section, reader), { objectMode: false });
  // The client leaving breaks this stream off; whoever reads from it says so.
  replay.on('error', () => {});
  try {
    const git = await ground.session.uploadPack({
      protocol: 0,
      input: replay,
      stateless: request.mode === 'stateless',
      visible: ground.visible,
      config: run.config,
      signal: request.signal,
    });
    const relayed = await relayGit(git, output, {
      failure: failureText(context, wanted),
      // A stateful upload-pack begins with an advertisement of its own; the client has ours, which it answers.
      ...(request.mode === 'session' ? { through: behindAdvertisement } : {}),
    });
    return outcomeOf(context, relayed, scopeFields(wanted));
  } finally {
    run.leave();
    input.abandon();
    replay.destroy();
  }
}

/**
 * The stored pack, when it can be the answer. To know that there are no haves, the packet after the wants is read (and
 * recorded): the client sends it without waiting, since it asks for no depth.
 */
async function wholePackFor(
  ground: FetchGround,
  wanted: UploadRequest,
  reader: PktReader,
): Promise<StoredPack | undefined> {
  const { capabilities } = wanted;
  const able =
    hasCapability(capabilities, 'ofs-delta') && hasCapability(capabilities, 'side-band-64k');
  if (!able || !wantsEverything(ground, wanted)) return undefined;
  const pkt = await reader.read();
  const done = pkt?.type === 'data' && /^done\n?$/.test(pkt.payload.toString('latin1'));
  return done ? ground.session.wholePack() : undefined;
}

async function* replayed(section: Buffer, reader: PktReader): AsyncGenerator<Uint8Array> {
  yield section;
  yield* reader.rest();
}

/** What follows the first flush packet. A git that dies before has said nothing. */
async function* behindAdvertisement(
  answer: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = new PktReader(answer);
  try {
    for (;;) {
      const pkt = await reader.read();
      if (pkt === undefined) return;
      if (pkt.type === 'flush') break;
    }
  } catch (error) {
    if (error instanceof WireError) return;
    throw error;
  }
  yield* reader.rest();
}

function scopeFields(wanted: UploadRequest): Readonly<Record<string, unknown>> {
  return {
    wants: wanted.wants.length,
    ...(wanted.depth === undefined ? {} : { depth: wanted.depth }),
    ...(wanted.filter === undefined ? {} : { filter: wanted.filter }),
    side_band: hasCapability(wanted.capabilities, 'side-band-64k'),
  };
}
