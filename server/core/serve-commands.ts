import type { Repository } from '../../backends/contract/repository.js';
import { capabilityValue } from '../wire/capabilities.js';
import { PktReader } from '../wire/pkt-line.js';
import { readCommandRequest, type CommandRequest } from '../wire/v2-request.js';
import { excerpt } from '../wire/wire-error.js';
import { fetch } from './fetch.js';
import { type GitContext, openSession } from './git-context.js';
import type { GitOutcome } from './git-request.js';
import { HeldSession } from './held-session.js';
import { lsRefs } from './ls-refs.js';
import { objectInfo } from './object-info.js';
import { ProtocolRefusal } from './service-error.js';
import { groundOf } from './upload-run.js';

/**
 * Protocol v2 after the advertisement (gitprotocol-v2(5)): one command request over HTTP, request after request in a
 * session, until the client says that it is done. A session reads one generation throughout, so that a fetch finds
 * what its ls-refs told; nothing is pinned before the first command.
 */
export async function serveCommands(
  context: GitContext,
  repository: Repository,
): Promise<GitOutcome> {
  const { input, parts, request } = context;
  const reader = new PktReader(input);
  let held: HeldSession | undefined;
  let outcome: GitOutcome = { status: 'ok', exitCode: 0, fields: {} };
  try {
    do {
      reader.limit(parts.limits.maxFetchRequestBytes);
      reader.record();
      const command = await readCommandRequest(reader);
      if (command === undefined) return outcome;
      checkRequest(command, repository);
      held = await sessionFor(context, { repository, command, held });
      outcome = await serveCommand(context, held, {
        command,
        takeBytes: () => reader.takeRecorded(),
      });
    } while (request.mode === 'session' && outcome.status === 'ok');
    return outcome;
  } finally {
    held?.letGo();
  }
}

interface Needed {
  readonly repository: Repository;
  readonly command: CommandRequest;
  /** The read so far. */
  readonly held: HeldSession | undefined;
}

/**
 * The read that answers a command. Most conversations end after ls-refs, which needs no store where the refs are in
 * memory; one that goes on then sees the generation that it was told of, or a later one, as over HTTP.
 */
async function sessionFor(
  context: GitContext,
  { repository, command, held }: Needed,
): Promise<HeldSession> {
  const refsOnly = command.command === 'ls-refs';
  if (held !== undefined && (refsOnly || !held.session.refsOnly)) return held;
  const atLeast = held?.session.snapshot.generation;
  const session = await openSession(context, repository, { refsOnly, atLeast });
  held?.letGo();
  return new HeldSession(session);
}

function checkRequest({ command, capabilities }: CommandRequest, repository: Repository): void {
  const format = capabilityValue(capabilities, 'object-format') ?? 'sha1';
  if (format !== repository.objectFormat) {
    throw new ProtocolRefusal(
      `mismatched object format: server ${repository.objectFormat}; client ${excerpt(format)}`,
    );
  }
  const offered = new Set(['agent', 'object-format', 'server-option', 'session-id']);
  const unknown = capabilities.find(({ name }) => !offered.has(name));
  if (unknown !== undefined) {
    throw new ProtocolRefusal(`unknown capability '${excerpt(unknown.name)}'`);
  }
  if (!['ls-refs', 'fetch', 'object-info'].includes(command)) {
    throw new ProtocolRefusal(`invalid command '${excerpt(command)}'`);
  }
}

async function serveCommand(
  context: GitContext,
  held: HeldSession,
  { command, takeBytes }: { readonly command: CommandRequest; readonly takeBytes: () => Buffer },
): Promise<GitOutcome> {
  const ground = groundOf(context, held.session);
  switch (command.command) {
    case 'ls-refs': {
      const fields = await lsRefs(context, ground.view, { args: command.args, takeBytes });
      return { status: 'ok', exitCode: 0, fields };
    }
    case 'object-info': {
      const fields = await objectInfo(context, ground, command.args);
      return { status: 'ok', exitCode: 0, fields: { command: 'object-info', ...fields } };
    }
    default:
      return fetch(context, ground, { command, bytes: takeBytes(), held });
  }
}
