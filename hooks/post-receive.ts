import type { Logger } from '../backends/contract/environment.js';
import type { CommittedPush } from '../backends/contract/pipeline.js';

/** After the commit point: says so in the log. Fan-out to other voters and webhooks start from here. */
export function postReceive(logger: Logger, { repositoryId, entry }: CommittedPush): Promise<void> {
  logger.info(
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
  return Promise.resolve();
}
