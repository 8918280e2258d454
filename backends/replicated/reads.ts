import type { Readable } from 'node:stream';
import type { GitStream, ReadSession, UploadPackRun } from '../contract/backend.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError, QuorateError, refuseCancelled } from '../contract/errors.js';
import type { RefSnapshot } from '../contract/objects.js';
import type { ReplicaRead } from '../contract/replica.js';
import type { Repository } from '../contract/repository.js';
import type { VisibleRefs } from '../contract/visible-refs.js';
import { storeTroubles } from './commit.js';
import type { KnownDamages } from './known-damages.js';
import type { Voter } from './records.js';
import { gathered, type Member, nobodyReachable, type ReplicaDirectory } from './voters.js';

export interface ReadDependencies {
  readonly replicas: ReplicaDirectory;
  /** Copies that are read only when nobody else is left; absent where there is no other copy. */
  readonly damages?: Pick<KnownDamages, 'has'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A repository, and who has copies of it. */
type ReadRepository = Repository & {
  readonly voters: readonly Voter[];
  readonly readers?: readonly Voter[];
};

/**
 * A read of a generation, or a later one, from the best store that has it. A store in trouble is left for the next,
 * also later on, as long as nothing of an answer was given away.
 */
export async function openRead(
  dependencies: ReadDependencies,
  repository: ReadRepository,
  wanted: {
    readonly generation: number;
    readonly signal: AbortSignal;
    /** Nothing newer than that generation is asked for. */
    readonly eventual?: boolean;
  },
): Promise<ReadSession> {
  const { voters, readers } = repository;
  const copies = readers === undefined || readers.length === 0 ? voters : [...voters, ...readers];
  const { replicas, clock, damages } = dependencies;
  const found = await gathered(replicas, copies, {
    enough: (some) => some.length > 0,
    clock,
    signal: wanted.signal,
  });
  const isDamaged = ({ storeId }: Member): boolean => damages?.has(repository.id, storeId) === true;
  const members = found.some(isDamaged)
    ? [...found.filter((member) => !isDamaged(member)), ...found.filter(isDamaged)]
    : found;
  const source = new ReadSource(dependencies, repository, { eventual: false, ...wanted, members });
  await source.current();
  return new ReplicatedRead(repository, source);
}

/** The store that is read now, and those that are left to try. */
class ReadSource {
  readonly #dependencies: ReadDependencies;
  readonly #repository: ReadRepository;
  /** Another store has to have what was shown of the first one, which may be more than was asked for. */
  #generation: number;
  readonly #eventual: boolean;
  readonly #signal: AbortSignal;
  #left: readonly Member[];
  #read: ReplicaRead | undefined;
  #released = false;

  constructor(
    dependencies: ReadDependencies,
    repository: ReadRepository,
    wanted: {
      readonly members: readonly Member[];
      readonly generation: number;
      readonly eventual: boolean;
      readonly signal: AbortSignal;
    },
  ) {
    this.#dependencies = dependencies;
    this.#repository = repository;
    this.#left = wanted.members;
    this.#generation = wanted.generation;
    this.#eventual = wanted.eventual;
    this.#signal = wanted.signal;
  }

  /** The open read, or one at the next store. */
  async current(): Promise<ReplicaRead> {
    if (this.#read !== undefined) return this.#read;
    let last: unknown;
    for (;;) {
      refuseCancelled(this.#signal);
      const [member, ...left] = this.#left;
      if (member === undefined) throw last ?? this.#nobody();
      this.#left = left;
      try {
        const read = await member.replica.read(this.#repository.id, this.#generation, {
          eventual: this.#eventual,
        });
        if (this.#released) read.release();
        this.#read = read;
        this.#generation = Math.max(this.#generation, read.snapshot.generation);
        // A reader that is further may have jumped over that generation, and lack what only it had.
        this.#left = this.#left.filter(({ storeId }) => this.#isVoter(storeId));
        return read;
      } catch (error) {
        last = error;
        if (!this.#mayGoOn(error)) throw error;
        this.#tell(error, member.storeId);
      }
    }
  }

  /** Whether another store is left to try. */
  get hasNext(): boolean {
    return this.#left.length > 0;
  }

  get snapshot(): RefSnapshot {
    if (this.#read === undefined) throw this.#nobody();
    return this.#read.snapshot;
  }

  /** Asks a store, and the next one when that one is in trouble. */
  async ask<T>(question: (read: ReplicaRead) => Promise<T>): Promise<T> {
    for (;;) {
      const read = await this.current();
      try {
        return await question(read);
      } catch (error) {
        if (!this.#mayGoOn(error)) throw error;
        this.#tell(error);
        read.release();
        this.#read = undefined;
      }
    }
  }

  release(): void {
    this.#released = true;
    this.#read?.release();
  }

  #nobody(): QuorateError {
    return nobodyReachable(this.#dependencies.replicas, this.#repository.voters);
  }

  #isVoter(storeId: string): boolean {
    return this.#repository.voters.some((voter) => voter.storeId === storeId);
  }

  #mayGoOn(error: unknown): boolean {
    return this.#left.length > 0 && storeTroubles.has(asQuorateError(error).code);
  }

  #tell(error: unknown, store?: string): void {
    this.#dependencies.logger.warn(
      { component: 'read', repo: this.#repository.id, store, err: error },
      'a read goes to another storage node',
    );
  }
}

class ReplicatedRead implements ReadSession {
  readonly repository: Repository;
  readonly snapshot: RefSnapshot;
  readonly refsOnly = false;
  readonly #source: ReadSource;

  constructor(repository: Repository, source: ReadSource) {
    this.repository = repository;
    this.snapshot = source.snapshot;
    this.#source = source;
  }

  firstForbiddenWant(wants: readonly string[], visible: VisibleRefs): Promise<string | undefined> {
    return this.#source.ask((read) => read.firstForbiddenWant(wants, visible));
  }

  objectSizes(oids: readonly string[]): Promise<readonly (number | undefined)[]> {
    return this.#source.ask((read) => read.objectSizes(oids));
  }

  async uploadPack(run: UploadPackRun): Promise<GitStream> {
    // A stream of the client's cannot be read a second time.
    if (!(run.input instanceof Uint8Array) || !this.#source.hasNext) {
      return (await this.#source.current()).uploadPack(run);
    }
    return this.#source.ask(async (read) => {
      const stream = await read.uploadPack(run);
      await firstByte(stream);
      return stream;
    });
  }

  wholePack(): ReturnType<ReadSession['wholePack']> {
    return this.#source.ask((read) => read.wholePack());
  }

  shape(): ReturnType<ReadSession['shape']> {
    return this.#source.ask((read) => read.shape());
  }

  async uploadArchive(run: {
    readonly input: Readable;
    readonly visible: VisibleRefs;
    readonly signal: AbortSignal;
  }): Promise<GitStream> {
    return (await this.#source.current()).uploadArchive(run);
  }

  release(): void {
    this.#source.release();
  }
}

function refuse(): Promise<never> {
  return Promise.reject(new QuorateError('internal', 'a read of refs was asked for more'));
}

/** A read from memory, for who asks for refs alone. */
export function readOfRefs(repository: Repository, snapshot: RefSnapshot): ReadSession {
  return {
    repository,
    snapshot,
    refsOnly: true,
    firstForbiddenWant: refuse,
    objectSizes: refuse,
    uploadPack: refuse,
    wholePack: refuse,
    shape: refuse,
    uploadArchive: refuse,
    release: () => undefined,
  };
}

/** Resolves when there is something to read, or nothing will come; rejects when the stream fails before. */
function firstByte({ stdout }: GitStream): Promise<void> {
  if (stdout.readableLength > 0 || stdout.readableEnded) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const settle = (error?: Error): void => {
      stdout.off('readable', ready);
      stdout.off('end', ready);
      stdout.off('close', ready);
      stdout.off('error', settle);
      if (error === undefined) resolve();
      else reject(error);
    };
    const ready = (): void => settle();
    stdout.on('readable', ready);
    stdout.on('end', ready);
    stdout.on('close', ready);
    stdout.on('error', settle);
  });
}
