import type { Replica } from '../../contract/replica.js';
import { describeError } from './remote-replica.js';

/** What stores answered when they were asked to take part in pushes, as it came to the front-ends. */
export class Prepares {
  /** By repository, then by store: why it is not prepared; undefined: it is. */
  readonly #answers = new Map<string, Map<string, string | undefined>>();

  /** From now on only what comes later is known. */
  forget(repositoryId: string): void {
    this.#answers.delete(repositoryId);
  }

  /** It is prepared, by its last word. */
  has(repositoryId: string, storeId: string): boolean {
    const answers = this.#answers.get(repositoryId);
    return answers?.has(storeId) === true && answers.get(storeId) === undefined;
  }

  /** The last word of a store. */
  wordOf(repositoryId: string, storeId: string): string {
    const answers = this.#answers.get(repositoryId);
    if (answers?.has(storeId) !== true) return 'was not asked, or did not answer';
    return answers.get(storeId) ?? 'is prepared';
  }

  /** The same replica, whose answers are known here. */
  noting(replica: Replica): Replica {
    const { storeId } = replica;
    const note = async <T>(repositoryId: string, asked: Promise<T>): Promise<T> => {
      try {
        return await asked;
      } catch (error) {
        this.#note(repositoryId, storeId, describeError(error));
        throw error;
      }
    };
    return {
      ...replica,
      upload: (key, ...rest) => note(key.repositoryId, replica.upload(key, ...rest)),
      prepare: async (request) => {
        const { repositoryId } = request.key;
        const prepared = await note(repositoryId, replica.prepare(request));
        this.#note(repositoryId, storeId, undefined);
        return prepared;
      },
    };
  }

  #note(repositoryId: string, storeId: string, why: string | undefined): void {
    const answers = this.#answers.get(repositoryId) ?? new Map<string, string | undefined>();
    answers.set(storeId, why);
    this.#answers.set(repositoryId, answers);
  }
}
