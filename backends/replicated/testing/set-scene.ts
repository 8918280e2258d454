import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { keys, prefixEnd } from '../../contract/keys.js';
import type { RefCommand } from '../../contract/objects.js';
import type { Repository } from '../../contract/repository.js';
import { until } from '../../contract/testing/until.js';
import { silentLogger } from '../../coordination/test-environment.js';
import { packOf, pushRequest, runGit, zeroOid } from '../../local/testing/local-fixture.js';
import type { ReplicatedBackend } from '../replicated-backend.js';
import { settleQuarantines } from '../settle-quarantines.js';
import { openReplicaSet, type ReplicaSet, type TestStore } from './replica-set.js';

interface Pushed {
  readonly generation?: number;
  readonly unpack: string;
  readonly reasons: string[];
}

/** A replica set with a front-end and a repository, and what tests do with that. */
export class SetScene {
  readonly set: ReplicaSet;
  readonly backend: ReplicatedBackend;
  /** The one that is pushed to and read; tests may replace it. */
  repository: Repository;

  constructor(set: ReplicaSet, backend: ReplicatedBackend, repository: Repository) {
    this.set = set;
    this.backend = backend;
    this.repository = repository;
  }

  createRepository(
    through = this.backend,
    name = 'team/app',
    settings: Repository['settings'] = {},
  ): Promise<Repository> {
    return createIn(through, name, settings);
  }

  async push(
    commands: readonly RefCommand[],
    more: {
      through?: ReplicatedBackend;
      have?: string[];
      options?: string[];
      pack?: Buffer;
      slowly?: boolean;
    } = {},
  ): Promise<Pushed> {
    const { through = this.backend, have = [], options = [], slowly = false } = more;
    const wants = commands.map(({ newOid }) => newOid).filter((oid) => oid !== zeroOid);
    const pack =
      more.pack ?? (wants.length === 0 ? undefined : await packOf(this.set.source, wants, have));
    const request = { ...pushRequest(commands, { pack, slowly }), pushOptions: options };
    const { refs, ...result } = await through.push(this.repository, request);
    const reasons = refs.flatMap((ref) => (ref.status === 'refused' ? [ref.reason] : []));
    return { ...result, reasons };
  }

  /** Keys of log entries, outbox records and locks. */
  async leftInLog(): Promise<readonly string[]> {
    const found: string[] = [];
    for (const prefix of [keys.allLogs, keys.outboxes, keys.allLocks]) {
      const { entries } = await this.set.coordinator.range(prefix, { rangeEnd: prefixEnd(prefix) });
      found.push(...entries.map(({ key }) => key));
    }
    return found;
  }

  /** Every store holds the head, whole, and nothing else. */
  async assertConverged(stores: readonly TestStore[] = this.set.stores): Promise<void> {
    const { coordinator } = this.set;
    const { id } = this.repository;
    const head = await coordinator.get(keys.head(id));
    const { generation, digest } = JSON.parse(new TextDecoder().decode(head?.value));
    for (const { replica, gitDir, root } of stores) {
      await replica.apply(id, generation);
      assert.deepEqual(await replica.state(id), { generation, digest });
      await runGit(gitDir(id), ['fsck', '--full', '--strict']);
      // A judgement that nobody waited for may still be running. What came late of a push without locks lies until it is
      // idle: its front-end lives, and might go on with it.
      await until('no quarantine is left', async () => {
        const { quarantines } = replica;
        const logger = silentLogger;
        await settleQuarantines({ coordinator, replica, quarantines, idle: true, logger });
        return readdirSync(join(root, 'quarantine')).length === 0;
      });
    }
  }

  async refsSeen(through = this.backend): Promise<Record<string, string>> {
    const read = await through.read(this.repository, new AbortController().signal);
    read.release();
    return Object.fromEntries(read.snapshot.refs.map(({ name, oid }) => [name, oid]));
  }

  async close(): Promise<void> {
    await this.set.close();
  }
}

export async function openSetScene(): Promise<SetScene> {
  const set = await openReplicaSet();
  const { backend } = await set.frontEnd();
  return new SetScene(set, backend, await createIn(backend, 'team/app', {}));
}

function createIn(
  through: ReplicatedBackend,
  name: string,
  settings: Repository['settings'],
): Promise<Repository> {
  return through.repositories.create({
    name,
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings,
    access: { public: false, grants: {} },
  });
}
