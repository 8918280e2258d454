import { Readable } from 'node:stream';
import type { Repository } from '../../backends/contract/repository.js';
import { maxPktBytes, PktReader } from '../wire/pkt-line.js';
import { WireError } from '../wire/wire-error.js';
import type { Place } from './admission.js';
import { type GitContext, openSession } from './git-context.js';
import type { GitOutcome } from './git-request.js';
import { visibleRefs } from './hidden-refs.js';
import { relayGit } from './relay-git.js';

/** git's own bound on arguments (MAX_ARGS in builtin/upload-archive.c). */
const maxArguments = 64;

/** git archive streams file by file. Files that are deltas are inflated as a whole: some megabytes. */
const archiveMemoryBytes = 16 * 1024 ** 2;

/**
 * Serves `git archive --remote` (git-upload-archive(1)): arguments up to a flush, then git answers. git takes only
 * names of refs and paths below them there, and is given a repository that has the visible refs alone
 * (`uploadArchive.allowUnreachable` stays off), so nothing hidden can be named.
 */
export async function uploadArchive(
  context: GitContext,
  repository: Repository,
): Promise<GitOutcome> {
  const { input, output, parts, request } = context;
  const reader = new PktReader(input);
  reader.limit(maxArguments * maxPktBytes);
  reader.record();
  const count = await readArguments(reader);
  if (count === 0) return { status: 'ok', exitCode: 0, fields: {} };
  const section = reader.takeRecorded();
  const session = await openSession(context, repository);
  let place: Place | undefined;
  try {
    place = await parts.admissions[request.transport].fetch(request, archiveMemoryBytes);
    const git = await session.uploadArchive({
      input: Readable.from([section], { objectMode: false }),
      visible: visibleRefs(session.repository.settings, 'uploadpack'),
      signal: request.signal,
    });
    const failure = `the server's git failed (request ${request.requestId})`;
    const { exitCode, errorTold } = await relayGit(git, output, { failure });
    if (exitCode === 0) return { status: 'ok', exitCode: 0, fields: { arguments: count } };
    return { status: errorTold ? 'refused' : 'error', exitCode: 128, fields: { arguments: count } };
  } finally {
    place?.leave();
    session.release();
  }
}

async function readArguments(reader: PktReader): Promise<number> {
  for (let count = 0; ; count += 1) {
    const pkt = await reader.read();
    if (pkt === undefined && count === 0) return 0;
    if (pkt === undefined) throw new WireError('truncated', 'the arguments are cut off');
    if (pkt.type === 'flush') return count;
    if (pkt.type !== 'data' || !pkt.payload.toString('latin1').startsWith('argument ')) {
      throw new WireError('malformed', "'argument' token or flush expected");
    }
    if (count === maxArguments) throw new WireError('too-large', 'too many arguments');
  }
}
