import type { z } from 'zod';
import type { GitStream } from '../contract/backend.js';
import { QuorateError } from '../contract/errors.js';
import type { PushFact } from '../contract/inspection.js';
import type { PeerSource, QuarantineKey, Replica } from '../contract/replica.js';
import { refsWithout } from '../contract/visible-refs.js';
import type { KnownSnapshots } from './known-snapshots.js';
import {
  type Arguments,
  type CallName,
  calls,
  decodeMessage,
  type SmallCallName,
} from './messages.js';
import type { ReadSessions } from './read-sessions.js';
import type { ServerCall, SmallCall } from './server-call.js';
import { decodeRefs, difference, type KnownSnapshot, partsOf } from './snapshot-wire.js';

/** What the calls of a node work on. */
export interface NodeContext {
  readonly replica: Replica;
  readonly sessions: ReadSessions;
  readonly snapshots: KnownSnapshots;
  /** Throws when the node takes no new work. */
  readonly refuseWhenDraining: () => void;
  /** Some of a repository's other stores, or all. */
  readonly peers: (repositoryId: string, stores: readonly string[] | undefined) => PeerSource;
}

type Operation<Call> = (
  context: NodeContext,
  payload: Buffer,
  call: Call,
) => Promise<object | undefined>;

function operation<T, Call extends SmallCall = ServerCall>(
  schema: z.ZodType<T>,
  run: (context: NodeContext, args: T, call: Call) => Promise<object | undefined | void>,
): Operation<Call> {
  return async (context, payload, call) =>
    (await run(context, decodeMessage(schema, payload), call)) ?? undefined;
}

/** What each small call does with the replica. Returns the result, after what was sent before. */
export const smallOperations: Readonly<Record<SmallCallName, Operation<SmallCall>>> = {
  prepare: operation(calls.prepare, async (context, { key, head, packed, ...request }, call) => {
    if (packed === true) context.refuseWhenDraining();
    const prepared = await context.replica.prepare({
      ...request,
      ...(packed === true ? { pack: await call.collect() } : {}),
      ...(head === undefined ? {} : { head }),
      key: keyOf(call, key),
      signal: call.signal,
    });
    return { ...prepared, refused: [...prepared.refused] };
  }),
  nonFastForwards: operation(
    calls.nonFastForwards,
    async ({ replica }, { key, commands }, call) => ({
      refs: [...(await replica.nonFastForwards(keyOf(call, key), commands, call.signal))],
    }),
  ),
  storeUpdates: operation(calls.storeUpdates, async ({ replica }, { key, updates }, call) => ({
    digest: await replica.storeUpdates(keyOf(call, key), updates),
  })),
  apply: operation(calls.apply, ({ replica }, { generation }, { repositoryId }) =>
    replica.apply(repositoryId, generation),
  ),
  keep: operation(calls.keep, ({ replica }, { key }, call) => replica.keep(keyOf(call, key))),
  abort: operation(calls.abort, ({ replica }, { key }, call) => replica.abort(keyOf(call, key))),
  applied: operation(calls.applied, async ({ replica }, _args, { repositoryId }) => ({
    generation: await replica.applied(repositoryId),
  })),
  state: operation(calls.state, async ({ replica }, { unread = false }, { repositoryId }) => ({
    state: (await replica.state(repositoryId, { unread })) ?? null,
  })),
  read: operation(calls.read, openRead),
  firstForbiddenWant: operation(
    calls.firstForbiddenWant,
    (context, { session, wants, hidden }, call) =>
      onSession(context, session, call, async (read) => {
        const want = await read.firstForbiddenWant(wants, refsWithout(hidden));
        return want === undefined ? {} : { want };
      }),
  ),
  shape: operation(calls.shape, (context, { session }, call) =>
    onSession(context, session, call, (read) => read.shape()),
  ),
  objectSizes: operation(calls.objectSizes, (context, { session, oids }, call) =>
    onSession(context, session, call, async (read) => ({
      sizes: (await read.objectSizes(oids)).map((size) => size ?? null),
    })),
  ),
};

/** What each call does with the replica. Returns the result, after what was streamed. */
export const operations: Readonly<Record<CallName, Operation<ServerCall>>> = {
  ...smallOperations,
  create: operation(calls.create, ({ replica }, args, { repositoryId }) =>
    replica.create(repositoryId, args),
  ),
  upload: operation(calls.upload, async ({ replica }, { key, settings, basis }, call) => {
    // Until its data begins, a caller who lost the connection makes the call again, under the same key.
    const pack = await begun(call.input());
    return replica.upload(keyOf(call, key), pack, {
      settings,
      ...(basis === undefined ? {} : { basis }),
      signal: call.signal,
      progress: (text) => call.progress(text),
    });
  }),
  runHook: operation(calls.runHook, async ({ replica }, { key, digest, ...run }, call) => {
    call.begin();
    const stdin = await call.collect();
    const content = async (): Promise<Uint8Array> => {
      await call.send({ programWanted: true });
      return call.collect();
    };
    return replica.runHook(keyOf(call, key), {
      ...run,
      program: { digest, content },
      stdin,
      output: (bytes) => call.text(bytes),
      signal: call.signal,
    });
  }),
  inspect: operation(calls.inspect, async ({ replica }, { key, signers, ...rest }, call) => {
    call.begin();
    call.watch();
    const facts = replica.inspect(keyOf(call, key), {
      ...rest,
      ...(signers === undefined
        ? {}
        : { signers: { ssh: signers.ssh, openpgp: Buffer.from(signers.openpgp, 'base64') } }),
      signal: call.signal,
    });
    await sendFacts(call, facts);
  }),
  fork: operation(calls.fork, ({ replica }, { refs, ...fork }, { repositoryId }) =>
    replica.fork({ ...fork, repositoryId, refs: decodeRefs({ refs }) }),
  ),
  leavePool: operation(calls.leavePool, ({ replica }, { poolId }, { repositoryId }) =>
    replica.leavePool(repositoryId, poolId),
  ),
  // The id in the path is the pool's.
  destroyPool: operation(calls.destroyPool, ({ replica }, _args, { repositoryId }) =>
    replica.destroyPool(repositoryId),
  ),
  heldPushes: operation(
    calls.heldPushes,
    async ({ replica }, { updatesDigests }, { repositoryId }) => ({
      pushes: (await replica.heldPushes(repositoryId, updatesDigests)).map(
        ({ updates = null, ...push }) => ({
          ...push,
          updates,
        }),
      ),
    }),
  ),
  gather: operation(calls.gather, ({ replica }, { key, from }, call) =>
    replica.gather(keyOf(call, key), from),
  ),
  maintain: operation(calls.maintain, ({ replica }, _args, call) =>
    replica.maintain(call.repositoryId, {
      signal: call.signal,
      progress: (progress) => void call.send(progress).catch(() => undefined),
    }),
  ),
  destroy: operation(calls.destroy, ({ replica }, _args, { repositoryId }) =>
    replica.destroy(repositoryId),
  ),
  // The id in the path is the one before the first that is wanted.
  copies: operation(calls.copies, ({ replica }, _args, { repositoryId: after }) =>
    replica.copies(after),
  ),
  stats: operation(calls.stats, ({ replica }, _args, { repositoryId }) =>
    replica.stats(repositoryId),
  ),
  export: operation(calls.export, sendExport),
  catchUp: operation(
    calls.catchUp,
    async ({ replica, peers }, { atLeast, fresh, stores }, call) => {
      const { repositoryId, signal } = call;
      const source = peers(repositoryId, stores);
      const state = await replica.catchUp(repositoryId, {
        atLeast,
        source,
        signal,
        progress: (progress) => void call.send(progress).catch(() => undefined),
        ...(fresh === undefined ? {} : { fresh }),
      });
      return { state };
    },
  ),
  verify: operation(calls.verify, ({ replica }, _args, call) =>
    replica.verify(call.repositoryId, {
      signal: call.signal,
      progress: (progress) => void call.send(progress).catch(() => undefined),
    }),
  ),
  uploadPack: operation(calls.uploadPack, (context, { session, hidden, ...run }, call) =>
    onSession(context, session, call, async (read) => {
      call.begin();
      const input = call.inputStream();
      const { signal } = call;
      return relay(
        call,
        await read.uploadPack({ ...run, input, signal, visible: refsWithout(hidden) }),
      );
    }),
  ),
  uploadArchive: operation(calls.uploadArchive, (context, { session, hidden }, call) =>
    onSession(context, session, call, async (read) => {
      call.begin();
      const input = call.inputStream();
      const { signal } = call;
      return relay(call, await read.uploadArchive({ input, signal, visible: refsWithout(hidden) }));
    }),
  ),
  wholePack: operation(calls.wholePack, (context, { session, offset }, call) =>
    onSession(context, session, call, (read) => sendWholePack(call, read, offset)),
  ),
};

/** Resolves when the first of it is there. */
async function begun(input: AsyncGenerator<Uint8Array>): Promise<AsyncGenerator<Uint8Array>> {
  const first = await input.next();
  return (async function* all() {
    if (first.done === true) return;
    yield first.value;
    yield* input;
  })();
}

function keyOf(
  { repositoryId }: SmallCall,
  key: { readonly pushId: string; readonly attempt: number },
): QuarantineKey {
  return { ...key, repositoryId };
}

type Read = ReturnType<ReadSessions['use']>['read'];

async function onSession<T>(
  { sessions }: NodeContext,
  id: string,
  { client }: SmallCall,
  use: (read: Read) => Promise<T>,
): Promise<T> {
  const { read, done } = sessions.use(client, id);
  try {
    return await use(read);
  } finally {
    done();
  }
}

async function openRead(
  { replica, sessions, snapshots }: NodeContext,
  args: {
    session: string;
    atLeast: number;
    eventual?: boolean;
    known: readonly KnownSnapshot[];
  },
  call: SmallCall,
): Promise<void> {
  const { repositoryId, client } = call;
  const { read, done } = await sessions.open(client, args.session, () =>
    replica.read(repositoryId, args.atLeast, { eventual: args.eventual === true }),
  );
  try {
    await sendSnapshot(call, read, { known: args.known, snapshots });
  } catch (error) {
    sessions.release(client, [args.session]);
    throw error;
  } finally {
    done();
  }
}

async function sendSnapshot(
  call: SmallCall,
  { snapshot, digest }: Read,
  { known, snapshots }: { known: readonly KnownSnapshot[]; snapshots: KnownSnapshots },
): Promise<void> {
  const { repositoryId } = call;
  const { generation, head } = snapshot;
  snapshots.add(repositoryId, digest, snapshot);
  if (known.some((offered) => offered.digest === digest)) {
    await call.send({ generation, digest, head, from: 'known', base: digest });
    return;
  }
  for (const { digest: base } of known) {
    const before = snapshots.get(repositoryId, base);
    if (before === undefined) continue;
    await call.send({ generation, digest, head, from: 'difference', base });
    for (const part of difference(before, snapshot)) await call.send(part);
    return;
  }
  await call.send({ generation, digest, head, from: 'nothing' });
  for (const part of partsOf(snapshot.refs)) await call.send(part);
}

/** Sends refs and pack of a generation, which stays pinned until the last byte is out. */
async function sendExport(
  { replica }: NodeContext,
  { atLeast, have, held }: Arguments<'export'>,
  call: ServerCall,
): Promise<void> {
  call.watch();
  const { signal } = call;
  const exported = await replica.export(call.repositoryId, {
    atLeast,
    have,
    signal,
    ...(held === undefined ? {} : { held }),
  });
  try {
    const { refs, pack, objectFormat, generation, digest, head } = exported;
    const about = { objectFormat, generation, digest, head };
    await call.send({ ...about, refCount: refs.length, pack: pack !== undefined });
    for (const part of partsOf(refs)) await call.send(part);
    if (pack !== undefined) for await (const bytes of pack) await call.data(bytes);
  } finally {
    exported.release();
  }
}

/** Facts in one message: a rule that refuses at the first one has not had much read for nothing. */
const factsPerMessage = 50;

async function sendFacts(call: ServerCall, all: AsyncIterable<PushFact>): Promise<void> {
  let facts: PushFact[] = [];
  for await (const fact of all) {
    facts.push(fact);
    if (facts.length < factsPerMessage) continue;
    await call.send({ facts });
    facts = [];
  }
  if (facts.length > 0) await call.send({ facts });
}

async function relay(call: ServerCall, git: GitStream): Promise<object> {
  try {
    await call.send({ started: true });
    for await (const bytes of git.stdout) await call.data(bytes);
  } catch (error) {
    git.kill();
    await git.exited;
    // Output that ends early says that git was ended; how, its exit says.
    if (error instanceof QuorateError) throw error;
  }
  return git.exited;
}

const packBytesPerRead = 512 * 1024;

/** Sends a stored pack from an offset to its end, reading a part while the one before it goes out. */
async function sendWholePack(call: ServerCall, read: Read, offset: number): Promise<void> {
  call.begin();
  call.watch();
  const pack = await read.wholePack();
  if (pack === undefined) {
    await call.send({ pack: null });
    return;
  }
  try {
    const { objectCount, sizeBytes } = pack;
    await call.send({ pack: { objectCount, sizeBytes } });
    const readAt = async (at: number): Promise<Buffer> => {
      const buffer = Buffer.allocUnsafeSlow(Math.min(packBytesPerRead, sizeBytes - at));
      await pack.read([buffer], at);
      return buffer;
    };
    let next = offset < sizeBytes ? readAt(offset) : undefined;
    for (let at = offset; next !== undefined;) {
      const bytes: Buffer = await next;
      at += bytes.length;
      next = at < sizeBytes ? readAt(at) : undefined;
      try {
        await call.data(bytes);
      } catch (error) {
        // The file may not be closed under a read.
        await next?.catch(() => undefined);
        throw error;
      }
    }
  } finally {
    await pack.close();
  }
}
