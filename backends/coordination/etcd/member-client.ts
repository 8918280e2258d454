import assert from 'node:assert/strict';
import { type OutgoingHttpHeaders, sensitiveHeaders } from 'node:http2';
import { Duplex } from 'node:stream';
import type { IRangeRequest, IResponseHeader, ITxnRequest } from 'etcd3';
import { ClientClosedError } from 'etcd3/lib/errors.js';
import { isTokenPast } from './etcd-errors.js';
import { defaultAnswerMs, type EtcdSettings } from './etcd-settings.js';
import { createWatchClient, type WatchClient } from './etcd3-client.js';
import {
  decodeHeader,
  decodeMemberState,
  decodeRange,
  decodeTxn,
  encodeRange,
  encodeTxn,
  type MemberState,
  type RangePage,
  type TxnAnswer,
} from './kv-messages.js';
import {
  decodeLease,
  decodeLeaseTimeToLive,
  decodeToken,
  encodeAuthenticate,
  encodeLeaseGrant,
  encodeLeaseId,
  type LeaseAnswer,
  type LeaseLeftAnswer,
} from './lease-and-auth-messages.js';
import { UnaryChannel } from './unary-channel.js';

const rangePath = '/etcdserverpb.KV/Range';
const txnPath = '/etcdserverpb.KV/Txn';
const statusPath = '/etcdserverpb.Maintenance/Status';
const leaseGrantPath = '/etcdserverpb.Lease/LeaseGrant';
const leaseRevokePath = '/etcdserverpb.Lease/LeaseRevoke';
const leaseTimeToLivePath = '/etcdserverpb.Lease/LeaseTimeToLive';
const leaseKeepAlivePath = '/etcdserverpb.Lease/LeaseKeepAlive';
const authenticatePath = '/etcdserverpb.Auth/Authenticate';

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
 * a request was sent. What is one request and one answer goes over Node's HTTP/2 as it is, at half the price; only
 * watches go through etcd3, which is loaded with the first of them.
 */
export class MemberClient {
  readonly endpoint: string;
  readonly #settings: EtcdSettings;
  readonly #channel: UnaryChannel;
  #token: Promise<string> | undefined;
  #watches: WatchClient | undefined;
  #closed = false;

  constructor(endpoint: string, settings: EtcdSettings) {
    this.endpoint = endpoint;
    this.#settings = settings;
    this.#channel = new UnaryChannel({ endpoint, tls: settings.tls });
  }

  /**
   * Whether there is a connection to send a request on, within `timeoutMs` if one has to be made. Fails when etcd
   * refuses the user. Nothing of a request was sent while this says no.
   */
  async ready(timeoutMs: number): Promise<boolean> {
    const isReady = await this.#channel.ready(timeoutMs);
    const { auth } = this.#settings;
    if (isReady && auth !== undefined) await this.#signedIn(auth);
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

  /** As `askStatus`, also of a member that knows of no leader; with all that it says. */
  async askState(timeoutMs: number): Promise<MemberState> {
    const message = Buffer.alloc(0);
    return decodeMemberState(
      await this.#ask({ path: statusPath, message, leader: false, timeoutMs }),
    );
  }

  /** Of a lease that nobody has, with an id of the caller's choice. */
  async grantLease(id: string, ttlSeconds: number): Promise<LeaseAnswer> {
    const message = encodeLeaseGrant(id, ttlSeconds);
    return decodeLease(await this.#ask({ path: leaseGrantPath, message }));
  }

  async revokeLease(id: string): Promise<{ readonly header: IResponseHeader }> {
    return decodeHeader(await this.#ask({ path: leaseRevokePath, message: encodeLeaseId(id) }));
  }

  async leaseTimeToLive(id: string): Promise<LeaseLeftAnswer> {
    const message = encodeLeaseId(id);
    return decodeLeaseTimeToLive(await this.#ask({ path: leaseTimeToLivePath, message }));
  }

  /** One renewal. To etcd it is a stream, which ends after its first request. */
  async keepAlive(id: string, timeoutMs: number): Promise<LeaseAnswer> {
    const message = encodeLeaseId(id);
    return decodeLease(await this.#ask({ path: leaseKeepAlivePath, message, timeoutMs }));
  }

  /**
   * A stream for watches, on which nothing was asked for yet. It cannot sign in again: a token that etcd has forgotten
   * is found by a request before it.
   */
  async watch(): Promise<WatchDuplex> {
    const { auth } = this.#settings;
    const token = auth === undefined ? undefined : await this.#signedIn(auth);
    if (this.#closed) throw new ClientClosedError('watch');
    this.#watches ??= createWatchClient(this.endpoint, this.#settings);
    const stream = await this.#watches.open(token);
    assert.ok(isWatchDuplex(stream), 'gRPC gives Node streams');
    return stream;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#channel.close();
    this.#watches?.close();
  }

  async #ask(ask: Ask): Promise<Buffer> {
    const { auth } = this.#settings;
    if (auth === undefined) return this.#send(ask, undefined);
    const asked = this.#signedIn(auth);
    const token = await asked;
    try {
      return await this.#send(ask, token);
    } catch (error) {
      if (!isTokenPast(error)) throw error;
      // Whoever finds that first signs in, for all who come with the same one: it costs etcd a tenth of a second each.
      this.#forget(asked);
      return this.#send(ask, await this.#signedIn(auth));
    }
  }

  #send(ask: Ask, token: string | undefined): Promise<Buffer> {
    const { answerMs = defaultAnswerMs } = this.#settings;
    const { path, message, leader = true, timeoutMs = answerMs } = ask;
    const headers = requestHeaders({ path, leader, timeoutMs, token });
    const isLongest = timeoutMs === answerMs;
    return this.#channel.call({ headers, message, timeoutMs, isLongest });
  }

  #signedIn(auth: NonNullable<EtcdSettings['auth']>): Promise<string> {
    const asked = (this.#token ??= this.#signIn(auth));
    asked.catch(() => this.#forget(asked));
    return asked;
  }

  #forget(asked: Promise<string>): void {
    if (this.#token === asked) this.#token = undefined;
  }

  async #signIn({ user, password }: NonNullable<EtcdSettings['auth']>): Promise<string> {
    const message = encodeAuthenticate(user, password);
    return decodeToken(await this.#send({ path: authenticatePath, message }, undefined));
  }
}

/** What gRPC gives for a stream in both directions. */
export type WatchDuplex = Duplex & { readonly cancel: () => void };

function isWatchDuplex(stream: unknown): stream is WatchDuplex {
  return stream instanceof Duplex && 'cancel' in stream && typeof stream.cancel === 'function';
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
