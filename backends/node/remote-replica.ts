import type { MaintenanceProgress, MaintenanceReport } from '../contract/backend.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { HookEnd, HookRun } from '../contract/hook.js';
import type { Inspection, PushFact } from '../contract/inspection.js';
import type { ObjectFormat, RefCommand } from '../contract/objects.js';
import type {
  CopiesPage,
  HeldPush,
  PeerSource,
  Prepared,
  PrepareRequest,
  QuarantineKey,
  Replica,
  ReplicaExport,
  ReplicaFork,
  ReplicaRead,
  ReplicaState,
  Uploaded,
  UploadOptions,
  VerifyReport,
} from '../contract/replica.js';
import type { RepositoryStats } from '../contract/repository.js';
import { answerOf, settledError } from './client-call.js';
import { decodeMessage, programWanted, pushOf, results } from './messages.js';
import type { NodeClient } from './node-client.js';
import { receiveExport } from './remote-export.js';
import { openRemoteRead } from './remote-read.js';
import { uploadRemotely } from './remote-upload.js';
import type { SnapshotMemory } from './snapshot-memory.js';
import { encodeRef } from './snapshot-wire.js';

/**
 * A store on another machine, through its node's API. A node that cannot be reached, or stops answering, is
 * `unavailable`.
 */
export class RemoteReplica implements Replica {
  readonly #client: NodeClient;
  readonly #memory: SnapshotMemory;

  constructor(client: NodeClient, memory: SnapshotMemory) {
    this.#client = client;
    this.#memory = memory;
  }

  get storeId(): string {
    return this.#client.storeId;
  }

  async create(
    repositoryId: string,
    options: { readonly objectFormat: ObjectFormat; readonly head: string },
  ): Promise<void> {
    await this.#client.result(repositoryId, 'create', options);
  }

  upload(
    key: QuarantineKey,
    pack: AsyncIterable<Uint8Array>,
    options: UploadOptions,
  ): Promise<Uploaded> {
    return uploadRemotely(this.#client, key, pack, options);
  }

  async prepare({ key, signal, pack, ...request }: PrepareRequest): Promise<Prepared> {
    const args = {
      ...request,
      key: pushOf(key),
      commands: [...request.commands],
      shallow: [...request.shallow],
      lockRevisions: [...request.lockRevisions],
      ...(pack === undefined ? {} : { packed: true }),
    };
    const options = { signal, data: pack };
    const payload = await this.#client.result(key.repositoryId, 'prepare', args, options);
    const { refused, currentBranch, ...rest } = decodeMessage(results.prepared, payload);
    return { ...rest, refused: new Map(refused), currentBranch };
  }

  async nonFastForwards(
    key: QuarantineKey,
    commands: readonly RefCommand[],
    signal: AbortSignal,
  ): Promise<ReadonlySet<string>> {
    const args = { key: pushOf(key), commands: [...commands] };
    const options = { signal };
    const payload = await this.#client.result(key.repositoryId, 'nonFastForwards', args, options);
    return new Set(decodeMessage(results.refs, payload).refs);
  }

  async runHook(key: QuarantineKey, run: HookRun): Promise<HookEnd> {
    const { program, args, env, limits, stdin, output, signal } = run;
    // As for a hook here: who gave up is told so, not thrown at.
    if (signal.aborted) return { how: 'cancelled' };
    const call = await this.#client.call(
      key.repositoryId,
      'runHook',
      { key: pushOf(key), digest: program.digest, args: [...args], env: { ...env }, limits },
      { signal },
    );
    try {
      await call.data(stdin);
      await call.mark();
      const payload = await answerOf(call, async (type, bytes) => {
        if (type === 'text') output(bytes);
        if (type !== 'json') return;
        decodeMessage(programWanted, bytes);
        await call.data(await program.content());
        await call.mark();
      });
      return decodeMessage(results.hookEnd, payload);
    } catch (error) {
      if (signal.aborted) return { how: 'cancelled' };
      throw asQuorateError(error);
    } finally {
      call.abandon();
    }
  }

  async *inspect(key: QuarantineKey, inspection: Inspection): AsyncGenerator<PushFact> {
    const { signal, signers, ...rest } = inspection;
    const call = await this.#client.call(
      key.repositoryId,
      'inspect',
      {
        ...rest,
        key: pushOf(key),
        judged: [...rest.judged],
        ...(signers === undefined
          ? {}
          : {
              signers: {
                ssh: signers.ssh,
                openpgp: Buffer.from(signers.openpgp).toString('base64'),
              },
            }),
      },
      { signal },
    );
    try {
      for (;;) {
        const frame = await call.next();
        if (frame.type === 'end') return;
        if (frame.type === 'json') yield* factsOf(frame.payload);
      }
    } catch (error) {
      throw settledError(error, signal);
    } finally {
      call.abandon();
    }
  }

  async storeUpdates(key: QuarantineKey, updates: readonly RefCommand[]): Promise<string> {
    const args = { key: pushOf(key), updates: [...updates] };
    const payload = await this.#client.result(key.repositoryId, 'storeUpdates', args);
    return decodeMessage(results.digest, payload).digest;
  }

  async apply(repositoryId: string, generation: number): Promise<void> {
    await this.#client.result(repositoryId, 'apply', { generation });
  }

  async fork({ repositoryId, refs, ...fork }: ReplicaFork): Promise<void> {
    await this.#client.result(repositoryId, 'fork', { ...fork, refs: refs.map(encodeRef) });
  }

  async leavePool(repositoryId: string, poolId: string): Promise<void> {
    await this.#client.result(repositoryId, 'leavePool', { poolId });
  }

  async destroyPool(poolId: string): Promise<void> {
    await this.#client.result(poolId, 'destroyPool', {});
  }

  async keep(key: QuarantineKey): Promise<void> {
    await this.#client.result(key.repositoryId, 'keep', { key: pushOf(key) });
  }

  async abort(key: QuarantineKey): Promise<void> {
    await this.#client.result(key.repositoryId, 'abort', { key: pushOf(key) });
  }

  async heldPushes(
    repositoryId: string,
    updatesDigests: readonly string[] = [],
  ): Promise<readonly HeldPush[]> {
    const asked = { updatesDigests: [...updatesDigests] };
    const payload = await this.#client.result(repositoryId, 'heldPushes', asked);
    return decodeMessage(results.held, payload).pushes.map(({ updates, ...push }) => ({
      ...push,
      updates: updates ?? undefined,
    }));
  }

  async gather(
    key: QuarantineKey,
    from: readonly Pick<HeldPush, 'pushId' | 'attempt'>[],
  ): Promise<void> {
    const others = from.map(({ pushId, attempt }) => ({ pushId, attempt }));
    await this.#client.result(key.repositoryId, 'gather', { key: pushOf(key), from: others });
  }

  async applied(repositoryId: string): Promise<number> {
    const payload = await this.#client.result(repositoryId, 'applied', {});
    return decodeMessage(results.generation, payload).generation;
  }

  read(
    repositoryId: string,
    atLeast: number,
    { eventual = false }: { readonly eventual?: boolean } = {},
  ): Promise<ReplicaRead> {
    return openRemoteRead(this.#client, this.#memory, { repositoryId, atLeast, eventual });
  }

  async maintain(
    repositoryId: string,
    options: {
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<MaintenanceReport> {
    const payload = await this.#client.result(repositoryId, 'maintain', {}, progressing(options));
    return decodeMessage(results.maintained, payload);
  }

  async destroy(repositoryId: string): Promise<void> {
    await this.#client.result(repositoryId, 'destroy', {});
  }

  async copies(after: string): Promise<CopiesPage> {
    return decodeMessage(results.copies, await this.#client.result(after, 'copies', {}));
  }

  async state(
    repositoryId: string,
    options: Parameters<Replica['state']>[1] = {},
  ): Promise<ReplicaState | undefined> {
    return stateOf(await this.#client.result(repositoryId, 'state', options));
  }

  async stats(repositoryId: string): Promise<Omit<RepositoryStats, 'generation'>> {
    const payload = await this.#client.result(repositoryId, 'stats', {});
    const { sharedBy, ...stats } = decodeMessage(results.stats, payload);
    return { ...stats, ...(sharedBy === undefined ? {} : { sharedBy }) };
  }

  export(repositoryId: string, options: Parameters<Replica['export']>[1]): Promise<ReplicaExport> {
    return receiveExport(this.#client, repositoryId, options);
  }

  async catchUp(
    repositoryId: string,
    options: {
      readonly atLeast: number;
      readonly fresh?: boolean;
      readonly source: PeerSource;
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<ReplicaState> {
    const { atLeast, fresh, source } = options;
    const args = {
      atLeast,
      ...(fresh === undefined ? {} : { fresh }),
      ...(source.stores === undefined ? {} : { stores: [...source.stores] }),
    };
    const payload = await this.#client.result(repositoryId, 'catchUp', args, progressing(options));
    const state = stateOf(payload);
    if (state !== undefined) return state;
    throw new QuorateError('internal', 'a storage node caught up and does not say how far');
  }

  async verify(
    repositoryId: string,
    options: {
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<VerifyReport> {
    const payload = await this.#client.result(repositoryId, 'verify', {}, progressing(options));
    return decodeMessage(results.verified, payload);
  }
}

function stateOf(payload: Buffer): ReplicaState | undefined {
  const { state } = decodeMessage(results.state, payload);
  if (state === null) return undefined;
  const { frozen, unread, ...rest } = state;
  return {
    ...rest,
    ...(frozen === undefined ? {} : { frozen }),
    ...(unread === undefined ? {} : { unread }),
  };
}

function progressing(options: {
  readonly signal: AbortSignal;
  readonly progress?: (progress: MaintenanceProgress) => void;
}): { readonly signal: AbortSignal; readonly onFrame: (payload: Buffer) => void } {
  const { signal, progress } = options;
  return { signal, onFrame: (bytes) => progress?.(decodeMessage(results.progress, bytes)) };
}

function factsOf(payload: Buffer): readonly PushFact[] {
  return decodeMessage(results.facts, payload).facts.map((fact): PushFact =>
    fact.type === 'file' ? fact : { ...fact, message: fact.message, signature: fact.signature },
  );
}
