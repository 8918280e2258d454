/** Arguments and results of the node API's calls, as JSON. Both sides read them through these schemas only. */
import { z } from 'zod';
import { QuorateError } from '../contract/errors.js';
import type { StoredSettings } from '../contract/settings.js';
import { knownSchema, refTuple } from './snapshot-wire.js';

const oid = z.string().regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/);
const head = z.union([z.object({ symref: z.string() }), z.object({ oid })]);
const command = z.object({ ref: z.string(), oldOid: oid, newOid: oid });
const settings: z.ZodType<StoredSettings> = z.record(z.string(), z.string());
const objectFormat = z.enum(['sha1', 'sha256']);
const sessionId = z.string().regex(/^[0-9a-f]{32}$/);
const bytes = z.base64();

/** Of a push. The repository is in the path. */
const pushKey = z.object({
  pushId: z.string().regex(/^[A-Za-z0-9_-]{8,64}$/),
  attempt: z.int().min(0),
});

export const nothing = z.object({});

export const calls = {
  create: z.object({ objectFormat, head: z.string() }),
  upload: z.object({
    key: pushKey,
    settings,
    basis: z.int().min(0).optional(),
  }),
  prepare: z.object({
    key: pushKey,
    basis: z.int().min(0),
    commands: z.array(command),
    head: z.object({ old: head, new: head }).optional(),
    settings,
    shallow: z.array(oid),
    lockRevisions: z.array(z.object({ key: z.string(), createRevision: z.int() })),
    headRevision: z.int().exactOptional(),
    /** The pack comes behind the arguments, in the same message. */
    packed: z.boolean().exactOptional(),
    uploaded: z.literal(true).exactOptional(),
  }),
  nonFastForwards: z.object({ key: pushKey, commands: z.array(command) }),
  runHook: z.object({
    key: pushKey,
    digest: z.string(),
    args: z.array(z.string()),
    env: z.record(z.string(), z.string()),
    limits: z.object({
      timeoutMs: z.number().positive(),
      maxOutputBytes: z.number().positive(),
      maxProcesses: z.number().positive(),
    }),
  }),
  inspect: z.object({
    key: pushKey,
    command,
    covered: z.string(),
    judged: z.array(oid),
    commits: z.boolean(),
    files: z.boolean(),
    signers: z.object({ ssh: z.string(), openpgp: bytes }).optional(),
  }),
  storeUpdates: z.object({ key: pushKey, updates: z.array(command) }),
  apply: z.object({ generation: z.int().min(0) }),
  fork: z.object({
    sourceId: z.string(),
    poolId: z.string(),
    objectFormat,
    sourceGeneration: z.int().min(0),
    head: z.string(),
    refs: z.array(refTuple),
  }),
  leavePool: z.object({ poolId: z.string() }),
  destroyPool: nothing,
  keep: z.object({ key: pushKey }),
  abort: z.object({ key: pushKey }),
  heldPushes: z.object({ updatesDigests: z.array(z.string()).optional() }),
  gather: z.object({ key: pushKey, from: z.array(pushKey) }),
  applied: nothing,
  maintain: nothing,
  destroy: nothing,
  copies: nothing,
  state: z.object({ unread: z.boolean().optional() }),
  stats: nothing,
  export: z.object({
    atLeast: z.int().min(0),
    have: z.array(oid),
    held: pushKey.extend({ tips: z.array(oid).optional() }).optional(),
  }),
  catchUp: z.object({
    atLeast: z.int().min(0),
    fresh: z.boolean().optional(),
    stores: z.array(z.string()).optional(),
  }),
  verify: nothing,
  read: z.object({
    session: sessionId,
    atLeast: z.int().min(0),
    eventual: z.boolean().exactOptional(),
    known: z.array(knownSchema).max(16),
  }),
  firstForbiddenWant: z.object({
    session: sessionId,
    wants: z.array(oid),
    hidden: z.array(z.string()),
  }),
  shape: z.object({ session: sessionId }),
  objectSizes: z.object({ session: sessionId, oids: z.array(oid) }),
  uploadPack: z.object({
    session: sessionId,
    protocol: z.union([z.literal(0), z.literal(2)]),
    stateless: z.boolean(),
    hidden: z.array(z.string()),
    config: z.record(z.string(), z.string()),
  }),
  uploadArchive: z.object({ session: sessionId, hidden: z.array(z.string()) }),
  wholePack: z.object({ session: sessionId, offset: z.int().min(0) }),
} as const;

/** A push as it is named in arguments. */
export function pushOf({ pushId, attempt }: z.infer<typeof pushKey>): z.infer<typeof pushKey> {
  return { pushId, attempt };
}

export type CallName = keyof typeof calls;
export type Arguments<Name extends CallName> = z.infer<(typeof calls)[Name]>;

export function isCallName(name: string): name is CallName {
  return Object.hasOwn(calls, name);
}

/** Calls whose caller goes on sending after the arguments, if only to say that it lives. */
export const duplexCalls: ReadonlySet<CallName> = new Set<CallName>([
  'upload',
  'runHook',
  'inspect',
  'export',
  'uploadPack',
  'uploadArchive',
  'wholePack',
]);

/** Calls that take and answer little: they go over the channel, where there is one (`channel-wire.ts`). */
export const smallCalls = [
  'prepare',
  'nonFastForwards',
  'storeUpdates',
  'apply',
  'keep',
  'abort',
  'applied',
  'state',
  'read',
  'firstForbiddenWant',
  'shape',
  'objectSizes',
] as const satisfies readonly CallName[];
export type SmallCallName = (typeof smallCalls)[number];
const smallCallNames: ReadonlySet<string> = new Set<string>(smallCalls);

export function isSmallCallName(name: string): name is SmallCallName {
  return smallCallNames.has(name);
}

/** By it a client says that it lives, which keeps its read sessions, and gives sessions back. */
export const attendArguments = z.object({ released: z.array(sessionId).max(10_000) });
export const attendResult = z.object({
  storeId: z.string(),
  draining: z.boolean(),
  /** By the node's clock on the wall. */
  nowMs: z.number().optional(),
  /** What is wrong with its disk, and the remedy. */
  problem: z.string().exactOptional(),
});

export const results = {
  uploaded: z.object({ objectCount: z.number(), sizeBytes: z.number() }),
  prepared: z.object({
    storeId: z.string(),
    refused: z.array(z.tuple([z.string(), z.string()])),
    currentBranch: z.string().optional(),
    packBytes: z.int().min(0).exactOptional(),
  }),
  refs: z.object({ refs: z.array(z.string()) }),
  hookEnd: z.union([
    z.object({ how: z.literal('exited'), exitCode: z.number() }),
    z.object({ how: z.literal('killed'), signal: z.string() }),
    z.object({ how: z.enum(['too-long', 'too-much-output', 'too-many-processes', 'cancelled']) }),
  ]),
  facts: z.object({
    facts: z.array(
      z.union([
        z.object({
          type: z.literal('commit'),
          oid,
          parents: z.array(oid),
          message: z.string().optional(),
          signature: z.enum(['good', 'unsigned', 'refused']).optional(),
        }),
        z.object({ type: z.literal('file'), commit: oid, path: z.string(), sizeBytes: z.number() }),
      ]),
    ),
  }),
  digest: z.object({ digest: z.string() }),
  held: z.object({
    pushes: z.array(
      z.object({
        pushId: z.string(),
        attempt: z.int(),
        updates: z.array(command).nullable(),
        updatesDigest: z.string().exactOptional(),
        anyOf: z.array(command).exactOptional(),
      }),
    ),
  }),
  generation: z.object({ generation: z.int().min(0) }),
  progress: z.object({ step: z.string(), done: z.number(), total: z.number() }),
  maintained: z.object({
    packsBefore: z.number(),
    packsAfter: z.number(),
    sizeBytesBefore: z.number(),
    sizeBytesAfter: z.number(),
    durationMs: z.number(),
  }),
  forbidden: z.object({ want: oid.optional() }),
  sizes: z.object({ sizes: z.array(z.number().nullable()) }),
  state: z.object({
    state: z
      .object({
        generation: z.int(),
        digest: z.string(),
        frozen: z.string().optional(),
        unread: z.string().optional(),
      })
      .nullable(),
  }),
  copies: z.object({ ids: z.array(z.string().regex(/^[0-9a-f]{32}$/)), more: z.boolean() }),
  stats: z.object({
    head,
    refCount: z.number(),
    packCount: z.number(),
    looseObjectCount: z.number(),
    sizeBytes: z.number(),
    sharedBytes: z.number(),
    sharedBy: z.number().optional(),
  }),
  exported: z.object({
    objectFormat,
    generation: z.int(),
    digest: z.string(),
    head,
    refCount: z.int(),
    pack: z.boolean(),
  }),
  verified: z.object({
    digest: z.string(),
    generation: z.int(),
    problems: z.array(z.string()),
  }),
  shape: z.object({ objectCount: z.number(), packCount: z.number() }),
  started: z.object({ started: z.literal(true) }),
  exit: z.object({
    exitCode: z.number().nullable(),
    signal: z.string().nullable(),
    stderr: z.string(),
  }),
  storedPack: z.object({
    pack: z.object({ objectCount: z.number(), sizeBytes: z.number() }).nullable(),
  }),
} as const;

/** What a node that runs a hook says when it lacks the program. */
export const programWanted = z.object({ programWanted: z.literal(true) });

/** JSON of a frame as what it has to be. `internal` when it is not: a bug, or another version. */
export function decodeMessage<T>(schema: z.ZodType<T>, payload: Buffer): T {
  try {
    return schema.parse(JSON.parse(payload.toString('utf8')));
  } catch (cause) {
    throw new QuorateError(
      'internal',
      'a member of the cluster sent what is not understood here: is it of another version?',
      { cause },
    );
  }
}

export function encodeMessage(message: object): Buffer {
  return Buffer.from(JSON.stringify(message));
}
