import assert from 'node:assert/strict';
import type { Server, ServerOptions } from 'node:http';
import {
  createServer as createHttp2Server,
  type Http2Server,
  type ServerHttp2Session,
} from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { HttpLimits } from './http-limits.js';
import { rawReply } from './raw-reply.js';
import type { CertificateSource } from './certificate.js';

/** An HTTP server over TLS. */
export interface TlsServer {
  /** Listens, and speaks HTTP/1.1. */
  readonly http1: Server;
  /** Gets the connections of clients that chose HTTP/2; does not listen itself. */
  readonly http2: Http2Server;
  /**
   * Ends a session and its connection. `destroy` alone waits until what is being written was taken, for ever by a client
   * that reads nothing more, or that has gone at a moment at which the session does not notice it.
   */
  readonly end: (session: ServerHttp2Session) => void;
}

/** For GOAWAY to be sent before the connection goes. */
const farewellMs = 1_000;

/**
 * OpenSSL's default list of TLS 1.2 ciphers without those that lack forward secrecy or authenticated encryption
 * (RFC 9325 section 4.2; it is also what RFC 9113 section 9.2.2 wants of HTTP/2). TLS 1.3 has only good ones.
 */
const ciphers = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

/** Requests of one connection at once; git runs one, a browser some. More wait in the client. */
const maxConcurrentStreams = 128;

/**
 * What a client may send ahead, for each stream and for the connection: 64 KiB, the protocol's default, would hold a
 * push to 5 Mbit/s over a round trip of 100 ms. What is not read is held in memory, so not more.
 */
const windowBytes = 1024 * 1024;

/**
 * HTTP/1.1 and HTTP/2 on one port, chosen by ALPN. It is Node's HTTPS server with the HTTP/2 connections passed on:
 * Node's own server for both (`allowHTTP1`) has neither the HTTP/1.1 limits nor `closeIdleConnections`, and HTTP/1.1
 * over TLS has to behave as it does without.
 */
export function createTlsServer(
  http1Options: ServerOptions,
  options: { readonly certificate: CertificateSource; readonly limits: HttpLimits },
): TlsServer {
  const { certificate, limits } = options;
  const secure = { minVersion: 'TLSv1.2', ciphers, honorCipherOrder: true } as const;
  const http1 = createHttpsServer({
    ...http1Options,
    ...secure,
    ...certificate.current,
    ALPNProtocols: ['h2', 'http/1.1'],
    handshakeTimeout: limits.headersTimeoutMs,
  });
  const http2 = createHttp2Server({
    settings: {
      maxConcurrentStreams,
      initialWindowSize: windowBytes,
      maxHeaderListSize: limits.headerBytes,
      enablePush: false,
    },
  });
  http2.on('session', (session) => session.setLocalWindowSize(windowBytes));
  // Trouble of one connection ends that connection; there is nobody to tell.
  http2.on('sessionError', () => {});
  certificate.onChange((pair) => http1.setSecureContext({ ...secure, ...pair }));
  const startTls = takeListener(http1, 'connection');
  const startHttp1 = takeListener(http1, 'secureConnection');
  http1.on('connection', (socket: Socket) => {
    whenSpeaking(socket, limits.headersTimeoutMs, (isTls) => {
      if (isTls) startTls(socket);
      else refusePlain(socket);
    });
  });
  const connections = new WeakMap<ServerHttp2Session, TLSSocket>();
  http1.on('secureConnection', (socket: TLSSocket) => {
    if (socket.alpnProtocol !== 'h2') {
      startHttp1(socket);
      return;
    }
    // In the turn of the call.
    http2.once('session', (session) => connections.set(session, socket));
    http2.emit('connection', socket);
  });
  const end = (session: ServerHttp2Session): void => {
    session.destroy();
    const timer = setTimeout(() => connections.get(session)?.destroy(), farewellMs).unref();
    session.once('close', () => clearTimeout(timer));
  };
  return { http1, http2, end };
}

/** Takes the one listener that Node's own server has for an event, to decide who gets it. */
function takeListener(server: Server, event: string): (socket: Socket) => void {
  const [listener, ...more] = server.listeners(event);
  assert(
    listener !== undefined && more.length === 0,
    `Node's HTTPS server has one ${event} listener`,
  );
  server.removeAllListeners(event);
  return (socket) => void Reflect.apply(listener, server, [socket]);
}

/** First byte of a TLS handshake record (RFC 8446 section 5.1); no HTTP method starts with it. */
const handshakeRecord = 0x16;

/** A connection that breaks tells by closing. */
function ignore(): void {}

/** Looks at the first byte, leaves it in the stream, and tells whether it starts a TLS handshake. */
function whenSpeaking(socket: Socket, timeoutMs: number, then: (isTls: boolean) => void): void {
  const silent = (): void => void socket.destroy();
  const look = (): void => {
    const bytes: unknown = socket.read();
    // The end, or nothing yet.
    if (!(bytes instanceof Buffer)) {
      if (socket.readableEnded) socket.destroy();
      return;
    }
    socket.setTimeout(0);
    socket.off('timeout', silent).off('readable', look).off('end', silent).off('error', ignore);
    socket.unshift(bytes);
    then(bytes[0] === handshakeRecord);
  };
  socket.setTimeout(timeoutMs);
  socket.on('timeout', silent).on('readable', look).on('end', silent).on('error', ignore);
}

/** Somebody wrote `http://` for `https://`: say so in their language. */
function refusePlain(socket: Socket): void {
  socket.on('error', () => {});
  socket.resume();
  socket.end(
    rawReply('400 Bad Request', 'This port speaks TLS: write https:// instead of http://.', ''),
  );
  const timer = setTimeout(() => socket.destroy(), 1_000).unref();
  socket.on('close', () => clearTimeout(timer));
}
