import { setTimeout as sleep } from 'node:timers/promises';
import { judgeError } from './etcd-errors.js';
import type { MemberClient } from './member-client.js';

/** A healthy cluster has answered long before; even one that is busy has, mostly. */
const slowMs = 150;
const pollMs = 75;
const pollDeadlineMs = 300;
/** A request that the member refuses is answered by then: that it was not taken is worth more than to be quick. */
const ownAnswerMs = 100;
/** A term that was told longer ago says little: then the member is asked when the request is sent. */
const freshMs = 500;
/** After a failure requests are looked after from their beginning, for the time of an election and more. */
const troubleMs = 5_000;

/**
 * Polls in a row that a member may leave unanswered, of as many as fit into the wait for an answer: one may be the fault
 * of this process' own busy main loop.
 */
const silentShare = 1 / 4;

/** The request's answer will hardly come: its member hangs, or has another leader than when it was sent, or none. */
export class AnswerGivenUp extends Error {}

interface Waiter {
  readonly member: MemberClient;
  /** The member's term when the request was sent, as far as it was known. */
  term: number | undefined;
  readonly sentMs: number;
  silentPolls: number;
  readonly reject: (error: AnswerGivenUp) => void;
}

/**
 * Gives up waiting for answers that will hardly come. A member that does not know yet that its leader is dead takes
 * requests and loses them; waiting for a deadline of 800 ms each made writes pause for up to 2.5 s after a leader's
 * death, of which the election took 1.3, while a deadline that is shorter than a busy disk loses answers every day. So
 * a request that is slow has its member asked for its term, which the member answers by itself: when the term has moved
 * on, or the member is silent, the request is given up. (That says nothing of whether it happened.)
 */
export class LeaderWatch {
  readonly #terms = new WeakMap<MemberClient, { readonly term: number; readonly atMs: number }>();
  readonly #waiters = new Set<Waiter>();
  readonly #maxSilentPolls: number;
  #polling = false;
  #troubledUntilMs = 0;

  /** `answerMs`: the longest wait for one answer. */
  constructor(answerMs: number) {
    this.#maxSilentPolls = (answerMs * silentShare) / (pollMs + pollDeadlineMs);
  }

  /** Notes the term that an answer of the member told. */
  observe(member: MemberClient, term: number): void {
    this.#terms.set(member, { term, atMs: performance.now() });
  }

  /** The answer, or `AnswerGivenUp`. */
  async guard<T>(member: MemberClient, request: () => Promise<T>): Promise<T> {
    const nowMs = performance.now();
    const told = this.#terms.get(member);
    const term = told !== undefined && nowMs - told.atMs < freshMs ? told.term : undefined;
    let waiter: Waiter | undefined;
    let timer: NodeJS.Timeout | undefined;
    const changed = new Promise<never>((_, reject) => {
      const wait = (): void => {
        waiter = { member, term, sentMs: nowMs, silentPolls: 0, reject };
        this.#waiters.add(waiter);
        if (!this.#polling) void this.#poll();
      };
      if (term === undefined || nowMs < this.#troubledUntilMs) wait();
      else timer = setTimeout(wait, slowMs);
    });
    try {
      return await Promise.race([request(), changed]);
    } catch (error) {
      if (judgeError(error) !== 'refused') this.#troubledUntilMs = performance.now() + troubleMs;
      throw error;
    } finally {
      clearTimeout(timer);
      if (waiter !== undefined) this.#waiters.delete(waiter);
    }
  }

  async #poll(): Promise<void> {
    this.#polling = true;
    while (this.#waiters.size > 0) {
      const members = new Set([...this.#waiters].map(({ member }) => member));
      await Promise.all([...members].map((member) => this.#ask(member)));
      if (this.#waiters.size > 0) await sleep(pollMs);
    }
    this.#polling = false;
  }

  async #ask(member: MemberClient): Promise<void> {
    let answer: number | 'no leader' | 'silent';
    try {
      answer = Number((await member.askStatus(pollDeadlineMs)).header.raft_term);
    } catch (error) {
      answer = judgeError(error) === 'not-taken' ? 'no leader' : 'silent';
    }
    for (const waiter of this.#waiters) {
      if (waiter.member === member) this.#judge(waiter, answer);
    }
  }

  #judge(waiter: Waiter, answer: number | 'no leader' | 'silent'): void {
    if (answer === 'silent') {
      waiter.silentPolls += 1;
      if (waiter.silentPolls < this.#maxSilentPolls) return;
      waiter.reject(new AnswerGivenUp('a member of etcd hangs'));
      return;
    }
    waiter.silentPolls = 0;
    if (answer !== 'no leader') waiter.term ??= answer;
    const own = performance.now() - waiter.sentMs < ownAnswerMs;
    if (own || answer === waiter.term) return;
    waiter.reject(new AnswerGivenUp('the leader of etcd changed'));
  }
}
