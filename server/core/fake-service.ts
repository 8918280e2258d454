/** A service over an in-memory backend, for tests of the protocol's logic. Real git runs in `e2e/`. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import type {
  Backend,
  GitStream,
  PushRequest,
  PushResult,
  ReadOptions,
  StoredPack,
  UploadPackRun,
} from '../../backends/contract/backend.js';
import type { Clock, Logger } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { Head, RefEntry, RefSnapshot } from '../../backends/contract/objects.js';
import type { NewRepository, Repository } from '../../backends/contract/repository.js';
import type { StoredSettings } from '../../backends/contract/settings.js';
import type { Authorizer, Decision } from '../auth/authorizer.js';
import type { AuditEvent } from '../observe/audit.js';
import type {
  Foreseen,
  Foresight,
  GitOutcome,
  GitRequest,
  GitService,
  KnownAnswer,
} from './git-request.js';
import { type AdmissionLimits, defaultAdmissionLimits } from './admission.js';
import { createGitService } from './git-service.js';
import { defaultGitServiceLimits, type GitServiceLimits } from './limits.js';

export function oidOf(digit: string): string {
  return digit.repeat(40);
}

export function snapshotOf(
  refs: readonly RefEntry[],
  head: Head = { symref: 'refs/heads/main' },
): RefSnapshot {
  const sorted = refs.toSorted((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
  return {
    generation: 1,
    head,
    refs: sorted,
    find: (name) => sorted.find((ref) => ref.name === name),
    prefixRange: (prefix) => {
      const matching = sorted.filter(({ name }) => name.startsWith(prefix));
      const start = sorted.findIndex(({ name }) => name.startsWith(prefix));
      return start < 0 ? [0, 0] : [start, start + matching.length];
    },
    hasTip: (oid) => sorted.some((ref) => ref.oid === oid),
  };
}

export interface Scene {
  refs?: readonly RefEntry[];
  head?: Head;
  settings?: StoredSettings;
  /** Names that exist. Default: `team/app`. */
  names?: readonly string[];
  decide?: Authorizer['decide'];
  decideAnyPush?: Authorizer['decideAnyPush'];
  /** Why no repository can be created. */
  creationError?: QuorateError;
  /** What `git upload-pack` answers; it is given its whole input. */
  answer?: (run: UploadPackRun, input: Buffer) => { stdout: string | Buffer; exitCode?: number };
  push?: (request: PushRequest) => Promise<PushResult>;
  /** The stored pack of everything, if there is one. */
  wholePack?: () => StoredPack;
  /** Reads of refs alone ask no store. */
  refsInMemory?: boolean;
  /** Objects that exist beside the tips, and may be served. */
  objects?: Readonly<Record<string, number>>;
  limits?: Partial<GitServiceLimits>;
  admission?: Partial<AdmissionLimits>;
  clock?: Clock;
}

export interface Talk {
  readonly outcome: GitOutcome | undefined;
  readonly error: Error | undefined;
  readonly output: Buffer;
}

export type RequestPart = Partial<GitRequest> & Pick<GitRequest, 'service' | 'mode'>;

const idleClock: Clock = {
  nowMs: () => 0,
  monotonicMs: () => 0,
  sleep: (_ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true) resolve();
      signal?.addEventListener('abort', () => resolve(), { once: true });
    }),
};

const nothing = (): void => {};

const silent: Logger = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  child: () => silent,
};

export class FakeService {
  readonly audited: AuditEvent[] = [];
  readonly counted: string[] = [];
  readonly pushed: PushRequest[] = [];
  readonly created: NewRepository[] = [];
  readonly runs: UploadPackRun[] = [];
  readonly reads: ReadOptions[] = [];
  /** Names that were looked up. */
  readonly lookUps: string[] = [];
  /** Of those to read: whether the refs were to be read next. */
  readonly readAhead: boolean[] = [];
  sessions = 0;
  readonly #scene: Scene;
  readonly #repositories = new Map<string, Repository>();
  #snapshot: RefSnapshot;
  #made: GitService | undefined;

  constructor(scene: Scene = {}) {
    this.#scene = scene;
    this.#snapshot = snapshotOf(scene.refs ?? [], scene.head);
    for (const name of scene.names ?? ['team/app']) this.#add(name);
  }

  /**
   * One exchange on `team/app` over `input`; a string or buffer is all that the client sends. `heard` is told of each
   * piece of the answer, while more waits.
   */
  async talk(
    part: RequestPart,
    input: string | Uint8Array | Readable = '',
    heard?: () => void,
  ): Promise<Talk> {
    const written: Buffer[] = [];
    const output = new Writable({
      write(chunk: Buffer, _encoding, done) {
        // Its memory may be used again after `done`.
        written.push(Buffer.from(chunk));
        if (heard === undefined) {
          done();
          return;
        }
        // As over a line: the next piece waits.
        setImmediate(() => {
          heard();
          done();
        });
      },
    });
    const source =
      input instanceof Readable
        ? input
        : Readable.from([Buffer.from(input)], { objectMode: false });
    let outcome: GitOutcome | undefined;
    let error: Error | undefined;
    try {
      const exchange = await this.#service.open(requestOf(part));
      outcome = await exchange.run(source, output);
    } catch (thrown) {
      error = thrown instanceof Error ? thrown : new Error(String(thrown));
    }
    return { outcome, error, output: Buffer.concat(written) };
  }

  /** What is known of the answer to a request. */
  async known(part: RequestPart, request: string): Promise<KnownAnswer | undefined> {
    const exchange = await this.#service.open(requestOf(part));
    return exchange.known(Buffer.from(request));
  }

  /** Looks up what a request is about before it is known who asks. */
  foresee(part: Foreseen & Pick<GitRequest, 'path'>): Foresight | undefined {
    return this.#service.foresee?.(part);
  }

  /** The repository's next generation. */
  setRefs(refs: readonly RefEntry[]): void {
    this.#snapshot = snapshotOf(refs, this.#scene.head);
  }

  setSettings(settings: StoredSettings): void {
    for (const [name, repository] of this.#repositories) {
      this.#repositories.set(name, { ...repository, settings });
    }
  }

  /** As on the directory backend, where another repository may have the name, and so the id, of an earlier one. */
  setDirectory(directory: string): void {
    for (const [name, repository] of this.#repositories) {
      this.#repositories.set(name, { ...repository, directory });
    }
  }

  #lookUp(name: string): Promise<Repository | undefined> {
    this.lookUps.push(name);
    return Promise.resolve(this.#repositories.get(name));
  }

  get #service(): GitService {
    this.#made ??= createGitService({
      backend: this.#backend(),
      authorizer: {
        decide: this.#scene.decide ?? ((): Decision => ({ allowed: true })),
        decideAnyPush: this.#scene.decideAnyPush ?? ((): undefined => undefined),
      },
      audit: {
        record: (event) => this.audited.push(event),
        flush: () => Promise.resolve(),
        close: () => Promise.resolve(),
      },
      meter: {
        count: (name, labels) => this.counted.push(`${name} ${labels?.['outcome'] ?? ''}`),
        observe: nothing,
        gauge: nothing,
      },
      logger: silent,
      clock: this.#scene.clock ?? idleClock,
      random: { bytes: (length) => new Uint8Array(length) },
      limits: { ...defaultGitServiceLimits, ...this.#scene.limits },
      admission: { ...defaultAdmissionLimits, ...this.#scene.admission },
      spoolDirectory: join(tmpdir(), `quorate-fake-service-${process.pid}`),
    });
    return this.#made;
  }

  #backend(): Backend {
    return {
      capabilities: { generations: true, renameIsInstant: true, inspectsPushes: true, forks: true },
      stores: undefined,
      cluster: undefined,
      recovery: undefined,
      repositories: {
        get: (name) => this.#lookUp(name),
        getForReading: (name, { refs = false } = {}) => {
          this.readAhead.push(refs);
          return this.#lookUp(name);
        },
        create: (repository) => {
          if (this.#scene.creationError !== undefined) {
            return Promise.reject(this.#scene.creationError);
          }
          this.created.push(repository);
          return Promise.resolve(this.#add(repository.name));
        },
        fork: () => this.#never(),
        list: () => this.#never(),
        update: () => this.#never(),
        rename: () => this.#never(),
        delete: () => this.#never(),
        setHead: () => this.#never(),
        stats: () => this.#never(),
        whileNamed: () => this.#never(),
      },
      read: (repository, _signal, { refsOnly = false, atLeast, strong } = {}) => {
        this.sessions += 1;
        this.reads.push({ refsOnly, atLeast, ...(strong === undefined ? {} : { strong }) });
        return Promise.resolve({
          repository,
          refsOnly: refsOnly && this.#scene.refsInMemory === true,
          snapshot: this.#snapshot,
          firstForbiddenWant: (wants) =>
            Promise.resolve(wants.find((want) => this.#scene.objects?.[want] === undefined)),
          objectSizes: (oids) => Promise.resolve(oids.map((oid) => this.#scene.objects?.[oid])),
          uploadPack: (run) => Promise.resolve(this.#git(run)),
          wholePack: () => Promise.resolve(this.#scene.wholePack?.()),
          shape: () => Promise.resolve({ objectCount: 1, packCount: 1 }),
          uploadArchive: () => this.#never(),
          release: () => {
            this.sessions -= 1;
          },
        });
      },
      push: (_repository, request) => {
        this.pushed.push(request);
        return (this.#scene.push ?? acceptAll)(request);
      },
      start: () => this.#never(),
      maintain: () => this.#never(),
      importFrom: () => this.#never(),
      locks: () => this.#never(),
      status: () => this.#never(),
      close: () => this.#never(),
    };
  }

  /** A git that reads its input to the first `done` or the end, and then answers. */
  #git(run: UploadPackRun): GitStream {
    this.runs.push(run);
    const stdout = new PassThrough();
    const exited = this.#readAll(run).then((input) => {
      const { stdout: text, exitCode = 0 } = this.#scene.answer?.(run, input) ?? { stdout: '0000' };
      stdout.end(text);
      return { exitCode, signal: null, stderr: '' };
    });
    return { stdout, exited, kill: () => stdout.destroy() };
  }

  async #readAll(run: UploadPackRun): Promise<Buffer> {
    if (run.input instanceof Uint8Array) return Buffer.from(run.input);
    const parts: Buffer[] = [];
    const source: AsyncIterable<Buffer> = run.input;
    for await (const part of source) {
      parts.push(part);
      if (Buffer.concat(parts).includes('0009done\n')) break;
    }
    return Buffer.concat(parts);
  }

  #add(name: string): Repository {
    const repository: Repository = {
      id: `id of ${name}`,
      name,
      objectFormat: 'sha1',
      settings: this.#scene.settings ?? {},
      access: { public: false, grants: {} },
      createdAtMs: 0,
      epoch: 1,
    };
    this.#repositories.set(name, repository);
    return repository;
  }

  #never(): never {
    throw new QuorateError('internal', 'not part of this test');
  }
}

/** A backend that takes the pack and every command that was not refused before. */
export async function acceptAll(request: PushRequest): Promise<PushResult> {
  if (request.pack !== undefined) for await (const _ of request.pack);
  return {
    unpack: 'ok',
    generation: 2,
    refs: request.commands.map(({ ref, oldOid, newOid }) => {
      const reason = request.refused.get(ref);
      return reason === undefined
        ? { ref, status: 'ok', oldOid, newOid }
        : { ref, status: 'refused', reason };
    }),
  };
}

export function codeOf(error: Error | undefined): string | undefined {
  return error instanceof QuorateError ? error.code : undefined;
}

function requestOf(part: RequestPart): GitRequest {
  return {
    requestId: 'request-1',
    path: '/team/app.git',
    principal: {
      kind: 'user',
      name: 'ann',
      admin: false,
      canCreate: true,
      via: { type: 'key', fingerprint: 'SHA256:x' },
    },
    transport: part.mode === 'session' ? 'ssh' : 'http',
    remoteAddress: '192.0.2.1',
    protocol: 0,
    signal: new AbortController().signal,
    ...part,
  };
}
