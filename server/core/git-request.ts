import type { Writable } from 'node:stream';
import type { Repository } from '../../backends/contract/repository.js';
import type { Principal } from '../auth/principal.js';
import type { ClientStream } from './client-input.js';

export type GitServiceName = 'git-upload-pack' | 'git-receive-pack' | 'git-upload-archive';

/** What a listener makes of its protocol. Knows no HTTP and no SSH. */
export interface GitRequest {
  readonly requestId: string;
  readonly service: GitServiceName;
  /** As the client wrote it, percent-decoded once, with or without leading `/` and `.git`. Hostile. */
  readonly path: string;
  readonly principal: Principal;
  readonly transport: 'http' | 'ssh';
  readonly remoteAddress: string;
  /** From `Git-Protocol` / `GIT_PROTOCOL`; anything unknown is 0. */
  readonly protocol: 0 | 1 | 2;
  /**
   * `advertise`: only the advertisement: the whole answer of `GET info/refs`, over HTTP with its `# service=` line
   * (gitprotocol-http(5); v2 has none). `stateless`: one request without advertisement (HTTP POST).
   * `session`: advertisement, then the conversation (SSH).
   */
  readonly mode: 'advertise' | 'stateless' | 'session';
  /** The mark of the hook that the client is (`backends/contract/within-push.ts`). Hostile. */
  readonly withinPush?: string | undefined;
  /** The client wants to see at least this generation (a webhook's `readToken`, an earlier answer's). */
  readonly atLeast?: number;
  /** Told the generation that is read or was made, before anything of the answer is written if it is known by then. */
  readonly onGeneration?: (generation: number) => void;
  /**
   * Told, before anything of the answer is written, that it is served from what was read before, since the coordinator
   * has not answered for so long.
   */
  readonly onRecalled?: (lostForMs: number) => void;
  /** What `foresee` began for this request. */
  readonly foresight?: Foresight | undefined;
  /** Aborted when the client is gone, on drain's end, or at the time limits. */
  readonly signal: AbortSignal;
  /** Told when the request begins and ends to wait for others: its silence is ours then, and not its client's. */
  readonly onHold?: (held: boolean) => void;
}

/** A repository that is being looked up for a request before it is known who asks. */
export interface Foresight {
  readonly name: string;
  /** On the monotonic clock: what is found is as it was then, or later. */
  readonly beganMs: number;
  /** A rejection that nobody looks at is no trouble. */
  readonly repository: Promise<Repository | undefined>;
}

/** What the listener logs and counts when an exchange is over. */
export interface GitOutcome {
  /** `ok`, `refused` (the protocol told the client no), or `error`. */
  readonly status: 'ok' | 'refused' | 'error';
  /** Exit status for SSH: 0 for ok and for refused refs that were reported, else 1 or 128 as git does. */
  readonly exitCode: number;
  /** Facts for the log line: refs updated, generation, wants, ... */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** A whole answer that was in memory. */
export interface KnownAnswer {
  /** Its bytes, as latin1. */
  readonly text: string;
  readonly outcome: GitOutcome;
}

/** An authorised request on a resolved repository. */
export interface GitExchange {
  /** Of the repository, for the log; undefined when the push is to create it. */
  readonly repositoryId?: string | undefined;
  /**
   * The answer to a small request that came whole, when it is known already: as fresh as what `run` would answer, in
   * a fraction of its time. Undefined when `run` has to answer. Never rejects: what is wrong `run` will tell.
   */
  known(request: Buffer): Promise<KnownAnswer | undefined>;
  /**
   * Talks git with the client. Rejects with a QuorateError only before the first byte was written to `output`; later
   * trouble is told in the protocol's own form (`ERR` packet, side-band 3, `ng`) and shows in the outcome.
   * Writes with back-pressure and does not end `output`. Consumes or abandons `input`; the listener drains it.
   */
  run(input: ClientStream, output: Writable): Promise<GitOutcome>;
}

/** What of a request says what will be looked up for it. */
export type Foreseen = Pick<GitRequest, 'service' | 'mode' | 'protocol'>;

/** The flow all listeners share: name -> authorise -> resolve -> serve. */
export interface GitService {
  /**
   * Rejects with `unauthenticated`, `permission-denied`, `not-found`, `invalid-argument`, `unavailable`,
   * `resource-exhausted`. Nothing was written by then, so the listener can still answer in its own form.
   */
  open(request: GitRequest): Promise<GitExchange>;
  /**
   * Begins to look up what a request is about, in the turn of the main loop in which it is asked who its client is: one
   * request to the coordinator instead of two, one after the other. Who may not see the repository learns nothing of
   * it: `open` decides as ever. Undefined when there is nothing to look up.
   */
  foresee?(request: Foreseen & Pick<GitRequest, 'path'>): Foresight | undefined;
}
