import type { Coordinator, KeyValue } from '../../backends/contract/coordinator.js';
import { keys } from '../../backends/contract/keys.js';
import { decodeRecord, deployKeyRecord, encodeRecord, readAll } from './account-records.js';

/** Those that wait for the next reading of all keys. */
interface Round {
  readonly repositoryIds: Set<string>;
  readonly over: Promise<void>;
}

/**
 * Removes the deploy keys of repositories that are gone, or whose id is. A key is found by its fingerprint, so that all keys have to be
 * read for that: once for all repositories that are asked for while they are read for others. Programs delete
 * repositories by the thousand.
 */
export class GoneDeployKeys {
  readonly #coordinator: Coordinator;
  #next: Round | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(coordinator: Coordinator) {
    this.#coordinator = coordinator;
  }

  remove(repositoryId: string): Promise<void> {
    this.#next ??= this.#begin();
    this.#next.repositoryIds.add(repositoryId);
    return this.#next.over;
  }

  /** To a repository's next id (directory backend). Idempotent. */
  async rebind(from: string, to: string): Promise<void> {
    for (const entry of await readAll(this.#coordinator, keys.sshKeys)) {
      if (repositoryOf(entry) !== from) continue;
      const { key, modRevision } = entry;
      const value = encodeRecord({ ...decodeRecord(deployKeyRecord, entry), repositoryId: to });
      await this.#coordinator.transaction({
        binding: true,
        // Removed meanwhile, and perhaps added for another one: then it is another key.
        compares: [{ key, target: 'modRevision', op: '=', operand: modRevision }],
        success: [{ type: 'put', key, value }],
        failure: [],
      });
    }
  }

  #begin(): Round {
    const repositoryIds = new Set<string>();
    const over = this.#last.then(() => {
      this.#next = undefined;
      return this.#removeOf(repositoryIds);
    });
    this.#last = over.catch(() => undefined);
    return { repositoryIds, over };
  }

  async #removeOf(repositoryIds: ReadonlySet<string>): Promise<void> {
    for (const entry of await readAll(this.#coordinator, keys.sshKeys)) {
      const repositoryId = repositoryOf(entry);
      if (repositoryId === undefined || !repositoryIds.has(repositoryId)) continue;
      const { key, modRevision } = entry;
      await this.#coordinator.transaction({
        binding: true,
        // Removed, and added for another repository meanwhile: then it is another key.
        compares: [{ key, target: 'modRevision', op: '=', operand: modRevision }],
        success: [{ type: 'delete', key }],
        failure: [],
      });
    }
  }
}

const ofRepository = Buffer.from('"repositoryId"');

/** Undefined for a user's key, and for a record that cannot be read: others are not kept for it. */
function repositoryOf({ value }: KeyValue): string | undefined {
  const text = Buffer.from(value);
  if (!text.includes(ofRepository)) return undefined;
  try {
    return deployKeyRecord.parse(JSON.parse(text.toString('utf8'))).repositoryId;
  } catch {
    return undefined;
  }
}
