import type { Backend, ReadOptions, ReadSession } from '../../backends/contract/backend.js';
import type { Clock, Logger, Meter, Random } from '../../backends/contract/environment.js';
import type { ObjectFormat } from '../../backends/contract/objects.js';
import type { Repository } from '../../backends/contract/repository.js';
import type { AuditLog } from '../observe/audit.js';
import type { Admission } from './admission.js';
import type { ClientInput } from './client-input.js';
import type { ClientOutput } from './client-output.js';
import type { FrameBuffers } from './frame-buffers.js';
import type { GitRequest } from './git-request.js';
import type { GitServiceLimits } from './limits.js';
import type { KnownAnswers } from './known-answers.js';
import type { RefEncodings } from './ref-encoding.js';
import type { RefViews } from './ref-view.js';
import type { SharedRuns } from './shared-runs.js';

/** What every request of the service shares. */
export interface ServiceParts {
  readonly backend: Backend;
  readonly audit: AuditLog;
  readonly meter: Meter;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: GitServiceLimits;
  readonly admissions: Readonly<Record<GitRequest['transport'], Admission>>;
  readonly views: RefViews;
  readonly encodings: RefEncodings;
  readonly answers: KnownAnswers;
  readonly frames: FrameBuffers;
  readonly sharedRuns: SharedRuns;
}

/** One request, before anything is read or written. */
export interface Asked {
  readonly parts: ServiceParts;
  readonly request: GitRequest;
}

/** One exchange, as the operations (`upload-pack.ts`, `receive-pack.ts`, ...) see it. */
export interface GitContext extends Asked {
  readonly input: ClientInput;
  readonly output: ClientOutput;
}

/** Opens the read that a request is answered from; `refsOnly`: nothing but its snapshot is asked for, so far. */
export async function openSession(
  { parts, request }: Asked,
  repository: Repository,
  options: ReadOptions = {},
): Promise<ReadSession> {
  const { signal } = request;
  const { atLeast = request.atLeast } = options;
  const session = await parts.backend.read(repository, signal, { ...options, atLeast });
  if (parts.backend.capabilities.generations) {
    request.onGeneration?.(session.snapshot.generation);
  }
  return session;
}

/** The id of no object in a repository's format. */
export function zeroOid(format: ObjectFormat): string {
  return '0'.repeat(oidLength(format));
}

/** Hexadecimal digits of an object id. */
export function oidLength(format: ObjectFormat): 40 | 64 {
  return format === 'sha1' ? 40 : 64;
}

/** The format of repositories that a push creates. */
export const newObjectFormat: ObjectFormat = 'sha1';

/** A repository's facts that a request is judged by. */
export type ServedRepository = Pick<Repository, 'objectFormat' | 'settings'>;
