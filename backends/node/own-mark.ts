import type { Logger } from '../contract/environment.js';
import type { MarkRecord } from '../replicated/node-marks.js';

/**
 * What people decided about this very node: told to its own log when it changes, and to its health. Who starts a node
 * that was removed looks there for why it gets nothing.
 */
export class OwnMark {
  readonly #nodeId: string;
  readonly #logger: Logger;
  #mark: MarkRecord['mark'] | undefined;
  #problem: string | undefined;

  constructor({ nodeId, logger }: { readonly nodeId: string; readonly logger: Logger }) {
    this.#nodeId = nodeId;
    this.#logger = logger;
  }

  /** Why nothing comes here although it runs; undefined when all is well. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** As often as one likes: only changes are told. */
  show(record: MarkRecord | undefined): void {
    if (record?.mark === this.#mark) return;
    this.#mark = record?.mark;
    this.#problem = undefined;
    const about = { component: 'membership', node: this.#nodeId };
    switch (record?.mark) {
      case undefined:
        this.#logger.info(about, 'this node takes repositories again');
        return;
      case 'draining':
        this.#logger.info(
          about,
          'this node is drained: its copies move away, and it gets no repositories',
        );
        return;
      case 'removed':
        this.#problem = removedWords(this.#nodeId, record.atMs);
        this.#logger.warn(about, this.#problem);
    }
  }
}

function removedWords(nodeId: string, atMs: number | undefined): string {
  const time = atMs === undefined ? '' : new Date(atMs).toISOString().slice(0, 19);
  const when = time === '' ? '' : ` on ${time.replace('T', ' ')} UTC`;
  return `this node was removed${when}, and gets no repositories: stop it, or take it back with quorate node undrain ${nodeId}`;
}
