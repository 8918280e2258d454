import type { Coordinator, KeyValue } from '../contract/coordinator.js';
import type { Clock, Logger, Random } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import { writeFileDurably } from '../git/repository-files.js';
import {
  type ClusterRecord,
  decodeCluster,
  encodeCluster,
  readSeen,
  type SeenRecord,
} from './cluster-record.js';
import { type Witness, Witnesses } from './witnesses.js';

/** Why nothing may be committed. */
export interface Frozen {
  readonly reason: 'went-back' | 'another-store' | 'another-cluster' | 'record-gone' | 'recovered';
  /** One sentence that says what was found, and one that says what to do. */
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

export interface ClusterIdentityOptions {
  readonly coordinator: Coordinator;
  /** Where this process remembers what it saw; beside its data, so that both are lost or kept together. */
  readonly file: string;
  /**
   * The cluster that the store beside that file says it is of; undefined when there is none, or it says nothing. Where
   * the file is lost, another cluster's coordinator is known by it.
   */
  readonly owner?: string | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Default 2 s: a process that was killed has forgotten so much, and an older copy is told so soon, by all who can. */
  readonly checkEveryMs?: number;
}

/**
 * Whether the coordinator still is the one that this process knows: not another cluster's, and no older copy of itself.
 * Nothing may be committed otherwise, since what was acknowledged in between would be overwritten (docs/architecture.md,
 * "coordinator restored from an old backup"). A frozen process stays so until it is started again.
 */
export interface ClusterIdentity {
  readonly id: string;
  readonly incarnation: number;
  /** Undefined as long as all is well. */
  readonly frozen: Frozen | undefined;
  /**
   * The incarnation in which people went on from what froze this process (`reason` is `recovered` then): it takes that
   * over when it is started again. As the last look found.
   */
  readonly recoveredAs: number | undefined;
  /** Notes the revision of an answer that was asked for when `atLeast` had been seen; freezes when it is below. */
  observe(revision: number, atLeast: number): void;
  /** Freezes: what was done at this revision, and stays, is not there. */
  missing(revision: number): void;
  /** The highest revision seen. */
  readonly revision: number;
  /** Of the cluster's record when it was looked at last: with it, nobody has said that this is an older copy. */
  readonly recordRevision: number;
  /** What is known to be there, looked for with each look. */
  readonly witnesses: Witnesses;
  /** Looks at the coordinator now. Fails as its reads do. */
  check(): Promise<void>;
  /**
   * To go on from the coordinator as it is, after the heads have been raised to what the voters hold: advances the
   * incarnation. Every process takes it over when it is started again.
   */
  accept(): Promise<void>;
  /** Writes down what was seen, and looks no more. Idempotent. */
  close(): Promise<void>;
}

/**
 * Compares the coordinator with what this process remembers, and begins to remember when it knows nothing yet. The
 * first process of a cluster makes its id. Throws `failed-precondition` when the coordinator is another cluster's, or
 * knows of none while this process does: then nothing on this disk belongs to it, and recovery must not even begin. An
 * older copy freezes instead, so that reads go on.
 */
export async function openClusterIdentity(
  options: ClusterIdentityOptions,
): Promise<ClusterIdentity> {
  const seen = await readSeen(options.file);
  if (seen === undefined) await refuseStranger(options);
  const identity = new RememberedIdentity(options, seen ?? (await meet(options)));
  await identity.check();
  const { frozen } = identity;
  if (frozen?.reason === 'another-cluster' || frozen?.reason === 'record-gone') {
    throw new QuorateError('failed-precondition', frozen.message, { details: frozen.details });
  }
  await identity.remember();
  identity.watch();
  return identity;
}

const defaultCheckEveryMs = 2_000;

/** Each process says once in an incarnation that this is an older copy; so many in a row are not found by chance. */
const maxRaces = 30;

class RememberedIdentity implements ClusterIdentity {
  readonly #options: ClusterIdentityOptions;
  readonly #stopped = new AbortController();
  readonly witnesses: Witnesses;
  #seen: SeenRecord;
  #recordRevision = 0;
  #remembered: SeenRecord | undefined;
  #isUnwritten = false;
  #frozen: Frozen | undefined;
  /** The incarnation in which that was found. */
  #frozenIn = 0;
  #recoveredAs: number | undefined;
  #watching: Promise<void> | undefined;
  #telling: Promise<void> | undefined;

  constructor(options: ClusterIdentityOptions, seen: SeenRecord) {
    this.#options = options;
    this.#seen = seen;
    this.witnesses = new Witnesses(seen.witness);
  }

  get id(): string {
    return this.#seen.id;
  }

  get incarnation(): number {
    return this.#seen.incarnation;
  }

  get frozen(): Frozen | undefined {
    return this.#recoveredAs === undefined ? this.#frozen : recovered(this.#recoveredAs);
  }

  get recoveredAs(): number | undefined {
    return this.#recoveredAs;
  }

  get revision(): number {
    return this.#seen.revision;
  }

  get recordRevision(): number {
    return this.#recordRevision;
  }

  observe(revision: number, atLeast: number): void {
    if (revision < atLeast && this.#frozen === undefined) {
      this.#freeze(wentBack(revision, atLeast));
      // So that the others know it soon; the periodic look tells them, too.
      this.#telling = this.check().catch(() => undefined);
    }
    if (revision > this.#seen.revision) this.#seen = { ...this.#seen, revision };
  }

  missing(revision: number): void {
    if (this.#frozen !== undefined) return;
    this.#freeze({
      reason: 'went-back',
      message: `the coordinator is an older copy: what was done at revision ${revision} is not there. ${remedy}`,
      details: { missing: revision },
    });
    this.#telling = this.check().catch(() => undefined);
  }

  async check(): Promise<void> {
    const { coordinator } = this.#options;
    const atLeast = this.#seen.revision;
    const witnesses = this.witnesses.all;
    const { clusterId, revision } = await coordinator.identity();
    // Witnesses are often of one key: in a repository that is pushed to, the head that was put, read and there last.
    const wanted = [...new Set([keys.cluster, ...witnesses.map(({ key }) => key)])];
    const found = new Map(
      await Promise.all(wanted.map(async (key) => [key, await coordinator.get(key)] as const)),
    );
    const entry = found.get(keys.cluster);
    const record = entry === undefined ? undefined : decodeCluster(entry.value);
    const takenOver = this.#takeOver(record, { storeId: clusterId, revision });
    const problem = findProblem(this.#seen, record, clusterId);
    if (problem !== undefined) this.#freeze(problem);
    else if (!takenOver) {
      this.#learnRecovery(record);
      this.observe(revision, atLeast);
      this.#compare(witnesses, found);
    }
    this.#noteRecovery(record);
    this.#recordRevision = entry?.modRevision ?? 0;
    if (entry !== undefined && record !== undefined) await this.#tellOthers(entry, record);
  }

  #compare(witnesses: readonly Witness[], found: ReadonlyMap<string, KeyValue | undefined>): void {
    const there: Witness[] = [];
    for (const witness of witnesses) {
      const entry = found.get(witness.key);
      if (entry === undefined) this.witnesses.forget(witness);
      else if (entry.modRevision < witness.revision) this.missing(witness.revision);
      else there.push(witness);
    }
    if (this.#frozen !== undefined) return;
    this.witnesses.settle(there);
    const { settled: witness } = this.witnesses;
    if (witness !== undefined && witness !== this.#seen.witness) {
      this.#seen = { ...this.#seen, witness };
    }
  }

  async accept(): Promise<void> {
    const { coordinator, random } = this.#options;
    const recovery = hexOf(random.bytes(16));
    let before: number | undefined;
    for (let race = 0; race < maxRaces; race++) {
      const { clusterId: storeId, revision } = await coordinator.identity();
      const entry = await coordinator.get(keys.cluster);
      if (entry === undefined) {
        throw new QuorateError('failed-precondition', 'the coordinator knows of no cluster');
      }
      const record = decodeCluster(entry.value);
      if (before !== undefined && record.incarnation !== before) break;
      before = record.incarnation;
      const { id } = record;
      const incarnation = 1 + Math.max(before, this.#seen.incarnation, incarnationTold(record));
      const next = { id, incarnation, recovery };
      // Whoever finds meanwhile that this is an older copy, says so once; what he has seen counts, too.
      if (!(await this.#replace(entry, next))) continue;
      this.witnesses.clear();
      this.#seen = { version: 1, ...next, storeId, revision };
      this.#noteRecovery(next);
      await this.remember();
      return;
    }
    throw new QuorateError('aborted', 'somebody else recovers the cluster');
  }

  /** Whether people have decided since this process froze, and nobody has been frozen since: what is to be done is another thing then. */
  #noteRecovery(record: ClusterRecord | undefined): void {
    const isOurs = record?.id === this.#seen.id && record.frozen === undefined;
    const incarnation = isOurs ? record.incarnation : 0;
    const isRecovered = this.#frozen !== undefined && incarnation > this.#frozenIn;
    const before = this.#recoveredAs;
    this.#recoveredAs = isRecovered ? incarnation : undefined;
    if (this.#recoveredAs === undefined || this.#recoveredAs === before) return;
    const { message, details } = recovered(incarnation);
    this.#options.logger.warn({ component: 'cluster', ...details }, message);
  }

  /** What a process of an earlier version did not write down. */
  #learnRecovery(record: ClusterRecord | undefined): void {
    const { incarnation, recovery } = this.#seen;
    if (record?.recovery === undefined || recovery !== undefined) return;
    if (record.incarnation !== incarnation) return;
    this.#seen = { ...this.#seen, recovery: record.recovery };
  }

  /** Of an older copy of our own cluster only: another cluster's record is nothing of ours. */
  async #tellOthers(entry: KeyValue, record: ClusterRecord): Promise<void> {
    const { reason, message } = this.#frozen ?? {};
    if (message === undefined || record.id !== this.#seen.id) return;
    if (reason !== 'went-back' && reason !== 'another-store') return;
    // People have decided since, and this process has not been started again yet.
    if (record.frozen === undefined && record.incarnation > this.#frozenIn) return;
    const { incarnation } = this.#seen;
    if (record.frozen !== undefined && incarnationTold(record) >= incarnation) return;
    const told = record.frozen?.message ?? message;
    // When somebody else has changed it, the next look tells.
    await this.#replace(entry, { ...record, frozen: { message: told, incarnation } });
  }

  async #replace(entry: KeyValue, record: ClusterRecord): Promise<boolean> {
    const { key, modRevision } = entry;
    const { succeeded } = await this.#options.coordinator.transaction({
      compares: [{ key, target: 'modRevision', op: '=', operand: modRevision }],
      success: [{ type: 'put', key, value: encodeCluster(record) }],
      failure: [],
    });
    return succeeded;
  }

  async close(): Promise<void> {
    this.#stopped.abort();
    await this.#watching;
    await this.#telling;
    await this.remember();
  }

  /**
   * Durable on return. A full disk is no reason not to start or to stop: what is remembered is then a little older,
   * and the next look tries again.
   */
  async remember(): Promise<void> {
    const seen = this.#seen;
    if (this.#remembered === seen) return;
    try {
      await writeFileDurably(this.#options.file, `${JSON.stringify(seen)}\n`);
      this.#remembered = seen;
      this.#isUnwritten = false;
    } catch (error) {
      const { logger, file } = this.#options;
      const told = { component: 'cluster', file, err: error };
      // Once, for as long as it lasts.
      if (!this.#isUnwritten) logger.warn(told, 'what was seen cannot be written');
      this.#isUnwritten = true;
    }
  }

  watch(): void {
    this.#watching = this.#watch();
  }

  async #watch(): Promise<void> {
    const { clock, logger, checkEveryMs = defaultCheckEveryMs } = this.#options;
    for (;;) {
      await clock.sleep(checkEveryMs, this.#stopped.signal);
      if (this.#stopped.signal.aborted) return;
      try {
        await this.check();
        await this.remember();
      } catch (error) {
        // The next look may succeed; meanwhile whatever needs the coordinator fails by itself.
        logger.debug(
          { component: 'cluster', err: error },
          'the coordinator could not be looked at',
        );
      }
    }
  }

  /** At the start only: people have decided, and this process was not there. */
  #takeOver(
    record: ClusterRecord | undefined,
    store: Pick<SeenRecord, 'storeId' | 'revision'>,
  ): boolean {
    if (record === undefined || this.#watching !== undefined) return false;
    if (record.id !== this.#seen.id || record.incarnation <= this.#seen.incarnation) return false;
    const { id, incarnation, recovery } = record;
    this.#options.logger.warn({ component: 'cluster', incarnation }, 'a recovery is taken over');
    this.witnesses.clear();
    this.#seen = { version: 1, id, incarnation, recovery, ...store };
    return true;
  }

  #freeze(problem: Frozen): void {
    if (this.#frozen !== undefined) return;
    this.#frozen = problem;
    this.#frozenIn = this.#seen.incarnation;
    const { reason, message, details } = problem;
    this.#options.logger.error({ component: 'cluster', reason, ...details }, message);
  }
}

/** Before anything is written, here or there: a disk that has lost its memory, and not its owner, goes nowhere else. */
async function refuseStranger({ coordinator, owner }: ClusterIdentityOptions): Promise<void> {
  if (owner === undefined) return;
  const entry = await coordinator.get(keys.cluster);
  const record = entry === undefined ? undefined : decodeCluster(entry.value);
  if (record?.id === owner) return;
  const { message, details } = record === undefined ? recordGone(owner) : another(owner, record);
  throw new QuorateError('failed-precondition', message, { details });
}

/** First contact of this disk with its coordinator. */
async function meet({ coordinator, random }: ClusterIdentityOptions): Promise<SeenRecord> {
  const made: ClusterRecord = {
    id: hexOf(random.bytes(16)),
    incarnation: 1,
  };
  // Repeated without harm: whichever was first stays.
  for (;;) {
    const entry = await coordinator.get(keys.cluster);
    if (entry !== undefined) {
      const { clusterId, revision } = await coordinator.identity();
      const { id, incarnation, recovery } = decodeCluster(entry.value);
      return { version: 1, id, incarnation, recovery, storeId: clusterId, revision };
    }
    try {
      await coordinator.transaction({
        compares: [{ key: keys.cluster, target: 'createRevision', op: '=', operand: 0 }],
        success: [{ type: 'put', key: keys.cluster, value: encodeCluster(made) }],
        failure: [],
      });
    } catch (error) {
      if (!(error instanceof QuorateError && error.code === 'outcome-unknown')) throw error;
    }
  }
}

function findProblem(
  seen: SeenRecord,
  record: ClusterRecord | undefined,
  storeId: string,
): Frozen | undefined {
  if (record === undefined) return recordGone(seen.id);
  if (record.id !== seen.id) return another(seen.id, record);
  if (record.frozen !== undefined) {
    const { message } = record.frozen;
    return { reason: 'went-back', message, details: { incarnation: record.incarnation } };
  }
  if (record.incarnation < seen.incarnation) {
    return {
      reason: 'went-back',
      message: `the coordinator is an older copy: incarnation ${record.incarnation} after ${seen.incarnation}. ${remedy}`,
      details: { incarnation: record.incarnation, seen: seen.incarnation },
    };
  }
  // Whoever made it did not know of the one that was seen: what was acknowledged since that is not looked for by it.
  if (isAnotherRecovery(seen, record)) {
    return {
      reason: 'went-back',
      message: `the coordinator is an older copy: incarnation ${seen.incarnation} of another recovery than was seen. ${remedy}`,
      details: { incarnation: record.incarnation, seen: seen.incarnation },
    };
  }
  if (storeId !== seen.storeId) {
    return {
      reason: 'another-store',
      message: `the coordinator is a copy: etcd cluster ${storeId} instead of ${seen.storeId}. ${remedy}`,
      details: { store: storeId, seen: seen.storeId },
    };
  }
  return undefined;
}

function isAnotherRecovery(seen: SeenRecord, record: ClusterRecord): boolean {
  if (record.incarnation !== seen.incarnation || seen.recovery === undefined) return false;
  return record.recovery !== seen.recovery;
}

/** The highest that somebody has seen who found that this is an older copy; 0: nobody has. */
function incarnationTold({ frozen }: ClusterRecord): number {
  return frozen === undefined ? 0 : (frozen.incarnation ?? 0);
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

const remedy =
  'Nothing is committed, since pushes that were acknowledged in between may be missing: stop all servers and put the ' +
  'latest copy of the coordinator back, or have an administrator run quorate recover';

function recovered(incarnation: number): Frozen {
  return {
    reason: 'recovered',
    message:
      'the coordinator was an older copy, and a recovery from it was applied since: start this process again, which ' +
      'commits nothing until then (quorate recover names all that are to be)',
    details: { incarnation },
  };
}

function wentBack(revision: number, seen: number): Frozen {
  return {
    reason: 'went-back',
    message: `the coordinator is an older copy: revision ${revision} after ${seen}. ${remedy}`,
    details: { revision, seen },
  };
}

function recordGone(id: string): Frozen {
  return {
    reason: 'record-gone',
    message:
      `this data belongs to the cluster ${id}, and the coordinator knows of no cluster: point coordinator and ` +
      'etcd.prefix to the one it was used with, or restore that from its backup, or choose another data directory',
    details: { cluster: id },
  };
}

function another(id: string, record: ClusterRecord): Frozen {
  return {
    reason: 'another-cluster',
    message:
      `this data belongs to the cluster ${id}, and the coordinator to the cluster ${record.id}: point ` +
      'coordinator and etcd.prefix to the one it was used with, or choose another data directory',
    details: { cluster: id, found: record.id },
  };
}
