import type { QuorateError } from '../../backends/contract/errors.js';
import type { Principal } from '../auth/principal.js';
import type { HttpRefusal } from './error-map.js';
import type { GitReply } from './git-reply.js';
import { type HttpRequest, type HttpResponse, unreadBytes } from './http-message.js';
import type { RequestBody } from './request-body.js';

/** One request and its answer, from headers to log line. */
export class HttpExchange {
  readonly request: HttpRequest;
  readonly response: HttpResponse;
  readonly requestId: string;
  readonly startedAtMs: number;
  readonly remoteAddress: string;
  principal: Principal = { kind: 'anonymous' };
  /** Once it is known which repository is asked for, and that the client may. */
  repositoryId: string | undefined;
  body: RequestBody | undefined;
  reply: GitReply | undefined;
  /** Bytes of a request and of an answer that went without streams. */
  takenBytes = 0;
  givenBytes = 0;
  #controller: AbortController | undefined;
  #stopped: HttpRefusal | QuorateError | undefined;

  constructor(
    request: HttpRequest,
    response: HttpResponse,
    facts: { readonly requestId: string; readonly startedAtMs: number },
  ) {
    this.request = request;
    this.response = response;
    this.requestId = facts.requestId;
    this.startedAtMs = facts.startedAtMs;
    this.remoteAddress = request.socket.remoteAddress ?? '';
  }

  /** Aborted when the client is gone, at the time limits, or at the end of a drain. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#stopped !== undefined) this.#controller.abort(this.#stopped);
    return this.#controller.signal;
  }

  get receivedBytes(): number {
    return this.body?.receivedBytes ?? this.takenBytes;
  }

  get sentBytes(): number {
    return this.reply?.sentBytes ?? this.givenBytes;
  }

  /** Why it was stopped from outside, if it was. */
  get stopped(): HttpRefusal | QuorateError | undefined {
    return this.#stopped;
  }

  /** True while nothing goes on because of the client: it does not send what it announced, or does not read. */
  get waitsForClient(): boolean {
    return this.body?.waitsForClient === true || unreadBytes(this.request, this.response) > 0;
  }

  /** Ends what runs. Whoever serves it still answers, when nothing was sent yet. The first reason counts. */
  stop(reason: HttpRefusal | QuorateError): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = reason;
    this.#controller?.abort(reason);
    this.body?.destroy(reason);
    this.reply?.destroy(reason);
  }
}
