import type { Logger } from '../backends/contract/environment.js';
import type { CommittedPush } from '../backends/contract/pipeline.js';
import {
  type HookCall,
  type HookDependencies,
  hooksOf,
  runHooks,
  type SetHook,
} from './custom/run-hooks.js';
import type { Webhooks } from './webhooks/webhooks.js';

export interface PostReceiveDependencies extends HookDependencies {
  readonly repositoryName: (id: string) => Promise<string | undefined>;
  readonly webhooks: Pick<Webhooks, 'committed'>;
}

/** Of a hook's output, for the log: its end. */
const loggedBytes = 4 * 1024;

/**
 * After the commit point: says so in the log, queues webhook deliveries, then runs administrators' hooks. Throws when it has to be done again:
 * how a hook ends does not matter, that it could run does.
 */
export async function postReceive(
  dependencies: PostReceiveDependencies,
  push: CommittedPush,
): Promise<void> {
  const { repositoryId, entry, nobodyToTell = false } = push;
  // A change of HEAD is not a push. Asked for in one turn with the webhooks: one request to the coordinator.
  const hooks =
    entry.head === undefined && !nobodyToTell
      ? hooksOf(dependencies, repositoryId, 'post-receive')
      : noHooks;
  hooks.catch(() => undefined);
  dependencies.logger.info(
    {
      component: 'post-receive',
      repo: repositoryId,
      generation: entry.generation,
      push_id: entry.pushId,
      actor: entry.actor,
      refs: entry.updates.length,
    },
    'push committed',
  );
  if (nobodyToTell) return;
  // Before the hooks, which take their time: to queue what was queued before changes nothing.
  await dependencies.webhooks.committed(push);
  await runPostReceiveHooks(dependencies, push, await hooks);
}

const noHooks: Promise<readonly SetHook[]> = Promise.resolve([]);

async function runPostReceiveHooks(
  dependencies: PostReceiveDependencies,
  push: CommittedPush,
  hooks: readonly SetHook[],
): Promise<void> {
  const { repositoryId, entry } = push;
  if (hooks.length === 0) return;
  const logger = dependencies.logger.child({ repo: repositoryId, push_id: entry.pushId });
  if (entry.updates.length === 0) {
    warnWithoutUpdates(logger);
    return;
  }
  const repositoryName = await dependencies.repositoryName(repositoryId);
  if (repositoryName === undefined) return;
  let output = Buffer.alloc(0);
  const call: HookCall = {
    stage: 'post-receive',
    repositoryId,
    repositoryName,
    pushId: entry.pushId,
    user: entry.actor,
    pushOptions: entry.pushOptions ?? [],
    args: [],
    updates: entry.updates,
    runHook: push.runHook,
    output: (bytes) => {
      push.progress(bytes);
      output = Buffer.from(Buffer.concat([output, bytes]).subarray(-loggedBytes));
    },
    signal: push.signal,
  };
  await runHooks(dependencies, call, hooks);
  if (output.length > 0) {
    logger.info(
      { component: 'hook', output: output.toString('utf8') },
      'a post-receive hook wrote',
    );
  }
}

/** The server died between the commit of a push of thousands of refs and its hook. */
function warnWithoutUpdates(logger: Logger): void {
  logger.warn({ component: 'hook' }, 'no post-receive hook: the updates of the push are lost');
}
