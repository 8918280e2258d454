import { type OutgoingHttpHeaders, sensitiveHeaders } from 'node:http2';
import * as grpc from '@grpc/grpc-js';
import { noop } from 'cockatiel';
import {
  Etcd3,
  EtcdInvalidAuthTokenError,
  type IOptions,
  type IRangeRequest,
  type IResponseHeader,
  type ITxnRequest,
} from 'etcd3';
import {
  decodeHeader,
  decodeRange,
  decodeTxn,
  encodeRange,
  encodeTxn,
  type RangePage,
  type TxnAnswer,
} from './kv-messages.js';
import { UnaryChannel } from './unary-channel.js';

/** How to reach an etcd cluster. Plain data: it is handed to the thread that keeps leases alive. */
export interface EtcdSettings {
  /** `HOST:PORT` of the members, an IPv6 address in brackets. At least one; those of one cluster. */
  readonly endpoints: readonly string[];
  /** Every key begins with it, so that one etcd can serve several clusters and other programs. May be empty. */
  readonly prefix: string;
  /** TLS is spoken exactly when this is given. PEM. */
  readonly tls?: {
    readonly ca: Uint8Array;
    readonly cert?: Uint8Array;
    readonly key?: Uint8Array;
  };
  /**
   * How long a request that may be repeated, or was not taken yet, is tried. Default 5,000: several elections at etcd's
   * own timeouts (one takes 1 to 2 s).
   */
  readonly patienceMs?: number;
  readonly auth?: { readonly user: string; readonly password: string };
}

/**
 * Longest wait for one answer. A healthy member answers in milliseconds, one with a busy disk in a second or two. That
 * a member hangs, or has lost its leader, is noticed sooner (`LeaderWatch`): etcd itself would hold a request for seven
 * seconds then.
 */
const callDeadlineMs = 3_000;
/** A connection that has said nothing for so long is asked whether it lives; etcd allows 5 s and more. */
const keepaliveTimeMs = 6_000;
const keepaliveTimeoutMs = 2_000;
/** A member that was started again is found soon; gRPC's own back-off would reach two minutes. */
const firstReconnectMs = 50;
const lastReconnectMs = 500;
/** Pages of ranges and transactions' reads are far below this; a bound against a mistake. */
const maxAnswerBytes = 256 * 1024 * 1024;

const rangePath = '/etcdserverpb.KV/Range';
const txnPath = '/etcdserverpb.KV/Txn';
const statusPath = '/etcdserverpb.Maintenance/Status';

interface Ask {
  readonly path: string;
  readonly message: Uint8Array;
  /** Default: true. False: a member without a leader may answer, too. */
  readonly leader?: boolean;
  readonly timeoutMs?: number;
}

/**
 * A client of one member of etcd, without any fault handling of its own: which member is asked, and whether again, is
 * decided in one place, `MemberPool`. etcd3's own pool picks members by chance, dead ones too, and cannot say whether
 * a request was sent. What is asked all the time (ranges, transactions, a member's status) goes over
 * Node's HTTP/2 as it is, at half the price; leases, watches and signing in go through etcd3.
 */
export class MemberClient extends Etcd3 {
  readonly endpoint: string;
  readonly #auth: EtcdSettings['auth'];
  readonly #channel: UnaryChannel;
  #token: Promise<string> | undefined;

  constructor(endpoint: string, settings: EtcdSettings) {
    super(clientOptions(endpoint, settings));
    this.endpoint = endpoint;
    this.#auth = settings.auth;
    this.#channel = new UnaryChannel({ endpoint, tls: settings.tls });
  }

  /**
   * Whether there is a connection to send a request on, within `timeoutMs` if one has to be made. Fails when etcd
   * refuses the user. Nothing of a request was sent while this says no.
   */
  async ready(timeoutMs: number): Promise<boolean> {
    const isReady = await this.#channel.ready(timeoutMs);
    if (isReady && this.#auth !== undefined) await this.#signedIn(this.#auth);
    return isReady;
  }

  async askRange(
    request: IRangeRequest,
    { leader = true }: { readonly leader?: boolean } = {},
  ): Promise<RangePage> {
    const message = encodeRange(request);
    return decodeRange(await this.#ask({ path: rangePath, message, leader }));
  }

  async askTransaction(request: ITxnRequest): Promise<TxnAnswer> {
    return decodeTxn(await this.#ask({ path: txnPath, message: encodeTxn(request) }));
  }

  /** The member answers by itself, whoever else is there; with its leader, as far as it knows of one. */
  async askStatus(timeoutMs?: number): Promise<{ readonly header: IResponseHeader }> {
    const message = Buffer.alloc(0);
    const longest = timeoutMs === undefined ? {} : { timeoutMs };
    return decodeHeader(await this.#ask({ path: statusPath, message, ...longest }));
  }

  override close(): void {
    super.close();
    this.#channel.close();
  }

  async #ask(ask: Ask): Promise<Buffer> {
    const auth = this.#auth;
    if (auth === undefined) return this.#send(ask, undefined);
    const token = await this.#signedIn(auth);
    try {
      return await this.#send(ask, token);
    } catch (error) {
      if (!(error instanceof EtcdInvalidAuthTokenError)) throw error;
      // Before anything was done: etcd has forgotten its tokens.
      this.#token = undefined;
      return this.#send(ask, await this.#signedIn(auth));
    }
  }

  #send(ask: Ask, token: string | undefined): Promise<Buffer> {
    const { path, message, leader = true, timeoutMs = callDeadlineMs } = ask;
    const headers = requestHeaders({ path, leader, timeoutMs, token });
    const isLongest = timeoutMs === callDeadlineMs;
    return this.#channel.call({ headers, message, timeoutMs, isLongest });
  }

  #signedIn({ user, password }: NonNullable<EtcdSettings['auth']>): Promise<string> {
    const asked = (this.#token ??= this.auth
      .authenticate({ name: user, password })
      .then(({ token }) => token));
    asked.catch(() => {
      if (this.#token === asked) this.#token = undefined;
    });
    return asked;
  }
}

/** `Requests` of gRPC's `PROTOCOL-HTTP2.md`. */
function requestHeaders({
  path,
  leader,
  timeoutMs,
  token,
}: Required<Omit<Ask, 'message'>> & { token: string | undefined }): OutgoingHttpHeaders {
  return {
    ':method': 'POST',
    ':path': path,
    te: 'trailers',
    'content-type': 'application/grpc',
    'grpc-timeout': `${timeoutMs}m`,
    ...(leader ? { hasleader: 'true' } : {}),
    ...(token === undefined ? {} : { token, [sensitiveHeaders]: ['token'] }),
  };
}

function clientOptions(endpoint: string, settings: EtcdSettings): IOptions {
  const { tls, auth } = settings;
  return {
    hosts: endpoint,
    ...(tls === undefined
      ? {}
      : {
          credentials: {
            rootCertificate: Buffer.from(tls.ca),
            ...(tls.cert === undefined ? {} : { certChain: Buffer.from(tls.cert) }),
            ...(tls.key === undefined ? {} : { privateKey: Buffer.from(tls.key) }),
          },
        }),
    ...(auth === undefined ? {} : { auth: { username: auth.user, password: auth.password } }),
    faultHandling: { host: () => noop, global: noop },
    defaultCallOptions: ({ isStream }) => ({
      interceptors: [requireLeader],
      ...(isStream ? {} : { deadline: new Date(Date.now() + callDeadlineMs) }),
    }),
    grpcOptions: {
      'grpc.keepalive_time_ms': keepaliveTimeMs,
      'grpc.keepalive_timeout_ms': keepaliveTimeoutMs,
      'grpc.initial_reconnect_backoff_ms': firstReconnectMs,
      'grpc.max_reconnect_backoff_ms': lastReconnectMs,
      'grpc.max_receive_message_length': maxAnswerBytes,
      'grpc.max_send_message_length': -1,
    },
  };
}

/**
 * Asks a member without a leader to refuse at once instead of holding the request, and to end streams (watches,
 * keep-alives) when it loses its leader. Linearizable requests need one anyway.
 */
const requireLeader: grpc.Interceptor = (options, nextCall) =>
  new grpc.InterceptingCall(nextCall(options), {
    start: (metadata, listener, next) => {
      metadata.set('hasleader', 'true');
      next(metadata, listener);
    },
  });
