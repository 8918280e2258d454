import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Backend, PushRequest, PushResult, ReadSession } from '../contract/backend.js';
import { QuorateError, type ErrorCode } from '../contract/errors.js';
import type { Oid, RefCommand } from '../contract/objects.js';
import type { NewRepository, RefOutcome, Repository } from '../contract/repository.js';
import { allRefs } from '../contract/visible-refs.js';
import { PktReader, pktText } from '../../server/wire/pkt-line.js';
import { parseSideBand } from '../../server/wire/side-band.js';
import type { SourceRepository } from './source-repository.js';

/** One backend under test, started, on storage of its own. */
export interface BackendHarness {
  readonly backend: Backend;
  /** Closes the backend and starts another one on the same storage. */
  readonly reopen: () => Promise<Backend>;
  /** Closes the backend, if it is open, and removes its storage. */
  readonly dispose: () => Promise<void>;
}

/** What the tests of one suite share: a backend, and a repository to push from. */
export interface BackendSpace {
  readonly backend: Backend;
  readonly source: SourceRepository;
}

export const zeroOid: Oid = '0'.repeat(40);

let count = 0;

/** A name unlike any other test's. */
export function freshName(): string {
  count += 1;
  return `test-${count}`;
}

export function newRepository(changes: Partial<NewRepository> = {}): NewRepository {
  return {
    name: freshName(),
    defaultBranch: 'main',
    objectFormat: 'sha1',
    settings: {},
    access: { public: false, grants: {} },
    ...changes,
  };
}

export function createRepository(
  { backend }: BackendSpace,
  changes: Partial<NewRepository> = {},
): Promise<Repository> {
  return backend.repositories.create(newRepository(changes));
}

export interface PushOptions {
  readonly commands: readonly RefCommand[];
  /** Commits whose closure the pack leaves out. */
  readonly have?: readonly Oid[];
  readonly atomic?: boolean;
  readonly refused?: ReadonlyMap<string, string>;
  readonly pushOptions?: readonly string[];
  /** Instead of what the commands need. */
  readonly pack?: AsyncIterable<Uint8Array> | undefined;
  readonly signal?: AbortSignal;
  readonly progress?: (text: Uint8Array) => void;
}

/** Pushes what the commands need from the space's source. */
export async function push(
  { backend, source }: BackendSpace,
  repository: Repository,
  options: PushOptions,
): Promise<PushResult> {
  const wants = options.commands.map(({ newOid }) => newOid).filter((oid) => oid !== zeroOid);
  const pack =
    'pack' in options
      ? options.pack
      : wants.length === 0
        ? undefined
        : Readable.from([await source.pack(wants, options.have ?? [])]);
  const request: PushRequest = {
    pushId: randomBytes(12).toString('hex'),
    actor: 'ann',
    commands: options.commands,
    refused: options.refused ?? new Map(),
    atomic: options.atomic ?? false,
    pushOptions: options.pushOptions ?? [],
    pack,
    shallow: [],
    progress: options.progress ?? (() => {}),
    quiet: true,
    signal: options.signal ?? new AbortController().signal,
  };
  return backend.push(repository, request);
}

export const create = (ref: string, newOid: Oid): RefCommand => ({ ref, oldOid: zeroOid, newOid });
export const update = (ref: string, oldOid: Oid, newOid: Oid): RefCommand => ({
  ref,
  oldOid,
  newOid,
});
export const remove = (ref: string, oldOid: Oid): RefCommand => ({ ref, oldOid, newOid: zeroOid });

/** `ok`, or the status of each refused ref, by ref. */
export function verdicts(result: PushResult): Record<string, RefOutcome['status']> {
  return Object.fromEntries(result.refs.map(({ ref, status }) => [ref, status]));
}

/** Pushes and asserts that all was taken. */
export async function mustPush(
  space: BackendSpace,
  repository: Repository,
  options: PushOptions,
): Promise<PushResult> {
  const result = await push(space, repository, options);
  assert.equal(result.unpack, 'ok');
  const refused = result.refs.filter(({ status }) => status === 'refused');
  assert.deepEqual(refused, []);
  return result;
}

export const never = (): AbortSignal => new AbortController().signal;

/** Opens a read, uses it, releases it. */
export async function reading<T>(
  { backend }: { readonly backend: Backend },
  repository: Repository,
  use: (session: ReadSession) => Promise<T> | T,
): Promise<T> {
  const session = await backend.read(repository, never());
  try {
    return await use(session);
  } finally {
    session.release();
  }
}

/** Ref -> value, as the next read sees them. */
export function refsOf(
  space: { readonly backend: Backend },
  repository: Repository,
): Promise<Record<string, Oid>> {
  return reading(space, repository, ({ snapshot }) =>
    Object.fromEntries(snapshot.refs.map(({ name, oid }) => [name, oid])),
  );
}

/** One v2 fetch without negotiation: the pack's bytes. */
export async function fetchPack(
  session: ReadSession,
  wants: readonly Oid[],
  haves: readonly Oid[] = [],
): Promise<Buffer> {
  const lines = [
    pktText('command=fetch\n'),
    '0001',
    pktText('ofs-delta\n'),
    pktText('no-progress\n'),
    ...wants.map((oid) => pktText(`want ${oid}\n`)),
    ...haves.map((oid) => pktText(`have ${oid}\n`)),
    pktText('done\n'),
    '0000',
  ];
  const stream = await session.uploadPack({
    protocol: 2,
    input: Buffer.from(lines.join('')),
    stateless: true,
    visible: allRefs,
    config: { 'uploadpack.allowAnySHA1InWant': 'true' },
    signal: never(),
  });
  const parts: Buffer[] = [];
  const reader = new PktReader(stream.stdout);
  let inPack = false;
  for (;;) {
    const pkt = await reader.read();
    if (pkt === undefined || pkt.type === 'flush') break;
    if (pkt.type !== 'data') continue;
    if (inPack) {
      const { band, data } = parseSideBand(pkt.payload);
      if (band === 1) parts.push(data);
    }
    inPack ||= pkt.payload.toString() === 'packfile\n';
  }
  await drain(reader);
  const { exitCode, stderr } = await stream.exited;
  assert.equal(exitCode, 0, stderr);
  return Buffer.concat(parts);
}

/** Reads what is left. */
export async function drain(reader: PktReader): Promise<number> {
  let bytes = 0;
  for await (const chunk of reader.rest()) bytes += chunk.length;
  return bytes;
}

/** Asserts that a promise rejects with one of these codes. */
export async function rejectsWith(promise: Promise<unknown>, ...codes: ErrorCode[]): Promise<void> {
  const error: unknown = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof QuorateError, `expected ${codes.join(' or ')}, got ${String(error)}`);
  assert.ok(
    codes.includes(error.code),
    `expected ${codes.join(' or ')}, got ${error.code}: ${error.message}`,
  );
}
