import type { PushPipeline } from '../backends/contract/pipeline.js';
import type { Logger } from '../backends/contract/environment.js';
import { postReceive } from './post-receive.js';
import type { RuleDependencies } from './rules/judge-rules.js';
import { judgeUpdates } from './update.js';

export interface PipelineDependencies extends RuleDependencies {
  readonly logger: Logger;
}

/** The stages of a push, in git's order. Each stage has a file of its own name. */
export function createPushPipeline(dependencies: PipelineDependencies): PushPipeline {
  return {
    // No rule concerns a push as a whole yet.
    preReceive: () => Promise.resolve(undefined),
    update: (context) => judgeUpdates(dependencies, context),
    postReceive: (push) => postReceive(dependencies.logger, push),
  };
}
