import { createRequire } from 'node:module';
import type * as Grpc from '@grpc/grpc-js';
import type * as Cockatiel from 'cockatiel';
import type * as Etcd from 'etcd3';
import { defaultAnswerMs, type EtcdSettings } from './etcd-settings.js';

/** Not `import`: what failed once (a process with too many open files) an `import` never loads again. */
const load = createRequire(import.meta.url);

/** A connection that has said nothing for so long is asked whether it lives; etcd allows 5 s and more. */
const keepaliveTimeMs = 6_000;
const keepaliveTimeoutMs = 2_000;
/** A member that was started again is found soon; gRPC's own back-off would reach two minutes. */
const firstReconnectMs = 50;
const lastReconnectMs = 500;
/** Pages of watches are far below this; a bound against a mistake. */
const maxAnswerBytes = 256 * 1024 * 1024;

/** Streams to one member. */
export interface WatchClient {
  /** A gRPC stream, on which nothing was asked for yet, of whom the token is of; undefined: of nobody. */
  open(token: string | undefined): Promise<unknown>;
  close(): void;
}

/**
 * The token is the caller's: etcd3 asks for one of its own once, and never again for a stream, whatever etcd says of it.
 * Loading etcd3 and gRPC takes a tenth of all that a start takes, so it is done where they are needed.
 */
export function createWatchClient(
  endpoint: string,
  { endpoints, prefix, tls }: EtcdSettings,
): WatchClient {
  const withoutUser = { endpoints, prefix, ...(tls === undefined ? {} : { tls }) };
  const client = createEtcd3Client(endpoint, withoutUser);
  return {
    open: (token) => client.watchClient.watch({ interceptors: [withHeaders(token)] }),
    close: () => client.close(),
  };
}

/** etcd3's client of one member, without any fault handling of its own. Throws when it cannot be loaded. */
export function createEtcd3Client(endpoint: string, settings: EtcdSettings): Etcd.Etcd3 {
  const { Etcd3 }: typeof Etcd = load('etcd3');
  return new Etcd3(clientOptions(endpoint, settings));
}

function clientOptions(endpoint: string, settings: EtcdSettings): Etcd.IOptions {
  const { noop }: typeof Cockatiel = load('cockatiel');
  const { tls, auth, answerMs = defaultAnswerMs } = settings;
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
      interceptors: [withHeaders(undefined)],
      ...(isStream ? {} : { deadline: new Date(Date.now() + answerMs) }),
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
function withHeaders(token: string | undefined): Grpc.Interceptor {
  const grpc: typeof Grpc = load('@grpc/grpc-js');
  return (options, nextCall) =>
    new grpc.InterceptingCall(nextCall(options), {
      start: (metadata, listener, next) => {
        metadata.set('hasleader', 'true');
        if (token !== undefined) metadata.set('token', token);
        next(metadata, listener);
      },
    });
}
