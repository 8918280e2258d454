import { parseFetchArguments, type FetchRequest } from '../wire/fetch-request.js';
import { writeCommandRequest, type CommandRequest } from '../wire/v2-request.js';
import { pktText } from '../wire/pkt-line.js';
import { WireError } from '../wire/wire-error.js';
import { checkFetch, resolveWantRefs, type FetchGround, type WantedRef } from './fetch-checks.js';
import type { GitContext } from './git-context.js';
import type { GitOutcome } from './git-request.js';
import { relayGit } from './relay-git.js';
import { ProtocolRefusal } from './service-error.js';
import { sendStoredClone, wantsEverything } from './stored-clone.js';
import { enterPackRun, failureText, isShallow, outcomeOf } from './upload-run.js';
import { wantedRefsSection, withWantedRefs } from './wanted-refs.js';

/**
 * v2 `fetch` (gitprotocol-v2(5)): judged here, then negotiated and packed by git from the very bytes that the client
 * sent, except that refs wanted by name are resolved here (`wanted-refs.ts` says why).
 */
export async function fetch(
  context: GitContext,
  ground: FetchGround,
  { command, bytes }: { readonly command: CommandRequest; readonly bytes: Uint8Array },
): Promise<GitOutcome> {
  const wanted = parse(command.args);
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
  const run = await enterPackRun(context, ground, wanted.haves.length > 0 || isShallow(wanted));
  try {
    const git = await ground.session.uploadPack({
      protocol: 2,
      input: refs.length === 0 ? bytes : wantingById(command, refs),
      stateless: true,
      visible: ground.visible,
      config: run.config,
      signal: context.request.signal,
    });
    const sideBandAll = wanted.flags.has('sideband-all');
    const relayed = await relayGit(git, context.output, {
      failure: failureText(context),
      ...(refs.length === 0
        ? {}
        : { through: (answer) => withWantedRefs(answer, refs, { sideBandAll }) }),
    });
    return outcomeOf(context, relayed, fieldsOf(wanted));
  } finally {
    run.leave();
  }
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
