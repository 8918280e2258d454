import type { Writable } from 'node:stream';
import type { Backend } from '../../backends/contract/backend.js';
import type { Clock, Logger, Meter, Random } from '../../backends/contract/environment.js';
import { type ErrorCode, QuorateError } from '../../backends/contract/errors.js';
import { withinPushMark } from '../../backends/contract/within-push.js';
import type { Repository } from '../../backends/contract/repository.js';
import type { Authorizer } from '../auth/authorizer.js';
import { principalName } from '../auth/principal.js';
import type { AuditLog } from '../observe/audit.js';
import { RefusalLog } from '../observe/refusal-log.js';
import { Access } from './access.js';
import { Admission, type AdmissionLimits, type Place } from './admission.js';
import { ClientInput, type ClientStream } from './client-input.js';
import { ClientOutput } from './client-output.js';
import { FrameBuffers } from './frame-buffers.js';
import type { Asked, GitContext, ServiceParts } from './git-context.js';
import type {
  Foresight,
  GitExchange,
  GitOutcome,
  GitRequest,
  GitService,
  KnownAnswer,
} from './git-request.js';
import type { GitServiceLimits } from './limits.js';
import { defaultSharedRunLimits, SharedRuns } from './shared-runs.js';
import { asServiceError, cancelledBy, publicMessage, refusalIn } from './service-error.js';
import { receivePack } from './receive-pack.js';
import { KnownAnswers } from './known-answers.js';
import { knownLsRefs } from './ls-refs.js';
import { RefEncodings } from './ref-encoding.js';
import { RefViews } from './ref-view.js';
import { recordRefusal } from './refusal-record.js';
import { parseRepositoryName } from './repository-name.js';
import { uploadArchive } from './upload-archive.js';
import { uploadPack } from './upload-pack.js';

export interface GitServiceOptions {
  readonly backend: Backend;
  readonly authorizer: Authorizer;
  readonly audit: AuditLog;
  readonly meter: Meter;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: GitServiceLimits;
  /** Of HTTP and of SSH, each. */
  readonly admission: AdmissionLimits;
  /** A directory of this process's own, for what several clients read at their own pace. Need not exist. */
  readonly spoolDirectory: string;
}

interface Serve {
  readonly repositoryId: string | undefined;
  readonly run: (context: GitContext) => Promise<GitOutcome>;
  readonly known: (asked: Asked, bytes: Buffer) => Promise<KnownAnswer | undefined>;
}

const nothingKnown = (): Promise<undefined> => Promise.resolve(undefined);

/** The one flow of all listeners: name -> look up -> authorise -> serve. */
export function createGitService({
  authorizer,
  admission,
  ...options
}: GitServiceOptions): GitService {
  const parts: ServiceParts = {
    ...options,
    admissions: {
      http: new Admission('http', admission, options),
      ssh: new Admission('ssh', admission, options),
    },
    views: new RefViews(),
    encodings: new RefEncodings(options.limits.refCacheBytes),
    answers: new KnownAnswers(options.limits.answerCacheBytes),
    frames: new FrameBuffers(),
    sharedRuns: new SharedRuns(defaultSharedRunLimits, options),
  };
  const access = new Access(options.backend.repositories, authorizer);
  const refusals = new RefusalLog(options);
  return {
    async open(request: GitRequest): Promise<GitExchange> {
      let serve: Serve;
      let name: string;
      const admission = parts.admissions[request.transport];
      try {
        admission.checkRateOfClient(request);
        name = parseRepositoryName(request.path);
        serve = await resolve({ access, parts }, request, name);
        admission.checkRateOfRepository(name);
      } catch (error) {
        recordRefusal(refusals, request, error);
        throw error;
      }
      return {
        repositoryId: serve.repositoryId,
        known: (bytes) => serve.known({ parts, request }, bytes),
        run: (input, output) => run({ parts, request, name, refusals }, serve, { input, output }),
      };
    },
    foresee({ path, ...asked }): Foresight | undefined {
      let name: string;
      try {
        name = parseRepositoryName(path);
      } catch {
        return undefined;
      }
      const beganMs = parts.clock.monotonicMs();
      return { name, beganMs, repository: access.foresee(asked, name) };
    },
  };
}

/** A request that brings its commands along is authorised once, unless they are that late. */
const freshMs = 1_000;

async function resolve(
  { access, parts }: { readonly access: Access; readonly parts: ServiceParts },
  request: GitRequest,
  name: string,
): Promise<Serve> {
  const { principal, service } = request;
  const nowMs = parts.clock.monotonicMs();
  const foresight = stillGood(request.foresight, name, nowMs);
  switch (service) {
    case 'git-upload-pack': {
      const repository = await access.forReading(request, name, foresight?.repository);
      tellRecalled(parts, request, repository);
      return {
        repositoryId: repository.id,
        run: (context) => uploadPack(context, repository),
        known: (asked, bytes) => knownLsRefs(asked, repository, bytes),
      };
    }
    case 'git-receive-pack': {
      const openedMs = foresight?.beganMs ?? nowMs;
      const repository = await access.forPushing(principal, name, foresight?.repository);
      refuseOwnHook(request, repository);
      const isFresh = (): boolean =>
        request.mode === 'stateless' && parts.clock.monotonicMs() - openedMs < freshMs;
      return {
        repositoryId: repository?.id,
        run: (context) =>
          receivePack(context, {
            repository,
            confirm: (commands) =>
              access.confirmPush(
                { principal, name, opened: repository, isFresh: isFresh() },
                commands,
              ),
          }),
        known: nothingKnown,
      };
    }
    case 'git-upload-archive': {
      if (request.mode !== 'session') {
        throw new QuorateError('unimplemented', 'git archive --remote works over SSH only');
      }
      const repository = await access.forReading(request, name, foresight?.repository);
      tellRecalled(parts, request, repository);
      return {
        repositoryId: repository.id,
        run: (context) => uploadArchive(context, repository),
        known: nothingKnown,
      };
    }
  }
}

/** To find out who asks may have taken long: then it is looked up again. */
function stillGood(
  foresight: Foresight | undefined,
  name: string,
  nowMs: number,
): Foresight | undefined {
  if (foresight === undefined || foresight.name !== name) return undefined;
  return nowMs - foresight.beganMs < freshMs ? foresight : undefined;
}

/** A hook that pushes to the repository whose push it judges would wait for itself. */
function refuseOwnHook({ withinPush }: GitRequest, repository: Repository | undefined): void {
  if (withinPush === undefined || repository === undefined) return;
  if (withinPush !== withinPushMark(repository.id)) return;
  throw new QuorateError(
    'failed-precondition',
    `a hook may not push to its own repository: ${repository.name} waits for this hook to judge a push`,
  );
}

/** What is served without the coordinator may be old, and so may be the right to see it: everybody is told. */
function tellRecalled(
  { meter, audit }: ServiceParts,
  request: GitRequest,
  { name, recalled }: Repository,
): void {
  if (recalled === undefined) return;
  const { transport, remoteAddress, requestId, principal } = request;
  request.onRecalled?.(recalled.lostForMs);
  meter.count('recalled_reads', { transport });
  audit.record({
    event: 'access',
    outcome: 'ok',
    actor: principalName(principal),
    remoteAddress,
    transport,
    requestId,
    repository: name,
    details: { how: 'recalled', coordinator_lost_ms: Math.round(recalled.lostForMs) },
  });
}

interface Served {
  readonly parts: ServiceParts;
  readonly request: GitRequest;
  /** Of the repository. */
  readonly name: string;
  readonly refusals: RefusalLog;
}

/** Serves, and tells the client of trouble in the form that fits the point reached. */
async function run(
  { parts, request, name, refusals }: Served,
  serve: Serve,
  streams: { readonly input: ClientStream; readonly output: Writable },
): Promise<GitOutcome> {
  const input = new ClientInput(streams.input, request.signal);
  const output = new ClientOutput(streams.output, request.signal);
  let place: Place | undefined;
  try {
    const entered = parts.admissions[request.transport].request(request, name);
    place = entered instanceof Promise ? await entered : entered;
    return await serve.run({ parts, request, input, output });
  } catch (error) {
    recordRefusal(refusals, request, error);
    const refusal = refusalIn(error);
    if (refusal !== undefined) {
      output.tell(refusal);
      return { status: 'refused', exitCode: 128, fields: { reason: refusal } };
    }
    // The listener's own error about its stream (a limit, a bad encoding) goes back as it is.
    if (!output.started && error === input.failure) throw error;
    const known = asServiceError(error);
    // That a time limit or a drain came in between makes nothing known.
    const isStopped = request.signal.aborted && known.code !== 'outcome-unknown';
    const failure = isStopped ? cancelledBy(request.signal) : known;
    if (!output.started && !isToldByPush(request, output, failure)) throw failure;
    // An answer that ends in good order without what it lacks is one that git waits for: it has to be broken off.
    if (request.mode === 'stateless' && untold.has(failure.code)) throw failure;
    return await afterStart(parts, request, { output, error: failure });
  } finally {
    place?.leave();
    input.abandon();
  }
}

/** What a person has to read to know what to do. What is HTTP's to say (a rate, a missing right) is not here. */
const toldByPush: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'already-exists',
  'failed-precondition',
  'unavailable',
  'deadline-exceeded',
  'storage-failure',
  'data-corrupt',
]);

/** git shows nothing of a POST that failed but its status. So what stops a push after its commands is told in its answer. */
function isToldByPush(
  { service, signal }: GitRequest,
  { voice }: ClientOutput,
  { code }: QuorateError,
): boolean {
  return (
    service === 'git-receive-pack' &&
    voice === 'side-band' &&
    !signal.aborted &&
    toldByPush.has(code)
  );
}

/** Nobody is there, or there is no verdict. */
const untold: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['cancelled', 'outcome-unknown']);

async function afterStart(
  { logger }: ServiceParts,
  { requestId }: GitRequest,
  { output, error }: { readonly output: ClientOutput; readonly error: QuorateError },
): Promise<GitOutcome> {
  const fields = { error: error.code, reason: error.message };
  if (error.code === 'internal') {
    logger.error(
      { component: 'core', request_id: requestId, err: error.cause ?? error },
      'a request failed',
    );
  }
  if (!untold.has(error.code)) output.tell(publicMessage(error, requestId));
  const refused = [
    'invalid-argument',
    'already-exists',
    'failed-precondition',
    'resource-exhausted',
    'unimplemented',
    'permission-denied',
  ];
  return { status: refused.includes(error.code) ? 'refused' : 'error', exitCode: 128, fields };
}
