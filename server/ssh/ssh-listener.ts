import { createServer, type Server, type Socket } from 'node:net';
import ssh2 from 'ssh2';
import { QuorateError } from '../../backends/contract/errors.js';
import { addressKey, ConcurrencyLimit } from '../core/concurrency-limit.js';
import { RefusalLog } from '../observe/refusal-log.js';
import { describeCrypto, sshAlgorithms, type CryptoDescription } from './algorithms.js';
import type { HostCertificates } from './host-certificates.js';
import { offeredHostKeys, type HostKey } from './host-keys.js';
import { certifiedHostKeys, presentHostCertificates } from './ssh2-host-certificates.js';
import { SshConnection, type ConnectionOwner } from './ssh-connection.js';
import type { SshEnvironment } from './ssh-environment.js';

export interface SshListenerOptions extends SshEnvironment {
  /** At least one; the first is preferred. */
  readonly hostKeys: readonly HostKey[];
  /** For those keys. Other ones are shown to new connections; those that are open keep what they were shown. */
  readonly hostCertificates?: Pick<HostCertificates, 'current' | 'onChange'>;
}

export interface SshListener {
  /** Algorithms on offer, and whether ssh2's native addon does the work. Also logged by `listen`. */
  readonly cryptoDescription: CryptoDescription;
  /** Resolves with the address in use (port 0 asks for a free one). Rejects when it cannot be had. */
  listen(host: string, port: number): Promise<{ readonly host: string; readonly port: number }>;
  /**
   * Stops accepting, closes idle connections, lets running exchanges end for `graceMs`, then ends them. Resolves when
   * no socket is left.
   */
  drain(graceMs: number): Promise<void>;
}

/** Answered missing keepalives until a peer is taken for dead. */
const maxMissedKeepalives = 3;

/** How long ended exchanges have to hand over their last words after a drain. */
const stopGraceMs = 1_000;

/** Time limits are minutes: looking every second is exact enough, and costs nothing per byte. */
const sweepIntervalMs = 1_000;

/** Serves git over SSH (gitprotocol-pack, "SSH Transport"; RFC 4251 to 4254). */
export function createSshListener(options: SshListenerOptions): SshListener {
  return new Listener(options);
}

class Listener implements SshListener, ConnectionOwner {
  readonly cryptoDescription: CryptoDescription;
  readonly #options: SshListenerOptions;
  readonly #server: Server;
  /** For new connections; replaced when certificates of host keys change, since ssh2 takes its keys once. */
  #protocol: ssh2.Server;
  /** By remote address and port, which is how ssh2 names a connection. */
  readonly #connections = new Map<string, SshConnection>();
  readonly #sockets = new Set<Socket>();
  readonly #refusals: RefusalLog;
  readonly #addresses: ConcurrencyLimit;
  readonly #principals: ConcurrencyLimit;
  #draining = false;
  #sweep: NodeJS.Timeout | undefined;
  #whenEmpty: (() => void) | undefined;

  constructor(options: SshListenerOptions) {
    const { limits, meter } = options;
    this.#options = options;
    this.#refusals = new RefusalLog(options);
    this.#addresses = new ConcurrencyLimit(limits.maxConnectionsPerAddress);
    this.#principals = new ConcurrencyLimit(limits.maxConnectionsPerPrincipal);
    this.#protocol = this.#createProtocol();
    this.cryptoDescription = describeCrypto(this.#offeredKeys().map((key) => key.type));
    options.hostCertificates?.onChange(() => {
      this.#protocol = this.#createProtocol();
    });
    // Sockets are accepted here and handed to ssh2, so that each has an owner from its first byte to its last.
    this.#server = createServer({ noDelay: true, keepAlive: true }, (socket) =>
      this.#accept(socket),
    );
    meter.gauge('connections', { transport: 'ssh' }, () => this.#sockets.size);
  }

  /** Certificates first, as clients do that know an authority. */
  #offeredKeys(): readonly ssh2.ParsedKey[] {
    const { hostKeys, hostCertificates } = this.#options;
    const certified = certifiedHostKeys(hostCertificates?.current() ?? []);
    return [...certified, ...offeredHostKeys(hostKeys)];
  }

  #createProtocol(): ssh2.Server {
    const { limits, hostCertificates } = this.#options;
    const certificates = hostCertificates?.current() ?? [];
    const protocol = new ssh2.Server({
      hostKeys: this.#offeredKeys().map((key) => ({ key })),
      ident: 'Quorate',
      algorithms: {
        kex: [...sshAlgorithms.kex],
        cipher: [...sshAlgorithms.cipher],
        hmac: [...sshAlgorithms.hmac],
        compress: [...sshAlgorithms.compress],
      },
      keepaliveInterval: limits.keepaliveIntervalMs,
      keepaliveCountMax: maxMissedKeepalives,
    });
    protocol.on('connection', (client, info) => {
      presentHostCertificates(client, certificates);
      const connection = this.#connections.get(connectionName(info.ip, info.port));
      if (connection === undefined) client.end();
      else connection.attach(client);
    });
    return protocol;
  }

  get draining(): boolean {
    return this.#draining;
  }

  async listen(host: string, port: number): Promise<{ host: string; port: number }> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => {
        this.#server.removeListener('error', reject);
        resolve();
      });
    });
    this.#sweep = setInterval(() => {
      const nowMs = this.#options.clock.monotonicMs();
      for (const connection of this.#connections.values()) connection.checkTime(nowMs);
    }, sweepIntervalMs).unref();
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('no TCP address');
    this.#logStart();
    return { host: address.address, port: address.port };
  }

  async drain(graceMs: number): Promise<void> {
    const { clock } = this.#options;
    this.#draining = true;
    const closed = this.#server.listening
      ? new Promise<void>((resolve) => this.#server.close(() => resolve()))
      : Promise.resolve();
    const empty = new Promise<void>((resolve) => {
      this.#whenEmpty = resolve;
      if (this.#sockets.size === 0) resolve();
    });
    for (const connection of this.#connections.values()) connection.drain();
    const waited = new AbortController();
    await Promise.race([empty, clock.sleep(graceMs, waited.signal)]);
    const reason = new QuorateError(
      'unavailable',
      'the server is shutting down: try again in a moment',
    );
    for (const connection of this.#connections.values()) connection.stop(reason);
    await Promise.race([empty, clock.sleep(stopGraceMs, waited.signal)]);
    waited.abort();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    clearInterval(this.#sweep);
  }

  enterPrincipal(name: string): boolean {
    return this.#principals.enter(name);
  }

  leavePrincipal(name: string): void {
    this.#principals.leave(name);
  }

  #accept(socket: Socket): void {
    const { limits, logger } = this.#options;
    const { remoteAddress, remotePort } = socket;
    // Reset before it was accepted.
    if (remoteAddress === undefined || remotePort === undefined) {
      socket.destroy();
      return;
    }
    const address = addressKey(remoteAddress);
    if (this.#sockets.size >= limits.maxConnections || !this.#addresses.enter(address)) {
      logger.debug({ component: 'ssh', remote_address: remoteAddress }, 'too many connections');
      this.#refusals.record({
        event: 'limit',
        actor: 'unknown',
        remoteAddress,
        transport: 'ssh',
        details: { reason: 'too many connections' },
      });
      socket.on('error', () => undefined);
      // RFC 4253 section 4.2 lets a server say something before its version.
      socket.end('Too many connections. Try again later.\r\n', () => socket.destroy());
      return;
    }
    const name = connectionName(remoteAddress, remotePort);
    this.#sockets.add(socket);
    this.#connections.set(name, new SshConnection(this.#options, this, socket));
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#connections.delete(name);
      this.#addresses.leave(address);
      if (this.#sockets.size === 0) this.#whenEmpty?.();
    });
    this.#protocol.injectSocket(socket);
  }

  #logStart(): void {
    const { logger, hostKeys } = this.#options;
    const { native, ...algorithms } = this.cryptoDescription;
    const fields = {
      component: 'ssh',
      crypto: native ? 'ssh2 native addon' : 'node:crypto',
      ...algorithms,
      fingerprints: hostKeys.map((key) => `${key.type} ${key.fingerprint}`),
    };
    logger.info(fields, 'SSH algorithms');
    if (!native) {
      const missing =
        'the native addon of ssh2 is missing: SSH transfers take more CPU and are slower';
      logger.warn({ component: 'ssh' }, missing);
    }
  }
}

function connectionName(address: string, port: number): string {
  return `${address} ${port}`;
}
