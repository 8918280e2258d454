import * as grpc from '@grpc/grpc-js';
import { noop } from 'cockatiel';
import { Etcd3, type IOptions } from 'etcd3';

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

/**
 * A client of one member of etcd, without any fault handling of its own: which member is asked, and whether again, is
 * decided in one place, `MemberPool`. etcd3's own pool picks members by chance, dead ones too, and cannot say whether
 * a request was sent.
 */
export class MemberClient extends Etcd3 {
  readonly endpoint: string;

  constructor(endpoint: string, settings: EtcdSettings) {
    super(clientOptions(endpoint, settings));
    this.endpoint = endpoint;
  }

  /**
   * Whether there is a connection to send a request on, within `timeoutMs` if one has to be made. Fails when etcd
   * refuses the user. Nothing of a request was sent while this says no.
   */
  ready(timeoutMs: number): Promise<boolean> {
    return this.pool.withConnection('KV', ({ client }) => isConnected(client, timeoutMs));
  }
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

/** Options of a call that any member may answer, also one without a leader. */
export const withoutLeader: grpc.CallOptions = { interceptors: [] };

async function isConnected(client: grpc.Client, timeoutMs: number): Promise<boolean> {
  const channel = client.getChannel();
  const deadline = new Date(Date.now() + timeoutMs);
  for (;;) {
    const state = channel.getConnectivityState(true);
    if (state === grpc.connectivityState.READY) return true;
    if (state === grpc.connectivityState.SHUTDOWN) return false;
    if (state === grpc.connectivityState.TRANSIENT_FAILURE) return false;
    const changed = await new Promise<boolean>((resolve) => {
      channel.watchConnectivityState(state, deadline, (error) => resolve(error === undefined));
    });
    if (!changed) return false;
  }
}
