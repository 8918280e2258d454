import { once } from 'node:events';
import { Readable } from 'node:stream';
import type { GitStream, StoredPack, StoreShape, UploadPackRun } from '../contract/backend.js';
import { QuorateError } from '../contract/errors.js';
import type { Oid, RefSnapshot } from '../contract/objects.js';
import type { ReplicaRead } from '../contract/replica.js';
import type { VisibleRefs } from '../contract/visible-refs.js';
import { type ClientCall, settledError } from './client-call.js';
import { decodeMessage, results } from './messages.js';
import type { NodeClient } from './node-client.js';
import { RemotePack } from './remote-pack.js';
import type { SnapshotMemory } from './snapshot-memory.js';
import { SnapshotAssembly, snapshotIntroduction, snapshotPart } from './snapshot-wire.js';

interface Opening {
  readonly repositoryId: string;
  readonly atLeast: number;
  readonly eventual: boolean;
}

/** Pins a generation on a node. Of its refs only those travel that this process does not know. */
export async function openRemoteRead(
  client: NodeClient,
  memory: SnapshotMemory,
  opening: Opening,
): Promise<ReplicaRead> {
  const session = client.newId();
  try {
    return await memory.oneAtFirst({ ...opening, storeId: client.storeId }, async () => {
      const { snapshot, digest } = await readSnapshot(client, memory, { ...opening, session });
      return new RemoteRead(client, {
        repositoryId: opening.repositoryId,
        session,
        snapshot,
        digest,
      });
    });
  } catch (error) {
    // It may be open there all the same.
    client.release(session);
    throw error;
  }
}

async function readSnapshot(
  client: NodeClient,
  memory: SnapshotMemory,
  { repositoryId, atLeast, eventual, session }: Opening & { readonly session: string },
): Promise<{ readonly snapshot: RefSnapshot; readonly digest: string }> {
  const known = memory.known(repositoryId);
  const offered = known.map(({ digest, snapshot }) => ({
    digest,
    generation: snapshot.generation,
  }));
  let assembly: SnapshotAssembly | undefined;
  let digest = '';
  await client.result(
    repositoryId,
    'read',
    // A node of an earlier version does not know the word, and need not.
    { session, atLeast, ...(eventual ? { eventual } : {}), known: offered },
    {
      long: known.length === 0,
      onFrame: (payload) => {
        if (assembly === undefined) {
          const introduction = decodeMessage(snapshotIntroduction, payload);
          const base = known.find((one) => one.digest === introduction.base);
          digest = introduction.digest;
          assembly = new SnapshotAssembly(introduction, base?.snapshot);
        } else {
          assembly.add(decodeMessage(snapshotPart, payload));
        }
      },
    },
  );
  const snapshot = assembly?.finish();
  if (snapshot === undefined) {
    throw new QuorateError('internal', 'a storage node opened a read and sent no refs');
  }
  memory.add(repositoryId, digest, snapshot);
  return { snapshot, digest };
}

interface OpenSession {
  readonly repositoryId: string;
  readonly session: string;
  readonly snapshot: RefSnapshot;
  readonly digest: string;
}

/** A read whose git runs on a storage node. */
class RemoteRead implements ReplicaRead {
  readonly snapshot: RefSnapshot;
  readonly digest: string;
  readonly #client: NodeClient;
  readonly #repositoryId: string;
  readonly #session: string;
  #released = false;

  constructor(client: NodeClient, { repositoryId, session, snapshot, digest }: OpenSession) {
    this.#client = client;
    this.#repositoryId = repositoryId;
    this.#session = session;
    this.snapshot = snapshot;
    this.digest = digest;
  }

  async firstForbiddenWant(
    wants: readonly Oid[],
    { hidden }: VisibleRefs,
  ): Promise<Oid | undefined> {
    const payload = await this.#client.result(this.#repositoryId, 'firstForbiddenWant', {
      session: this.#session,
      wants: [...wants],
      hidden: [...hidden],
    });
    return decodeMessage(results.forbidden, payload).want;
  }

  async objectSizes(oids: readonly Oid[]): Promise<readonly (number | undefined)[]> {
    const payload = await this.#client.result(this.#repositoryId, 'objectSizes', {
      session: this.#session,
      oids: [...oids],
    });
    return decodeMessage(results.sizes, payload).sizes.map((size) => size ?? undefined);
  }

  async shape(): Promise<StoreShape> {
    const payload = await this.#client.result(this.#repositoryId, 'shape', {
      session: this.#session,
    });
    return decodeMessage(results.shape, payload);
  }

  async uploadPack(run: UploadPackRun): Promise<GitStream> {
    const { protocol, stateless, visible, config, input, signal } = run;
    const args = {
      session: this.#session,
      protocol,
      stateless,
      hidden: [...visible.hidden],
      config: { ...config },
    };
    const call = await this.#client.call(this.#repositoryId, 'uploadPack', args, { signal });
    return startRemoteGit(call, input, signal);
  }

  async uploadArchive(run: {
    readonly input: Readable;
    readonly visible: VisibleRefs;
    readonly signal: AbortSignal;
  }): Promise<GitStream> {
    const { input, visible, signal } = run;
    const args = { session: this.#session, hidden: [...visible.hidden] };
    const call = await this.#client.call(this.#repositoryId, 'uploadArchive', args, { signal });
    return startRemoteGit(call, input, signal);
  }

  wholePack(): Promise<StoredPack | undefined> {
    return RemotePack.open((offset) =>
      this.#client.call(this.#repositoryId, 'wholePack', { session: this.#session, offset }),
    );
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#client.release(this.#session);
  }
}

/** Resolves when git runs on the node: until then another node may be asked. */
async function startRemoteGit(
  call: ClientCall,
  input: Uint8Array | Readable,
  signal: AbortSignal,
): Promise<GitStream> {
  const feeding = feed(call, input);
  try {
    const first = await call.next();
    if (first.type !== 'json') throw new QuorateError('internal', 'git did not start');
    decodeMessage(results.started, first.payload);
  } catch (error) {
    call.abandon();
    feeding.stop();
    throw settledError(error, signal);
  }
  return remoteGit(call, feeding, signal);
}

type Exit = Awaited<GitStream['exited']>;

function remoteGit(call: ClientCall, feeding: Feeding, signal: AbortSignal): GitStream {
  let exit: Exit = { exitCode: null, signal: null, stderr: 'the storage node went away' };
  const readOn = async (): Promise<void> => {
    try {
      const { type, payload } = await call.next();
      if (type === 'data') {
        stdout.push(payload);
        return;
      }
      if (type !== 'end') throw new QuorateError('internal', 'that is no output of git');
      exit = decodeMessage(results.exit, payload);
      // git that was ended has not said all: its output breaks off here as it did there.
      if (exit.exitCode === null) stdout.destroy();
      else stdout.push(null);
    } catch (error) {
      stdout.destroy(settledError(error, signal));
    }
  };
  const stdout = new Readable({
    highWaterMark: 256 * 1024,
    read: () => void readOn(),
    destroy(error, done) {
      call.abandon();
      feeding.stop();
      done(error);
    },
  });
  // Who reads it is told; `exited` never rejects.
  stdout.on('error', () => undefined);
  const exited = once(stdout, 'close').then(
    () => exit,
    () => exit,
  );
  const kill = (): void => {
    if (!stdout.destroyed) exit = { exitCode: null, signal: 'SIGKILL', stderr: '' };
    stdout.destroy();
  };
  return { stdout, exited, kill };
}

interface Feeding {
  readonly stop: () => void;
}

/** Sends git what it reads. A source that fails ends the call, so that a part is never taken for the whole. */
function feed(call: ClientCall, input: Uint8Array | Readable): Feeding {
  if (input instanceof Uint8Array) {
    // git that reads no further has ended, and its exit says why.
    call
      .data(input)
      .then(() => call.mark())
      .catch(() => undefined);
    return { stop: () => undefined };
  }
  return feedStream(call, input);
}

function feedStream(call: ClientCall, input: Readable): Feeding {
  let stopped = false;
  const onData = (bytes: Uint8Array): void => {
    input.pause();
    call.data(bytes).then(
      () => stopped || input.resume(),
      () => undefined,
    );
  };
  const onEnd = (): void => void call.mark().catch(() => undefined);
  const onFailure = (): void => {
    if (!input.readableEnded) call.abandon();
  };
  const stop = (): void => {
    if (stopped) return;
    stopped = true;
    // The source is left alone: its owner still wants to answer on it.
    input.off('data', onData).off('end', onEnd).off('error', onFailure).off('close', onFailure);
    input.pause();
  };
  if (input.readableEnded) onEnd();
  else if (input.destroyed) onFailure();
  else input.on('error', onFailure).on('close', onFailure).on('end', onEnd).on('data', onData);
  return { stop };
}
