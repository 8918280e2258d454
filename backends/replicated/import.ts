import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Backend, MaintenanceProgress } from '../contract/backend.js';
import type { Logger, Random } from '../contract/environment.js';
import { QuorateError, refuseCancelled } from '../contract/errors.js';
import type { Oid, RefCommand } from '../contract/objects.js';
import type { Repository } from '../contract/repository.js';
import type { GitCommand, GitRunner } from '../git/git-runner.js';
import { lastHttpStatus, tracingHttpTo } from '../git/http-answer.js';
import { progressSteps } from '../git/progress-steps.js';
import { removeTree } from '../git/repository-files.js';

export interface ImportDependencies {
  readonly git: GitRunner;
  readonly backend: Backend;
  readonly random: Random;
  readonly logger: Logger;
  readonly scratchDirectory: string;
}

export interface ImportRequest {
  readonly repository: Repository;
  readonly source: string;
  readonly actor: string;
  readonly signal: AbortSignal;
  readonly progress: (progress: MaintenanceProgress) => void;
}

/** Long enough for a repository of tens of gigabytes over a slow line. */
const fetchTimeoutMs = 12 * 3600 * 1000;

/**
 * Fetches the source into a scratch repository, then pushes that as one push: the objects pass the same checks, and
 * the refs appear in one entry or not at all.
 */
export async function importRepository(
  dependencies: ImportDependencies,
  request: ImportRequest,
): Promise<{ readonly refs: number }> {
  const { backend, random } = dependencies;
  const { repository } = request;
  const stats = await backend.repositories.stats(repository);
  if (stats.refCount > 0) {
    throw new QuorateError(
      'failed-precondition',
      `${repository.name} is not empty; import into a new repository`,
    );
  }
  const pushId = `import-${Buffer.from(random.bytes(12)).toString('hex')}`;
  const scratch = join(dependencies.scratchDirectory, pushId);
  await mkdir(scratch, { recursive: true, mode: 0o700 });
  try {
    const branch = await fetchSource(dependencies, request, scratch);
    const commands = await scratchRefs(dependencies.git, scratch, request.signal);
    if (commands.length > 0)
      await pushScratch(dependencies, request, { scratch, pushId, commands });
    if (branch !== undefined) await backend.repositories.setHead(repository, branch);
    return { refs: commands.length };
  } finally {
    await removeTree(scratch);
  }
}

/** Returns the branch that the source's HEAD names. */
async function fetchSource(
  { git }: ImportDependencies,
  { repository, source, signal, progress }: ImportRequest,
  scratch: string,
): Promise<string | undefined> {
  const { url, credentials } = withoutCredentials(source);
  const trace = join(scratch, 'http-trace');
  const run = async (step: string, command: GitCommand): Promise<string> => {
    const result = await git.run({ timeoutMs: fetchTimeoutMs, signal, ...command });
    refuseCancelled(signal);
    if (result.exitCode === 0) return result.stdout.toString('utf8');
    const refusal = credentialsProblem(await lastHttpStatus(trace), credentials !== undefined);
    throw new QuorateError(
      'failed-precondition',
      `the source cannot be ${step}: ${refusal ?? whyOf(result.stderr)}`,
    );
  };
  const transports = {
    ...credentials,
    'protocol.allow': 'never',
    'protocol.http.allow': 'always',
    'protocol.https.allow': 'always',
    'protocol.ssh.allow': 'always',
    'protocol.git.allow': 'always',
    'protocol.file.allow': 'always',
  };
  await run('prepared for', {
    args: [
      'init',
      '--quiet',
      '--bare',
      '--template=',
      `--object-format=${repository.objectFormat}`,
      scratch,
    ],
  });
  progress({ step: 'connecting', done: 0, total: 1 });
  const head = await run('reached', {
    args: ['ls-remote', '--symref', '--end-of-options', url, 'HEAD'],
    config: transports,
    env: tracingHttpTo(trace),
  });
  await run('fetched', {
    args: [
      'fetch',
      '--progress',
      '--no-write-fetch-head',
      '--end-of-options',
      url,
      '+refs/*:refs/*',
    ],
    cwd: scratch,
    config: { ...transports, 'gc.auto': '0', 'fetch.fsckObjects': 'false' },
    onStderr: progressSteps(progress),
  });
  return /^ref: (refs\/heads\/\S+)\tHEAD$/m.exec(head)?.[1];
}

/** User and password of an HTTP URL go to git in its environment: arguments can be read by everybody on the machine. */
function withoutCredentials(source: string): {
  readonly url: string;
  readonly credentials?: Readonly<Record<string, string>>;
} {
  if (!/^https?:/i.test(source) || !URL.canParse(source)) return { url: source };
  const url = new URL(source);
  if (url.username === '' && url.password === '') return { url: source };
  const pair = `${decoded(url.username)}:${decoded(url.password)}`;
  url.username = '';
  url.password = '';
  return {
    url: url.href,
    credentials: {
      [`http.${url.origin}/.extraHeader`]: `Authorization: Basic ${Buffer.from(pair).toString('base64')}`,
    },
  };
}

/** What a source means that refuses a request, and what to do; undefined when it is not about credentials. */
function credentialsProblem(
  httpStatus: number | undefined,
  hasCredentials: boolean,
): string | undefined {
  const inUrl = 'the URL: https://USER:TOKEN@HOST/PATH';
  if (httpStatus === 401) {
    return hasCredentials
      ? 'it does not accept the user and password (or token) in the URL; check them'
      : `it wants to know who asks; put a user and a password (or token) into ${inUrl}`;
  }
  if (httpStatus !== 403) return undefined;
  return hasCredentials
    ? 'the user in the URL may not read it; use one who may'
    : `not everybody may read it; put a user who may, and a password (or token), into ${inUrl}`;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new QuorateError('invalid-argument', "the URL's user or password is not percent-encoded");
  }
}

async function scratchRefs(
  git: GitRunner,
  scratch: string,
  signal: AbortSignal,
): Promise<readonly RefCommand[]> {
  const { exitCode, stdout } = await git.run({
    args: ['for-each-ref', '--format=%(objectname) %(refname)'],
    cwd: scratch,
    signal,
    maxStdoutBytes: 512 * 1024 * 1024,
  });
  if (exitCode !== 0) throw new QuorateError('internal', 'the refs of the source cannot be listed');
  return stdout
    .toString('utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line): RefCommand => {
      const newOid: Oid = line.slice(0, line.indexOf(' '));
      return { ref: line.slice(newOid.length + 1), oldOid: '0'.repeat(newOid.length), newOid };
    });
}

async function pushScratch(
  { git, backend }: ImportDependencies,
  { repository, actor, signal, progress }: ImportRequest,
  {
    scratch,
    pushId,
    commands,
  }: { scratch: string; pushId: string; commands: readonly RefCommand[] },
): Promise<void> {
  const packer = await git.stream({
    args: ['pack-objects', '--all', '--stdout', '--all-progress', '--delta-base-offset'],
    cwd: scratch,
    signal,
    timeoutMs: fetchTimeoutMs,
    onStderr: progressSteps(progress),
  });
  try {
    const result = await backend.push(repository, {
      pushId,
      actor,
      commands,
      refused: new Map(),
      atomic: true,
      pushOptions: [],
      pack: packer.stdout,
      shallow: [],
      progress: () => undefined,
      quiet: true,
      signal,
    });
    const refusal = result.refs.find((outcome) => outcome.status === 'refused');
    if (result.unpack === 'ok' && refusal === undefined) return;
    const reason = refusal?.status === 'refused' ? `${refusal.ref}: ${refusal.reason}` : '';
    throw new QuorateError(
      'failed-precondition',
      `the source was fetched but not accepted: ${result.unpack === 'ok' ? reason : result.unpack}`,
    );
  } finally {
    packer.kill();
  }
}

/** What git says after every failure to reach a source, whatever it was. */
const afterwords =
  /^(fatal: Could not read from remote repository\.|Please make sure you have the correct access rights|and the repository exists\.)$/;

/** The last line that says something of this failure. For people only. */
function whyOf(stderr: string): string {
  const lines = stderr.split('\n').map((line) => line.trim());
  const telling = lines.filter((line) => line !== '' && !afterwords.test(line));
  return telling.at(-1) ?? 'git failed without a word';
}
