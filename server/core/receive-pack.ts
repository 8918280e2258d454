import assert from 'node:assert/strict';
import type { IncomingPack, PushRequest, PushResult } from '../../backends/contract/backend.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { Repository } from '../../backends/contract/repository.js';
import { booleanSetting, numberSetting } from '../../backends/contract/settings.js';
import { principalName, pusherOf } from '../auth/principal.js';
import { capabilityValue, hasCapability, type Capability } from '../wire/capabilities.js';
import { CommandListReader, type PushCommand } from '../wire/command-list.js';
import { isZeroOid } from '../wire/oid.js';
import { PktReader } from '../wire/pkt-line.js';
import { writeStatusReport, type StatusReport } from '../wire/report-status.js';
import { WireError } from '../wire/wire-error.js';
import type { Place } from './admission.js';
import { advertisePush } from './advertise.js';
import {
  type GitContext,
  newObjectFormat,
  type ServedRepository,
  openSession,
} from './git-context.js';
import type { GitOutcome } from './git-request.js';
import { visibleRefs } from './hidden-refs.js';
import { PackStream } from './pack-stream.js';
import { asServiceError, cancelledBy, ProtocolRefusal, publicMessage } from './service-error.js';
import { PushChannel } from './push-channel.js';
import { judgeCommands, reportOf, type JudgedCommands } from './push-commands.js';
import { recordPush, refsOf } from './push-record.js';

/** Where a push goes. */
export interface PushTarget {
  /** Undefined: the push creates it. */
  readonly repository: Repository | undefined;
  /**
   * The repository as it is now, created if need be, after authorising once more. Called when the commands have been
   * read: in a session that may be long after the advertisement.
   */
  readonly confirm: (commands: readonly PushCommand[]) => Promise<Repository>;
}

interface Push {
  readonly sent: readonly PushCommand[];
  readonly capabilities: readonly Capability[];
  readonly shallow: readonly string[];
  readonly pushOptions: readonly string[];
}

/** Serves pushes (gitprotocol-pack(5), "Pushing Data To a Server"). v2 has no push: it is served as v0. */
export async function receivePack(context: GitContext, target: PushTarget): Promise<GitOutcome> {
  const { request, input, output, parts } = context;
  const offered: ServedRepository = target.repository ?? {
    objectFormat: newObjectFormat,
    settings: {},
  };
  if (request.mode !== 'stateless') await advertise(context, target.repository, offered);
  if (request.mode === 'advertise') return { status: 'ok', exitCode: 0, fields: {} };

  const packets = new PktReader(input);
  packets.limit(parts.limits.maxPushCommandBytes);
  const list = new CommandListReader(packets, {
    ...parts.limits,
    maxCommands: numberSetting(offered.settings, 'receive.maxCommands') || Number.MAX_SAFE_INTEGER,
    maxShallow: parts.limits.maxPushShallow,
  });
  try {
    const push = await readPush(list, offered);
    // Nothing to do: git asks so over HTTP whether it may come with the real push.
    if (push === undefined) return { status: 'ok', exitCode: 0, fields: { commands: 0 } };
    if (target.repository === undefined) checkCreates(push, offered);
    const repository = await target.confirm(push.sent);
    // Judged by the settings of now, not by those of the advertisement.
    const judged = judge(push, repository);
    output.voice = sideBandOf(push) ? 'side-band' : 'none';
    return await run(context, { repository, push, judged, packets });
  } catch (error) {
    // From its first command on the client expects its answer on side-bands, where it asked for them.
    if (output.voice === 'error-packet' && sideBandOf(list)) output.voice = 'side-band';
    throw error;
  }
}

function sideBandOf({ capabilities }: { readonly capabilities: readonly Capability[] }): boolean {
  return hasCapability(capabilities, 'side-band-64k');
}

function judge(push: Push, { objectFormat, settings }: ServedRepository): JudgedCommands {
  return judgeCommands(push.sent, {
    format: objectFormat,
    visible: visibleRefs(settings, 'receive'),
  });
}

/** A push creates its repository only if it brings something. */
function checkCreates(push: Push, offered: ServedRepository): void {
  const { commands, refused } = judge(push, offered);
  if (commands.every(({ ref, newOid }) => refused.has(ref) || isZeroOid(newOid))) {
    throw new ProtocolRefusal('there is no such repository, and this push would not create one');
  }
}

async function advertise(
  context: GitContext,
  repository: Repository | undefined,
  offered: ServedRepository,
): Promise<void> {
  if (repository === undefined) return advertisePush(context, offered, undefined);
  const { views } = context.parts;
  const session = await openSession(context, repository, { refsOnly: true, strong: true });
  try {
    const visible = visibleRefs(repository.settings, 'receive');
    await advertisePush(context, repository, views.of(session.snapshot, visible));
  } finally {
    session.release();
  }
}

async function readPush(
  list: CommandListReader,
  { settings, objectFormat }: ServedRepository,
): Promise<Push | undefined> {
  const read = await list.readCommands();
  if (read === undefined) return undefined;
  const { commands: sent, capabilities, shallow } = read;
  const format = capabilityValue(capabilities, 'object-format') ?? objectFormat;
  if (format !== objectFormat) {
    throw new WireError('malformed', `this repository's object format is ${objectFormat}`);
  }
  if (
    hasCapability(capabilities, 'push-options') &&
    !booleanSetting(settings, 'receive.advertisePushOptions')
  ) {
    throw new WireError('unsupported', 'push options are not accepted here');
  }
  const pushOptions = await list.readPushOptions();
  return { sent, capabilities, shallow, pushOptions };
}

interface Run {
  readonly repository: Repository;
  readonly push: Push;
  readonly judged: JudgedCommands;
}

/** From here on the client is told by a report, whatever happens. */
async function run(
  context: GitContext,
  { packets, ...run }: Run & { readonly packets: PktReader },
): Promise<GitOutcome> {
  const { output, parts } = context;
  const { push } = run;
  const channel = new PushChannel(output, {
    sideBand: sideBandOf(push),
    clock: parts.clock,
    limits: parts.limits,
  });
  const deletesOnly = push.sent.every(({ newOid }) => isZeroOid(newOid));
  const pack = deletesOnly ? undefined : packOf(context, run.repository, packets);
  const pushId = Buffer.from(parts.random.bytes(16)).toString('hex');
  if (deletesOnly) channel.keepAlive();
  let recorded: (() => Promise<void>) | undefined;
  const record = (known: Known): (() => Promise<void>) =>
    (recorded ??= recordPush(context, { ...run, ...known, pushId }));
  const committed = (result: PushResult): void => void record({ result });
  const known = await pushAdmitted(context, run, { pushId, pack, channel, committed });
  await record(known)();
  await takeRest(context, pack);
  await channel.close();
  const { result, error } = known;
  if (error !== undefined) return fail(context, run, { pushId, channel, error });
  assert(result !== undefined);
  if (result.generation !== undefined) context.request.onGeneration?.(result.generation);
  const refs = reportOf(push.sent, result.refs);
  try {
    await tellReport(push, channel, { unpack: result.unpack, refs });
  } catch (error) {
    const isCommitted = result.refs.some(({ status }) => status === 'ok');
    throw isCommitted ? untoldOf(context, error) : error;
  }
  return {
    status: result.refs.every(({ status }) => status === 'ok') ? 'ok' : 'refused',
    exitCode: 0,
    fields: { repo: run.repository.id, push_id: pushId, ...refsOf(result) },
  };
}

/** What a push came to: one of both. */
interface Known {
  readonly result?: PushResult;
  readonly error?: QuorateError;
}

interface Upload {
  readonly pushId: string;
  readonly pack: PackStream | undefined;
  readonly channel: PushChannel;
  readonly committed: (result: PushResult) => void;
}

/** Waits for the push's turn, if it brings a pack, and runs it. */
async function pushAdmitted(context: GitContext, run: Run, upload: Upload): Promise<Known> {
  const { parts, request } = context;
  let place: Place | undefined;
  try {
    if (upload.pack !== undefined) place = await parts.admissions[request.transport].push(request);
  } catch (error) {
    // Nothing was written yet: over HTTP it becomes a status. In a session the pusher waits for its report.
    if (request.mode !== 'session') throw error;
    return { error: failureOf(context, error) };
  }
  try {
    return { result: await parts.backend.push(run.repository, requestOf(context, run, upload)) };
  } catch (error) {
    return { error: failureOf(context, error) };
  } finally {
    place?.leave();
  }
}

function requestOf(
  { request }: GitContext,
  { push, repository, judged }: Run,
  { pushId, pack, channel, committed }: Upload,
): PushRequest {
  const { capabilities, pushOptions, shallow } = push;
  return {
    pushId,
    actor: principalName(request.principal),
    pusher: pusherOf(request.principal),
    commands: judged.commands,
    refused: judged.refused,
    atomic:
      hasCapability(capabilities, 'atomic') &&
      booleanSetting(repository.settings, 'receive.advertiseAtomic'),
    pushOptions,
    pack: pack === undefined ? undefined : thenKeepAlive(pack, channel),
    shallow,
    progress: channel.progress,
    quiet: hasCapability(capabilities, 'quiet'),
    committed,
    signal: request.signal,
  };
}

/**
 * What the backend left of the pack. In a session it has to be read before the report: git reads that only when it
 * has sent all. Over HTTP the listener does it, behind the answer.
 */
async function takeRest(
  { request, input, parts }: GitContext,
  pack: PackStream | undefined,
): Promise<void> {
  if (pack === undefined || pack.ended) return;
  try {
    if (request.mode === 'session') await pack.drain(parts.limits.maxDrainBytes);
  } catch {
    // The client is gone: the next write finds that out.
  }
  input.abandon();
}

function packOf(
  { request, input }: GitContext,
  { objectFormat }: Repository,
  packets: PktReader,
): PackStream {
  return request.mode === 'session'
    ? new PackStream(packets.rest(), {
        session: { format: objectFormat, idle: () => input.idle },
      })
    : new PackStream(packets.rest(), { takeRest: () => packets.takeRest() });
}

function thenKeepAlive(pack: PackStream, channel: PushChannel): IncomingPack {
  return {
    takeWhole() {
      const whole = pack.takeWhole();
      if (whole !== undefined) channel.keepAlive();
      return whole;
    },
    async *[Symbol.asyncIterator]() {
      yield* pack;
      channel.keepAlive();
    },
  };
}

/** The error that a failed push is told and recorded with: the client's leaving comes before what followed from it. */
function failureOf({ request, input }: GitContext, error: unknown): QuorateError {
  const failure = asServiceError(error);
  if (failure.code === 'outcome-unknown') return failure;
  if (request.signal.aborted) return cancelledBy(request.signal);
  return input.failure === null ? failure : asServiceError(input.failure);
}

/**
 * A push that is committed, and whose pusher cannot be told so: to him whose request is stopped (a time limit, the end of a
 * drain) that would be told as if nothing had happened. Who left is told nothing anyway.
 */
function untoldOf({ request: { signal } }: GitContext, cause: unknown): QuorateError {
  const error = asServiceError(cause);
  const { reason } = signal;
  if (!signal.aborted || (reason instanceof QuorateError && reason.code === 'cancelled')) {
    return error;
  }
  const message = 'the push is committed, and its report could not be sent; fetch to find out';
  return new QuorateError('outcome-unknown', message, { cause });
}

/** A push that came to no result. Only one whose outcome is known gets a verdict. */
async function fail(
  { request, input, output, parts }: GitContext,
  { push }: Run,
  failure: {
    readonly pushId: string;
    readonly channel: PushChannel;
    readonly error: QuorateError;
  },
): Promise<GitOutcome> {
  const { error, pushId, channel } = failure;
  const brokenOff = request.signal.aborted || input.failure !== null;
  const { code, message: problem } = error;
  // Who left, or was too slow, is no trouble of the server, and needs no stack.
  const why = brokenOff && code !== 'internal' ? { code, problem } : { err: error };
  parts.logger[code === 'internal' ? 'error' : 'warn'](
    { component: 'core', request_id: request.requestId, push_id: pushId, ...why },
    'a push failed',
  );
  if (code === 'outcome-unknown' || brokenOff) {
    output.voice = 'none';
    throw code === 'outcome-unknown' ? error : (input.failure ?? error);
  }
  const reason = publicMessage(error, request.requestId);
  await tellReport(push, channel, {
    unpack: reason,
    refs: push.sent.map(({ ref }) => ({ ref, status: 'ng', reason })),
  });
  return { status: 'error', exitCode: 0, fields: { push_id: pushId, error: error.code } };
}

async function tellReport(
  { capabilities }: Push,
  channel: PushChannel,
  report: StatusReport,
): Promise<void> {
  const version = hasCapability(capabilities, 'report-status-v2')
    ? 2
    : hasCapability(capabilities, 'report-status')
      ? 1
      : undefined;
  await channel.finish(version === undefined ? undefined : writeStatusReport(report, version));
}
