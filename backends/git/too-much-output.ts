import { QuorateError } from '../contract/errors.js';

/** Of a git that was ended for what it wrote: something of the repository, not of the machine. */
export function tooMuchOutput(maxStdoutBytes: number): QuorateError {
  return new QuorateError('resource-exhausted', 'git answered with more than expected', {
    details: { maxStdoutBytes },
  });
}

export function isTooMuchOutput(error: unknown): boolean {
  return error instanceof QuorateError && 'maxStdoutBytes' in error.details;
}
