import type { Readable } from 'node:stream';
import type { GitStream, ReadSession, UploadPackRun } from '../contract/backend.js';
import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError, QuorateError, refuseCancelled } from '../contract/errors.js';
import type { RefSnapshot } from '../contract/objects.js';
import type { ReplicaRead } from '../contract/replica.js';
import type { Repository } from '../contract/repository.js';
import type { VisibleRefs } from '../contract/visible-refs.js';
import type { KnownDamages } from './known-damages.js';
import type { LateStores } from './late-stores.js';
import type { Voter } from './records.js';
import { hangingStores, nothingToWaitFor } from './stuck.js';
import {
  gathered,
  type Member,
  nobodyReachable,
  type ReplicaDirectory,
  storeTroubles,
} from './voters.js';

export interface ReadDependencies {
  readonly replicas: ReplicaDirectory;
  /** Copies that are read only when nobody else is left; absent where there is no other copy. */
  readonly damages?: Pick<KnownDamages, 'has'>;
  /** Are asked after all others as well, for a while. */
  readonly late?: LateStores;
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
  const { replicas, clock, damages, late } = dependencies;
  const found = await gathered(replicas, copies, {
    enough: (some) => some.length > 0,
    clock,
    signal: wanted.signal,
  });
  const isDamaged = ({ storeId }: Member): boolean => damages?.has(repository.id, storeId) === true;
  const isLate = ({ storeId }: Member): boolean => late?.has(storeId, repository.id) === true;
  const members = lastly(isDamaged, lastly(isLate, found));
  const source = new ReadSource(dependencies, repository, { eventual: false, ...wanted, members });
  await source.current();
  return new ReplicatedRead(repository, source);
}

function lastly(
  isLast: (member: Member) => boolean,
  members: readonly Member[],
): readonly Member[] {
  if (!members.some(isLast)) return members;
  return [...members.filter((member) => !isLast(member)), ...members.filter(isLast)];
}

/** A store that has not opened a read, or answered a small question of one, after so long is not waited for alone. */
const patienceMs = 3_000;
/** Until git has something to say: of a large repository it walks the history first. */
const firstByteMs = 10_000;

/** What came of opening a read at a store. */
type Opened = { readonly member: Member } & (
  | { readonly read: ReplicaRead }
  | { readonly error: unknown }
);

/** What is done with an answer that comes late. */
interface Late<T> {
  /** Nobody waits for longer, where another store may answer. */
  readonly waitMs?: number;
  /** It may be answered without the disk. */
  readonly fromMemory?: boolean;
  /** Called when the wait is over: what works on the answer may end. Never throws. */
  readonly giveUp?: () => void;
  /** Told of what came after that. Never throws. */
  readonly discard?: (answer: T) => void;
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
  #open: { readonly read: ReplicaRead; readonly storeId: string } | undefined;
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

  /**
   * The open read, or one at the next store. When that is late, its disk may hang: the one after it is asked as well, and
   * who answers first is read. Those that say of themselves for half a minute that their disks hang have failed.
   */
  async current(): Promise<ReplicaRead> {
    if (this.#open !== undefined) return this.#open.read;
    const asked = new Map<string, Promise<Opened>>();
    const over = new AbortController();
    const isAlone = this.#left.length === 1;
    let hanging: { readonly isStuck: boolean } | undefined;
    let last: unknown;
    try {
      for (;;) {
        refuseCancelled(this.#signal);
        const member = this.#next(asked.size > 0);
        if (member === undefined && asked.size === 0) throw last ?? this.#nobody();
        if (member !== undefined) asked.set(member.storeId, this.#openAt(member));
        const first = Promise.race(asked.values());
        const opened = await this.#inTime(first, over.signal);
        if (opened === undefined) {
          if (member !== undefined && !isAlone) this.#late(member.storeId, patienceMs);
          hanging ??= this.#watch(asked, over.signal);
          if (hanging.isStuck) {
            last = this.#allHang([...asked.keys()]);
            for (const late of asked.values()) void releaseLater(late);
            asked.clear();
          }
          continue;
        }
        const { storeId } = opened.member;
        asked.delete(storeId);
        if ('read' in opened) return this.#take(opened.read, storeId);
        last = opened.error;
        if (!isTrouble(last) || (asked.size === 0 && !this.hasNext)) throw last;
        this.#tell(last, storeId);
      }
    } finally {
      over.abort('over');
      for (const late of asked.values()) void releaseLater(late);
    }
  }

  /** Whether nothing is to be expected of those that are asked. */
  #watch(asked: ReadonlyMap<string, unknown>, over: AbortSignal): { readonly isStuck: boolean } {
    const seen = { isStuck: false };
    const open = (): readonly { storeId: string }[] =>
      [...asked.keys()].map((storeId) => ({ storeId }));
    const patient = { ...this.#dependencies, limitMs: Infinity };
    void nothingToWaitFor(open, patient, over).then(() => (seen.isStuck = !over.aborted));
    return seen;
  }

  #allHang(stores: readonly string[]): QuorateError {
    const { voters, readers = [] } = this.#repository;
    const hanging = [...voters, ...readers].filter(({ storeId }) => stores.includes(storeId));
    const names = hanging.map(({ nodeId }) => nodeId).join(', ');
    return new QuorateError(
      'unavailable',
      `no storage node with this repository answers: its disk hangs (${names})`,
    );
  }

  /** A damaged copy is never asked beside another store, which may be slow: only when all others have failed. */
  #next(isBeside: boolean): Member | undefined {
    const next = this.#left.find(({ storeId }) => !isBeside || !this.#isDamaged(storeId));
    this.#left = this.#left.filter((member) => member !== next);
    return next;
  }

  /** Whether another store is left to try. */
  get hasNext(): boolean {
    return this.#left.length > 0;
  }

  get snapshot(): RefSnapshot {
    if (this.#open === undefined) throw this.#nobody();
    return this.#open.read.snapshot;
  }

  /** Asks a store, and the next one when that one is in trouble, or late. */
  async ask<T>(question: (read: ReplicaRead) => Promise<T>, options?: Late<T>): Promise<T> {
    for (;;) {
      const read = await this.current();
      const storeId = this.#open?.storeId;
      try {
        return await this.#answerOf(question(read), options);
      } catch (error) {
        if (!this.#mayGoOn(error)) throw error;
        this.#tell(error, storeId);
        read.release();
        if (this.#open?.read === read) this.#open = undefined;
      }
    }
  }

  release(): void {
    this.#released = true;
    this.#open?.read.release();
  }

  async #openAt(member: Member): Promise<Opened> {
    try {
      const { id } = this.#repository;
      const eventual = this.#eventual;
      return { member, read: await member.replica.read(id, this.#generation, { eventual }) };
    } catch (error) {
      return { member, error };
    }
  }

  #take(read: ReplicaRead, storeId: string): ReplicaRead {
    if (this.#released) read.release();
    this.#open = { read, storeId };
    this.#generation = Math.max(this.#generation, read.snapshot.generation);
    // A reader that is further may have jumped over that generation, and lack what only it had.
    this.#left = this.#left.filter((one) => this.#isVoter(one.storeId));
    return read;
  }

  /** `deadline-exceeded` when it is late and another store may be quicker, as soon as there is one. */
  async #answerOf<T>(
    answer: Promise<T>,
    { waitMs = patienceMs, fromMemory = false, giveUp, discard = () => undefined }: Late<T> = {},
  ): Promise<T> {
    if (!this.hasNext) return answer;
    const over = new AbortController();
    try {
      const found = answer.then((value) => ({ value }));
      do {
        const first = await this.#inTime(found, over.signal, waitMs);
        if (first !== undefined) {
          if (!fromMemory) this.#answered();
          return first.value;
        }
      } while (!this.#hasQuicker());
    } finally {
      over.abort('over');
    }
    if (this.#open !== undefined) this.#late(this.#open.storeId, waitMs);
    void answer.then(discard, () => undefined);
    giveUp?.();
    throw new QuorateError('deadline-exceeded', 'the storage node did not answer in time');
  }

  /**
   * None that is damaged, or hangs by its own word: a store that is only slow is better. Nor one that kept others waiting,
   * unless this one hangs.
   */
  #hasQuicker(): boolean {
    const { late, replicas } = this.#dependencies;
    const hanging = hangingStores(replicas);
    const isStuck = this.#open !== undefined && hanging.has(this.#open.storeId);
    return this.#left.some(({ storeId }) => {
      if (hanging.has(storeId) || this.#isDamaged(storeId)) return false;
      return isStuck || late?.has(storeId, this.#repository.id) !== true;
    });
  }

  #isDamaged(storeId: string): boolean {
    return this.#dependencies.damages?.has(this.#repository.id, storeId) === true;
  }

  #inTime<T>(answer: Promise<T>, over: AbortSignal, waitMs = patienceMs): Promise<T | undefined> {
    const { clock } = this.#dependencies;
    return Promise.race([answer, clock.sleep(waitMs, over).then(() => undefined)]);
  }

  #nobody(): QuorateError {
    return nobodyReachable(this.#dependencies.replicas, this.#repository.voters);
  }

  #isVoter(storeId: string): boolean {
    return this.#repository.voters.some((voter) => voter.storeId === storeId);
  }

  #mayGoOn(error: unknown): boolean {
    return this.hasNext && isTrouble(error);
  }

  #answered(): void {
    if (this.#open !== undefined) this.#dependencies.late?.answered(this.#open.storeId);
  }

  #late(store: string, waitedMs: number): void {
    const { id: repositoryId } = this.#repository;
    this.#dependencies.late?.note(store, { repositoryId, waitedMs });
  }

  #tell(error: unknown, store?: string): void {
    this.#dependencies.logger.warn(
      { component: 'read', repo: this.#repository.id, store, err: error },
      'a read goes to another storage node',
    );
  }
}

/** Another store may do better. */
function isTrouble(error: unknown): boolean {
  return storeTroubles.has(asQuorateError(error).code);
}

async function releaseLater(opening: Promise<Opened>): Promise<void> {
  const opened = await opening;
  if ('read' in opened) opened.read.release();
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
    return this.#source.ask((read) => read.firstForbiddenWant(wants, visible), {
      waitMs: firstByteMs,
      fromMemory: true,
    });
  }

  objectSizes(oids: readonly string[]): Promise<readonly (number | undefined)[]> {
    return this.#source.ask((read) => read.objectSizes(oids));
  }

  async uploadPack(run: UploadPackRun): Promise<GitStream> {
    // A stream of the client's cannot be read a second time.
    if (!(run.input instanceof Uint8Array) || !this.#source.hasNext) {
      return (await this.#source.current()).uploadPack(run);
    }
    // A git that is late works on, maybe, where a machine is overloaded; it is not to, beside the next one.
    let late = new AbortController();
    return this.#source.ask(
      async (read) => {
        late = new AbortController();
        const signal = AbortSignal.any([run.signal, late.signal]);
        const stream = await read.uploadPack({ ...run, signal });
        await firstByte(stream);
        return stream;
      },
      {
        waitMs: firstByteMs,
        giveUp: () => late.abort('late'),
        discard: (stream) => stream.kill(),
      },
    );
  }

  wholePack(): ReturnType<ReadSession['wholePack']> {
    return this.#source.ask((read) => read.wholePack(), {
      discard: (pack) => void pack?.close().catch(() => undefined),
    });
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
