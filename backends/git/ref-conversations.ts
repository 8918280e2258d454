import type { RefCommand } from '../contract/objects.js';
import {
  ConversationPool,
  type ConversationPoolOptions,
  type Dialogue,
} from './conversation-pool.js';

/** Repositories at once with names that are not of branches or tags; they are rare. */
const maxOpenOfOthers = 8;

/**
 * Persistent `git update-ref --stdin`. Branches and tags are given to a git with a HEAD of its own, which names no branch:
 * git locks HEAD as well for the branch that it names, to note the change in a log that is not kept here, which is a file
 * made and removed and a third of all its system calls. Some other names would be of that HEAD alone
 * (`refs/worktree/`): they go to a git with the repository's own HEAD.
 */
export class RefConversations {
  readonly #branches: ConversationPool;
  readonly #others: ConversationPool;

  constructor(options: Omit<ConversationPoolOptions, 'args' | 'ownHead'>) {
    const args = ['update-ref', '--stdin', '-z'];
    this.#branches = new ConversationPool({ ...options, args, ownHead: true });
    this.#others = new ConversationPool({ maxOpen: maxOpenOfOthers, ...options, args });
  }

  /** See `ConversationPool.exchange`. */
  exchange<T>(
    gitDir: string,
    updates: readonly Pick<RefCommand, 'ref'>[],
    {
      talk,
      env,
    }: {
      readonly talk: (dialogue: Dialogue) => Promise<T>;
      readonly env?: Readonly<Record<string, string>>;
    },
  ): Promise<T> {
    const usual = updates.every(({ ref }) => /^refs\/(?:heads|tags)\//.test(ref));
    return (usual ? this.#branches : this.#others).exchange(gitDir, talk, env);
  }

  /** Ends the repository's processes, after the exchanges that run. */
  async release(gitDir: string): Promise<void> {
    await Promise.all([this.#branches.release(gitDir), this.#others.release(gitDir)]);
  }

  async close(): Promise<void> {
    await Promise.all([this.#branches.close(), this.#others.close()]);
  }
}
