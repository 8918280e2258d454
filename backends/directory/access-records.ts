import { z } from 'zod';
import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { storedObject } from '../contract/stored-object.js';

/** What the disk does not say of a repository, kept in the coordinator by its path. */
const recordSchema = storedObject({
  /** Undefined: as `git-daemon-export-ok` says. */
  public: z.boolean().optional(),
  grants: z.record(z.string(), z.enum(['read', 'write', 'admin'])),
  createdAtMs: z.number().optional(),
  epoch: z.int(),
});

export type AccessRecord = z.infer<typeof recordSchema>;

/** A record with the revision that it was read at; 0 for none. */
export interface StoredAccess {
  readonly record: AccessRecord;
  readonly modRevision: number;
}

const none: AccessRecord = { grants: {}, epoch: 1 };

export class AccessRecords {
  readonly #coordinator: Coordinator;

  constructor(coordinator: Coordinator) {
    this.#coordinator = coordinator;
  }

  /** The record; an empty one for a repository that somebody else made. */
  async get(path: string): Promise<StoredAccess> {
    const stored = await this.#coordinator.get(keys.repo(path));
    if (stored === undefined) return { record: none, modRevision: 0 };
    let json: unknown;
    try {
      json = JSON.parse(new TextDecoder().decode(stored.value));
    } catch {
      json = undefined;
    }
    const parsed = recordSchema.safeParse(json);
    if (!parsed.success) {
      throw new QuorateError('data-corrupt', `the coordinator's record ${stored.key} is damaged`);
    }
    return { record: parsed.data, modRevision: stored.modRevision };
  }

  async put(path: string, record: AccessRecord): Promise<void> {
    await this.#coordinator.transaction({
      compares: [],
      success: [{ type: 'put', key: keys.repo(path), value: encode(record) }],
      failure: [],
    });
  }

  /** False when it changed since it was read. */
  async swap(path: string, read: StoredAccess, record: AccessRecord): Promise<boolean> {
    const { succeeded } = await this.#coordinator.transaction({
      compares: [
        { key: keys.repo(path), target: 'modRevision', op: '=', operand: read.modRevision },
      ],
      success: [{ type: 'put', key: keys.repo(path), value: encode(record) }],
      failure: [],
    });
    return succeeded;
  }

  async delete(path: string): Promise<void> {
    await this.#coordinator.transaction({
      compares: [],
      success: [{ type: 'delete', key: keys.repo(path) }],
      failure: [],
    });
  }
}

function encode(record: AccessRecord): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(record));
}
