import type { Clock, Logger } from '../contract/environment.js';

/** Nodes that restart, or are just being found, are no reason to say anything. */
const patienceMs = 10_000;

/** Tells the log when there are fewer storage nodes than a repository is to have copies, and when there are enough again. */
export class NodeCount {
  readonly #wanted: number;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #fewSinceMs: number | undefined;
  #told = false;

  constructor({
    replicationFactor,
    clock,
    logger,
  }: {
    readonly replicationFactor: number;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    this.#wanted = replicationFactor;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** `nodes`: those that can take copies now. */
  show(nodes: number): void {
    const about = { component: 'controller', nodes, replication_factor: this.#wanted };
    if (nodes >= this.#wanted) {
      this.#fewSinceMs = undefined;
      if (!this.#told) return;
      this.#told = false;
      this.#logger.info(about, 'there are as many storage nodes as replication.factor wants again');
      return;
    }
    const nowMs = this.#clock.monotonicMs();
    this.#fewSinceMs ??= nowMs;
    if (this.#told || nowMs - this.#fewSinceMs < patienceMs) return;
    this.#told = true;
    this.#logger.warn(
      about,
      'fewer storage nodes can take copies than replication.factor wants: repositories have fewer copies, and survive fewer losses, until there are more; start nodes, or lower it',
    );
  }
}
