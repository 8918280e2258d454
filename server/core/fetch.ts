import { parseFetchArguments, type FetchRequest } from '../wire/fetch-request.js';
import { WireError } from '../wire/wire-error.js';
import { checkFetch, type FetchGround } from './fetch-checks.js';
import type { GitContext } from './git-context.js';
import type { GitOutcome } from './git-request.js';
import { ProtocolRefusal } from './service-error.js';
import { relayGit } from './relay-git.js';
import { failureText, outcomeOf, runConfig } from './upload-run.js';

/** v2 `fetch` (gitprotocol-v2(5)): judged here, then negotiated and packed by git from the very bytes that the client sent. */
export async function fetch(
  context: GitContext,
  ground: FetchGround,
  { args, bytes }: { readonly args: readonly string[]; readonly bytes: Uint8Array },
): Promise<GitOutcome> {
  const wanted = parse(args);
  await checkFetch(ground, wanted);
  const git = await ground.session.uploadPack({
    protocol: 2,
    input: bytes,
    stateless: true,
    visible: ground.visible,
    config: runConfig(ground),
    signal: context.request.signal,
  });
  const relayed = await relayGit(git, context.output, { failure: failureText(context) });
  return outcomeOf(context, relayed, fieldsOf(wanted));
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
