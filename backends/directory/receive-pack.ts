import assert from 'node:assert/strict';
import type { GitStream, PushRequest, PushResult } from '../contract/backend.js';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { ObjectFormat, RefCommand } from '../contract/objects.js';
import type { RefOutcome } from '../contract/repository.js';
import type { PackAllowance } from '../contract/pipeline.js';
import { listSetting, numberSetting } from '../contract/settings.js';
import type { GitCommand, GitRunner } from '../git/git-runner.js';
import { isZero } from '../git/ref-commands.js';
import { readRefSnapshot } from '../git/ref-snapshot.js';
import type { Capability } from '../../server/wire/capabilities.js';
import { writeCommandList } from '../../server/wire/command-list.js';
import { PktReader } from '../../server/wire/pkt-line.js';
import { readStatusReport, type StatusReport } from '../../server/wire/report-status.js';
import { parseSideBand } from '../../server/wire/side-band.js';
import { WireError } from '../../server/wire/wire-error.js';
import { makeDurable } from './make-durable.js';
import { PushInput } from './push-input.js';
import type { RepositoryConfig } from './repository-config.js';

export interface ReceivePackRun {
  readonly git: GitRunner;
  readonly clock: Pick<Clock, 'nowMs'>;
  readonly gitDir: string;
  readonly config: RepositoryConfig;
  readonly request: PushRequest;
  /** Commands less the refused ones; at least one. */
  readonly commands: readonly RefCommand[];
  /** What a quota leaves. */
  readonly allowance?: PackAllowance;
  /** Rejects when `gitDir` is not the repository that was opened: another one may have its name by now. */
  readonly confirm: () => Promise<unknown>;
}

/** As long as the longest request of the listeners; what is stuck in a hook goes then. */
const pushTimeoutMs = 12 * 3_600_000;
/** 1,000,000 refs with long names. */
const maxReportBytes = 256 * 1024 ** 2;

/**
 * Hands a push to `git receive-pack` in the repository, whose configuration and hooks rule. git's report becomes the
 * result; its side-band goes to the pusher. Errors: those of `confirm`, `cancelled`, `storage-failure` (nothing
 * changed); `outcome-unknown` (git ended without a report after it had changed something, or unseen; what it reported
 * as done could not be made durable).
 */
export async function runReceivePack(run: ReceivePackRun): Promise<PushResult> {
  const { request } = run;
  const input = new PushInput(commandList(run), request.pack);
  const stop = (): void => input.stop();
  request.signal.addEventListener('abort', stop);
  if (request.signal.aborted) stop();
  const sinceMs = run.clock.nowMs();
  try {
    const { warning } = run.allowance ?? {};
    if (warning !== undefined) request.progress(Buffer.from(warning));
    const stream = await start(run, input);
    const answer = await readAnswer(stream, request.progress);
    const end = await stream.exited;
    if (!('report' in answer)) throw await withoutReport(run, input, { ...end, ...answer });
    const { report } = answer;
    const result = resultOf(run.commands, withQuota(run, report));
    const changed = result.refs.filter(({ status }) => status === 'ok');
    if (changed.length === 0 && input.failure !== undefined) throw input.failure;
    if (changed.length === 0 && request.signal.aborted) throw left();
    await makeDurable({ gitDir: run.gitDir, refs: changed.map(({ ref }) => ref), sinceMs }).catch(
      (cause: unknown) => {
        const why = 'git has updated the refs, and the disk fails to keep them';
        throw new QuorateError('outcome-unknown', why, { cause });
      },
    );
    return result;
  } finally {
    request.signal.removeEventListener('abort', stop);
    input.stop();
  }
}

/**
 * git is in the repository's directory when it has started, whatever has its name afterwards; so that directory is
 * looked at once more then, before git has anything to read.
 */
async function start(run: ReceivePackRun, input: PushInput): Promise<GitStream> {
  const { git, request } = run;
  // Who leaves while git waits for its turn is not waited for; once it runs, only the end of its input ends it.
  const waiting = new AbortController();
  const giveUp = (): void => waiting.abort(request.signal.reason);
  request.signal.addEventListener('abort', giveUp);
  if (request.signal.aborted) giveUp();
  const stream = await git
    .stream({ ...commandOf(run), stdin: input, signal: waiting.signal })
    .finally(() => request.signal.removeEventListener('abort', giveUp));
  try {
    await run.confirm();
  } catch (error) {
    input.stop();
    await readAnswer(stream, () => undefined);
    await stream.exited;
    throw error;
  }
  input.begin();
  return stream;
}

/** Reads to git's end, whatever it says: git is not to wait for a reader. */
async function readAnswer(
  { stdout }: GitStream,
  progress: (text: Uint8Array) => void,
): Promise<{ readonly report: StatusReport } | { readonly cause: unknown }> {
  const reader = new PktReader(stdout);
  const answer = await readReport(reader, progress).then(
    (report) => ({ report }),
    (cause: unknown) => ({ cause }),
  );
  try {
    for await (const bytes of reader.rest()) assert(bytes.length > 0);
  } catch {
    // It closes then, which is git's end as well.
    stdout.destroy();
  }
  return answer;
}

function commandList({ config, request, commands }: ReceivePackRun): string {
  const capabilities: Capability[] = [
    { name: 'report-status' },
    { name: 'side-band-64k' },
    { name: 'object-format', value: config.objectFormat },
    ...(request.atomic ? [{ name: 'atomic' }] : []),
    ...(request.quiet ? [{ name: 'quiet' }] : []),
    ...(request.pushOptions.length > 0 ? [{ name: 'push-options' }] : []),
  ];
  return writeCommandList(
    { commands, capabilities, shallow: request.shallow },
    request.pushOptions.length > 0 ? request.pushOptions : undefined,
  );
}

/** git says of a pack that is too large that it could not be unpacked, and why on its stderr alone. */
function withQuota({ config, allowance }: ReceivePackRun, report: StatusReport): StatusReport {
  if (report.unpack === 'ok' || allowance === undefined) return report;
  if (maxInputBytes(config) <= allowance.maxPackBytes) return report;
  return { ...report, unpack: `${report.unpack} (if it is for its size: ${allowance.refuse()})` };
}

/** As git takes it; Infinity: no limit. */
function maxInputBytes(config: RepositoryConfig): number {
  return numberSetting(config.settings, 'receive.maxInputSize') || Infinity;
}

function commandOf({ gitDir, config, request, allowance }: ReceivePackRun): GitCommand {
  const { actor } = request;
  return {
    // Not by its name, which another directory may have when git gets to look for it.
    args: ['receive-pack', '--stateless-rpc', '.'],
    cwd: gitDir,
    env: {
      GIT_PROTOCOL: 'version=0',
      // As git http-backend tells hooks and reflogs who it is.
      REMOTE_USER: actor,
      GIT_COMMITTER_NAME: actor,
      GIT_COMMITTER_EMAIL: `${actor}@quorate`,
    },
    config: {
      'core.fsync': 'objects,derived-metadata,reference',
      'core.fsyncMethod': 'fsync',
      ...(request.pushOptions.length > 0 ? { 'receive.advertisePushOptions': 'true' } : {}),
      ...defaultsFor(config),
      // What is stored is measured by packs; loose objects are only sampled.
      ...(allowance === undefined ? {} : { 'receive.unpackLimit': '1' }),
      ...(allowance !== undefined && allowance.maxPackBytes < maxInputBytes(config)
        ? { 'receive.maxInputSize': String(allowance.maxPackBytes) }
        : {}),
    },
    timeoutMs: pushTimeoutMs,
    // A hook may start something that outlives the push, as it may behind any git server.
    leaveDescendants: true,
  };
}

/** Our defaults, where they are not git's and the repository says nothing itself. */
function defaultsFor(config: RepositoryConfig): Record<string, string> {
  const values: Record<string, string> = {};
  if (!config.has('receive.fsckObjects') && !config.has('transfer.fsckObjects')) {
    values['receive.fsckObjects'] = 'true';
  }
  if (!config.has('receive.maxInputSize')) values['receive.maxInputSize'] = '4g';
  for (const id of listSetting(config.settings, 'receive.fsck.ignore')) {
    values[`receive.fsck.${id}`] = 'ignore';
  }
  return values;
}

/** Band 1 carries the report, in packets of its own; band 2 is for the pusher; band 3 is git's end. */
async function readReport(
  reader: PktReader,
  progress: (text: Uint8Array) => void,
): Promise<StatusReport> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for (;;) {
    const pkt = await reader.read();
    if (pkt === undefined || pkt.type === 'flush') break;
    if (pkt.type !== 'data') throw new WireError('malformed', `unexpected ${pkt.type} packet`);
    const { band, data } = parseSideBand(pkt.payload);
    if (band === 2) progress(data);
    if (band === 3) throw new WireError('unsupported', data.toString());
    if (band === 1) {
      bytes += data.length;
      if (bytes > maxReportBytes) throw new WireError('too-large', 'the report is too long');
      parts.push(data);
    }
  }
  return readStatusReport(new PktReader(once(Buffer.concat(parts))));
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

function resultOf(commands: readonly RefCommand[], report: StatusReport): PushResult {
  const reports = new Map(report.refs.map((each) => [each.ref, each]));
  const refs = commands.map(({ ref, oldOid, newOid }): RefOutcome => {
    const told = reports.get(ref);
    if (told?.status === 'ok') return { ref, status: 'ok', oldOid, newOid };
    const reason =
      told?.reason ?? (report.unpack === 'ok' ? 'git did not report it' : 'unpacker error');
    return { ref, status: 'refused', reason };
  });
  return { unpack: report.unpack, refs };
}

interface End {
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly stderr: string;
  /** Why there is no report. */
  readonly cause: unknown;
}

/** git ended without a word: what the refs are now says whether something happened. */
async function withoutReport(run: ReceivePackRun, input: PushInput, end: End): Promise<unknown> {
  const { exitCode, signal, stderr, cause } = end;
  const details = { exitCode, signal, stderr };
  const unknown = (why: string, because = cause): QuorateError =>
    new QuorateError('outcome-unknown', `git receive-pack ended without a report${why}`, {
      details,
      cause: because,
    });
  // Nobody saw its end: it may go on for a moment, and change something yet.
  if (exitCode === null && signal === null) return unknown(', unseen');
  const { git, gitDir, config, commands, request } = run;
  let isUntouched: boolean;
  try {
    isUntouched = await noneApplied({ git, gitDir, commands, objectFormat: config.objectFormat });
  } catch (error) {
    return unknown(', and the refs cannot be read', error);
  }
  if (!isUntouched) return unknown('');
  if (input.failure !== undefined) return input.failure;
  if (request.signal.aborted) return left();
  return new QuorateError('storage-failure', 'git receive-pack failed; nothing was changed', {
    details,
    cause,
  });
}

async function noneApplied(options: {
  readonly git: GitRunner;
  readonly gitDir: string;
  readonly commands: readonly RefCommand[];
  readonly objectFormat: ObjectFormat;
}): Promise<boolean> {
  const snapshot = await readRefSnapshot({ ...options, generation: 0 });
  return options.commands.every(({ ref, newOid }) => {
    const current = snapshot.find(ref)?.oid;
    return isZero(newOid) ? current !== undefined : current !== newOid;
  });
}

function left(): QuorateError {
  return new QuorateError('cancelled', 'the client went away before its push was complete');
}
