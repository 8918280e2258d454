import { QuorateError } from '../contract/errors.js';
import type { GitCommand } from './git-runner.js';
import { objectEnvironment, type ObjectSources } from './object-environment.js';

/** Per git command. The refs are locked meanwhile. */
const timeoutMs = 5 * 60_000;

/** Objects of a push, and its cancellation. */
export interface HistorySource extends ObjectSources {
  readonly signal: AbortSignal;
}

/** A git over the objects of a push. */
export function gitOver(source: HistorySource, args: readonly string[]): GitCommand {
  return {
    args,
    env: objectEnvironment(source),
    timeoutMs,
    signal: source.signal,
  };
}

/** Of a git that was ended. */
export function tookTooLong(): QuorateError {
  return new QuorateError('deadline-exceeded', 'looking through the new history took too long');
}
