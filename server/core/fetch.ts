import { createHash } from 'node:crypto';
import { parseFetchArguments, type FetchRequest } from '../wire/fetch-request.js';
import { writeCommandRequest, type CommandRequest } from '../wire/v2-request.js';
import { pktText } from '../wire/pkt-line.js';
import { WireError } from '../wire/wire-error.js';
import { checkFetch, resolveWantRefs, type FetchGround, type WantedRef } from './fetch-checks.js';
import type { GitContext } from './git-context.js';
import type { GitOutcome } from './git-request.js';
import type { HeldSession } from './held-session.js';
import { relayGit } from './relay-git.js';
import { ProtocolRefusal } from './service-error.js';
import { sendStoredClone, wantsEverything } from './stored-clone.js';
import { failureText, isShallow, outcomeOf, runConfig, startUpload } from './upload-run.js';
import { wantedRefsSection, withWantedRefs } from './wanted-refs.js';

export interface FetchAsked {
  readonly command: CommandRequest;
  /** The request as it came. */
  readonly bytes: Uint8Array;
  /** The read of `ground`. */
  readonly held: HeldSession;
}

/**
 * v2 `fetch` (gitprotocol-v2(5)): judged here, then negotiated and packed by git from the very bytes that the client
 * sent, except that refs wanted by name are resolved here (`wanted-refs.ts` says why).
 */
export async function fetch(
  context: GitContext,
  ground: FetchGround,
  { command, bytes, held }: FetchAsked,
): Promise<GitOutcome> {
  const wanted = parse(command.args);
  const { parts, request } = context;
  const refs = resolveWantRefs(ground, wanted.wantRefs);
  await checkFetch(ground, wanted);
  const whole = isWhole(ground, wanted, refs) ? await ground.session.wholePack() : undefined;
  if (whole !== undefined) {
    const band = wanted.flags.has('sideband-all') ? '\x01' : '';
    const named = refs.length === 0 ? '' : wantedRefsSection(refs, band);
    return sendStoredClone(context, whole, {
      before: `${named}${pktText(`${band}packfile\n`)}`,
      progress: !wanted.flags.has('no-progress'),
      fields: fieldsOf(wanted),
    });
  }
  const { git, sharing } = await parts.sharedRuns.share({
    // Without generations nobody can say whether two requests see the same refs.
    key: parts.backend.capabilities.generations ? shareKey(ground, wanted, refs) : undefined,
    signal: request.signal,
    onHold: request.onHold,
    start: (signal) =>
      startUpload(context, held, {
        partial: wanted.haves.length > 0 || isShallow(wanted),
        ground,
        input: refs.length === 0 ? bytes : wantingById(command, refs),
        signal,
      }),
  });
  const sideBandAll = wanted.flags.has('sideband-all');
  const relayed = await relayGit(git, context.output, {
    failure: failureText(context, wanted),
    ...(refs.length === 0
      ? {}
      : { through: (answer) => withWantedRefs(answer, refs, { sideBandAll }) }),
  });
  const fields = fieldsOf(wanted);
  return outcomeOf(context, relayed, sharing === 'joined' ? { ...fields, shared: true } : fields);
}

/**
 * All that the answer depends on: the state of the repository, what of it may be seen, what git is told of the settings,
 * and the request, less what only names the client (`agent`, `session-id`). Refs that were wanted by name are put into
 * each answer by itself, and are ids here.
 */
function shareKey(
  { session, visible }: FetchGround,
  wanted: FetchRequest,
  refs: readonly WantedRef[],
): string {
  const { repository, snapshot } = session;
  const request = {
    ...wanted,
    wants: [...new Set([...wanted.wants, ...refs.map(({ oid }) => oid)])].toSorted(),
    wantRefs: [],
    shallow: wanted.shallow.toSorted(),
    flags: [...wanted.flags].toSorted(),
  };
  const parts = [repository.id, snapshot.generation, visible.key, runConfig(repository), request];
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64');
}

/** A stored pack can be the answer: to a clone of everything by a client that takes deltas by offset. */
function isWhole(ground: FetchGround, wanted: FetchRequest, refs: readonly WantedRef[]): boolean {
  const { flags, haves } = wanted;
  const wants = [...wanted.wants, ...refs.map(({ oid }) => oid)];
  return (
    flags.has('done') &&
    flags.has('ofs-delta') &&
    haves.length === 0 &&
    wantsEverything(ground, { ...wanted, wants })
  );
}

function wantingById(command: CommandRequest, refs: readonly WantedRef[]): Uint8Array {
  const args = command.args.filter((arg) => !arg.startsWith('want-ref '));
  const wants = refs.map(({ oid }) => `want ${oid}`);
  return Buffer.from(writeCommandRequest({ ...command, args: [...wants, ...args] }));
}

function parse(args: readonly string[]): FetchRequest {
  try {
    return parseFetchArguments(args);
  } catch (error) {
    throw error instanceof WireError ? new ProtocolRefusal(`fetch: ${error.message}`) : error;
  }
}

function fieldsOf(wanted: FetchRequest): Readonly<Record<string, unknown>> {
  return {
    command: 'fetch',
    wants: wanted.wants.length + wanted.wantRefs.length,
    haves: wanted.haves.length,
    ...(wanted.depth === undefined ? {} : { depth: wanted.depth }),
    ...(wanted.filter === undefined ? {} : { filter: wanted.filter }),
  };
}
