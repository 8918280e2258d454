import type { ErrorCode } from '../../backends/contract/errors.js';
import { principalName } from '../auth/principal.js';
import type { RefusalLog } from '../observe/refusal-log.js';
import type { GitRequest } from './git-request.js';
import { parseRepositoryName } from './repository-name.js';
import { asServiceError, refusalIn } from './service-error.js';

/** What of the operating errors is a no, and of which kind. Malformed requests are none, nor is trouble of ours. */
const kindOfCode: Partial<Record<ErrorCode, 'access' | 'limit'>> = {
  unauthenticated: 'access',
  'permission-denied': 'access',
  'not-found': 'access',
  'failed-precondition': 'access',
  unimplemented: 'access',
  'resource-exhausted': 'limit',
};

/** Puts a refused request into the audit log, if `error` is a refusal. Refused refs of a push are recorded with it. */
export function recordRefusal(refusals: RefusalLog, request: GitRequest, error: unknown): void {
  const reason = refusalIn(error);
  const { code, message } = asServiceError(error);
  const event = reason === undefined ? kindOfCode[code] : 'access';
  // Whoever comes without credentials is asked for them: that is how every sign-in starts.
  const isQuestion = code === 'unauthenticated' && request.principal.kind === 'anonymous';
  if (event === undefined || isQuestion) return;
  refusals.record({
    event,
    actor: principalName(request.principal),
    remoteAddress: request.remoteAddress,
    transport: request.transport,
    requestId: request.requestId,
    ...repositoryIn(request.path),
    details: {
      service: request.service,
      code: reason === undefined ? code : 'refused',
      reason: reason ?? message,
    },
  });
}

function repositoryIn(path: string): { readonly repository?: string } {
  try {
    return { repository: parseRepositoryName(path) };
  } catch {
    return {};
  }
}
