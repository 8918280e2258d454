import { QuorateError } from '../../backends/contract/errors.js';
import type { GitServiceName } from './git-request.js';

/** Runs what asks the coordinator before anything of a request was done, and says what its silence means for it. */
export async function askingCoordinator<T>(
  service: GitServiceName,
  ask: () => Promise<T>,
): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof QuorateError && error.code === 'unavailable')) throw error;
    // The error's own words name addresses, which are for the log.
    const message =
      service === 'git-receive-pack'
        ? 'not accepted: the coordinator cannot be reached; nothing changed, it is safe to push again'
        : 'the coordinator cannot be reached, and nothing that may be old can be served for it; try again';
    throw new QuorateError('unavailable', message, { cause: error, details: error.details });
  }
}
