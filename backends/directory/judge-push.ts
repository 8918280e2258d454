import type { PushRequest } from '../contract/backend.js';
import { QuorateError } from '../contract/errors.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { Repository } from '../contract/repository.js';

/**
 * What is refused before git takes the push: what the front-end refused, and what the rules say that need no objects.
 * git itself judges by the repository's configuration and hooks, for all who push there.
 */
export async function judgePush(
  pipeline: PushPipeline,
  repository: Repository,
  request: PushRequest,
): Promise<ReadonlyMap<string, string>> {
  const refused = new Map(request.refused);
  const commands = request.commands.filter(({ ref }) => !refused.has(ref));
  const reasons = await pipeline.judges(repository).update({
    // git reads the settings from the repository itself, when it holds the refs.
    repository: { ...repository, settings: {} },
    pushId: request.pushId,
    actor: request.actor,
    pusher: request.pusher ?? { name: request.actor, groups: [] },
    pushOptions: request.pushOptions,
    commands,
    nonFastForwards: notHere,
    inspect: () => {
      throw cannotInspect();
    },
    // Hooks are git's own here, in the repository.
    runHook: notHere,
    currentBranch: undefined,
    progress: request.progress,
    signal: request.signal,
    // git has the pack only later.
    packBytes: 0,
  });
  for (const [ref, reason] of reasons) refused.set(ref, reason);
  return refused;
}

function notHere(): Promise<never> {
  return Promise.reject(cannotInspect());
}

/** Such a rule was not taken; it may have been set when the server ran on another backend. */
function cannotInspect(): QuorateError {
  return new QuorateError('unimplemented', 'the directory backend cannot judge this');
}
