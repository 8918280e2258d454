import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { IResponseHeader } from 'etcd3';
import type { Clock } from '../../contract/environment.js';
import { asQuorateError, QuorateError, refuseCancelled } from '../../contract/errors.js';
import { judgeError, refusalOf, unknownOf } from './etcd-errors.js';
import { LeaderWatch } from './leader-watch.js';
import { defaultAnswerMs, type EtcdSettings } from './etcd-settings.js';
import { MemberClient } from './member-client.js';

const defaultPatienceMs = 5_000;
/** A connection on one machine or in one region takes milliseconds; behind it another member waits to be asked. */
const connectTimeoutMs = 300;
/** Pauses grow by this up to the longest, so that 1,000 waiting requests ask less than 10,000 times a second. */
const pauseStepMs = 30;
const longestPauseMs = 150;

/** Longer than any request; a watch that is cut off then lists anew. */
const retiredMs = 30_000;
/** How long a process that stops waits for members of which none says anything: others wait for it to be gone. */
const leavingPatienceMs = 1_500;
const leavingCheckMs = 100;

export interface Attempt {
  readonly signal?: AbortSignal | undefined;
  /** Default: the settings'. */
  readonly patienceMs?: number;
}

interface Answer {
  readonly header: IResponseHeader;
}

/**
 * The members of one etcd cluster. Requests go to one of them as long as it answers, then to the next. Every answer's
 * header is looked at: it must come from the same cluster, and its revision is remembered.
 */
export class MemberPool {
  /** The members' addresses, for messages. */
  readonly where: string;
  #members: readonly MemberClient[];
  readonly #settings: EtcdSettings;
  /** Connections with certificates of before, for what still runs on them. */
  readonly #retired = new Map<NodeJS.Timeout, readonly MemberClient[]>();
  readonly #leaders: LeaderWatch;
  readonly #patienceMs: number;
  #preferred: number;
  #clusterId: string | undefined;
  #revision = 0;
  #closed = false;
  /** Requests that run, and answers that came. */
  #running = 0;
  #answers = 0;
  #leaving = false;

  constructor(settings: EtcdSettings) {
    this.#settings = settings;
    this.where = settings.endpoints.join(', ');
    this.#members = settings.endpoints.map((endpoint) => new MemberClient(endpoint, settings));
    this.#patienceMs = settings.patienceMs ?? defaultPatienceMs;
    this.#leaders = new LeaderWatch(settings.answerMs ?? defaultAnswerMs);
    // Processes spread over the members.
    this.#preferred = randomInt(this.#members.length);
  }

  get members(): readonly MemberClient[] {
    return this.#members;
  }

  /** The latest revision that any answer told. */
  get revision(): number {
    return this.#revision;
  }

  /** Id of the cluster, once something was answered. */
  get clusterId(): string | undefined {
    return this.#clusterId;
  }

  close(): void {
    this.#closed = true;
    for (const [timer, members] of this.#retired) {
      clearTimeout(timer);
      for (const member of members) member.close();
    }
    for (const member of this.#members) member.close();
  }

  /**
   * The process stops: from now on, whenever requests have run for 1.5 s and no member answers any, the pool closes. All
   * requests share that wait, however many come one after the other. Idempotent.
   */
  leave(clock: Clock): void {
    if (this.#leaving) return;
    this.#leaving = true;
    void this.#closeWhenSilent(clock);
  }

  /** From now on connections are made with these certificates. Those that there are close when no request is on them. */
  renew(tls: EtcdSettings['tls']): void {
    if (this.#closed || tls === undefined) return;
    const before = this.#members;
    const settings = { ...this.#settings, tls };
    this.#members = settings.endpoints.map((endpoint) => new MemberClient(endpoint, settings));
    const timer = setTimeout(() => {
      this.#retired.delete(timer);
      for (const member of before) member.close();
    }, retiredMs).unref();
    this.#retired.set(timer, before);
  }

  /** For requests that may be done twice. Fails with `unavailable`, or as `refusalOf` says. */
  async repeat<T extends Answer>(
    request: (member: MemberClient) => Promise<T>,
    attempt: Attempt = {},
  ): Promise<T> {
    return this.#untilTaken(attempt, async (member) => {
      try {
        return await this.#ask(member, request);
      } catch (error) {
        if (judgeError(error) === 'refused') throw error;
        throw new NotTaken(error);
      }
    });
  }

  /**
   * For requests that must not be done twice. It is sent again only after an answer that says that it was not taken;
   * any other loss of the answer fails with `outcome-unknown`.
   */
  async once<T extends Answer>(request: (member: MemberClient) => Promise<T>): Promise<T> {
    return this.#untilTaken({}, async (member) => {
      let answer: T;
      try {
        answer = await this.#leaders.guard(member, () => request(member));
      } catch (error) {
        switch (judgeError(error)) {
          case 'refused':
            throw error;
          case 'not-taken':
            throw new NotTaken(error);
          case 'unknown':
            this.avoid(member);
            throw unknownOf(error, this.where);
        }
      }
      try {
        this.#note(member, answer);
      } catch (error) {
        // It was taken all the same, by another cluster than the one that it was meant for.
        const { message } = asQuorateError(error);
        throw new QuorateError('outcome-unknown', message, { cause: error });
      }
      return answer;
    });
  }

  /** A member that has a connection, or undefined when none has. Fails as signing in to the last one did. */
  async connected(): Promise<MemberClient | undefined> {
    for (let i = 0; i < this.#members.length; i += 1) {
      const member = this.#members[this.#preferred];
      if (member === undefined) return undefined;
      try {
        if (await member.ready(connectTimeoutMs)) return member;
      } catch (error) {
        // One that is cut off from the others signs nobody in.
        this.avoid(member);
        throw error;
      }
      this.avoid(member);
    }
    return undefined;
  }

  /** The next requests go elsewhere. */
  avoid(member: MemberClient): void {
    if (this.#members[this.#preferred] !== member) return;
    this.#preferred = (this.#preferred + 1) % this.#members.length;
  }

  /** Notes what the header of an answer tells. Fails when another cluster gave it. */
  observe(header: IResponseHeader): void {
    this.#clusterId ??= header.cluster_id;
    if (header.cluster_id !== this.#clusterId) {
      throw new QuorateError(
        'failed-precondition',
        `the coordinator at ${this.where} answers as etcd cluster ${header.cluster_id}, and was cluster ` +
          `${this.#clusterId} before: name the members of one cluster, and restart after a restore`,
        { details: { clusterId: header.cluster_id, before: this.#clusterId } },
      );
    }
    this.#revision = Math.max(this.#revision, Number(header.revision));
  }

  /** Counted in steps: a process that stood still itself has not waited for anybody. */
  async #closeWhenSilent(clock: Clock): Promise<void> {
    let answers = this.#answers;
    for (let silentMs = 0; !this.#closed;) {
      await clock.sleep(leavingCheckMs);
      const isSilent = this.#running > 0 && this.#answers === answers;
      answers = this.#answers;
      silentMs = isSilent ? silentMs + leavingCheckMs : 0;
      if (silentMs >= leavingPatienceMs) this.close();
    }
  }

  async #ask<T extends Answer>(
    member: MemberClient,
    request: (member: MemberClient) => Promise<T>,
  ): Promise<T> {
    const answer = await this.#leaders.guard(member, () => request(member));
    this.#note(member, answer);
    return answer;
  }

  #note(member: MemberClient, { header }: Answer): void {
    this.#answers += 1;
    this.observe(header);
    this.#leaders.observe(member, Number(header.raft_term));
  }

  async #untilTaken<T>(attempt: Attempt, send: (member: MemberClient) => Promise<T>): Promise<T> {
    this.#running += 1;
    try {
      return await this.#tryUntilTaken(attempt, send);
    } finally {
      this.#running -= 1;
    }
  }

  async #tryUntilTaken<T>(
    attempt: Attempt,
    send: (member: MemberClient) => Promise<T>,
  ): Promise<T> {
    const deadlineMs = performance.now() + (attempt.patienceMs ?? this.#patienceMs);
    let last: unknown = new Error('no member accepts connections');
    for (let pauseMs = pauseStepMs; ; pauseMs = Math.min(pauseMs + pauseStepMs, longestPauseMs)) {
      if (this.#closed) throw new QuorateError('unavailable', 'the coordinator is closed');
      if (attempt.signal !== undefined) refuseCancelled(attempt.signal);
      try {
        const member = await this.connected();
        if (member !== undefined) {
          try {
            return await send(member);
          } catch (error) {
            if (!(error instanceof NotTaken)) throw error;
            last = error.cause;
            this.avoid(member);
          }
        }
      } catch (error) {
        if (error instanceof QuorateError) throw error;
        // Connecting itself fails only while signing in to etcd.
        if (judgeError(error) === 'refused') throw refusalOf(error, this.where);
        last = error;
      }
      if (performance.now() + pauseMs > deadlineMs) throw refusalOf(last, this.where);
      await sleep(pauseMs);
    }
  }
}

/** Nothing happened, or nothing that matters when it happens again. */
class NotTaken extends Error {
  constructor(cause: unknown) {
    super('not taken', { cause });
  }
}
