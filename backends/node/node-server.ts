import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import type { ClusterCredentials } from './cluster-credentials.js';
import { KnownSnapshots } from './known-snapshots.js';
import {
  attendArguments,
  type CallName,
  decodeMessage,
  duplexCalls,
  isCallName,
} from './messages.js';
import { type NodeContext, operations } from './operations.js';
import { ReadSessions } from './read-sessions.js';
import { answerProof, digestOf, SignatureCheck } from './request-signature.js';
import { ServerCall } from './server-call.js';
import { encodeError } from './wire-error.js';

export interface NodeServerLimits {
  /** How long a caller that streams may be silent. */
  readonly silenceMs: number;
  /** How long a client that says nothing keeps its read sessions. */
  readonly sessionLeaseMs: number;
  readonly maxConnections: number;
}

export const defaultNodeServerLimits: NodeServerLimits = {
  // Beats come twice a second; a front-end may be busy with itself for some seconds.
  silenceMs: 10_000,
  // Clients attend every second.
  sessionLeaseMs: 20_000,
  // Some hundred for each of some tens of front-ends and peers.
  maxConnections: 10_000,
};

export interface NodeServerOptions {
  readonly replica: Replica;
  readonly credentials: ClusterCredentials;
  readonly clock: Clock;
  readonly random: Random;
  readonly peers: NodeContext['peers'];
  readonly logger: Logger;
  readonly meter: Meter;
  readonly limits?: Partial<NodeServerLimits>;
}

/** The storage node's internal API. */
export interface NodeServer {
  /** Rejects when the address cannot be bound. Port 0 takes a free one. */
  listen(host: string, port: number): Promise<{ readonly host: string; readonly port: number }>;
  /** Calls and read sessions that are not over. */
  readonly busy: number;
  /** Takes no new reads and uploads, waits for what runs, at most `graceMs`, then ends the rest. Idempotent. */
  drain(graceMs: number): Promise<void>;
}

/** `/v1/{store}/attend`, `/v1/{store}/{repository}/{call}` */
const callPath = /^\/v1\/([0-9a-f]{32})\/(?:attend|([0-9a-f]{32})\/([A-Za-z]{1,32}))$/;
const clientPattern = /^[0-9a-f]{32}$/;
const headerBytes = 8 * 1024;
/** Of the head of a request: members are near, and send it at once. */
const headersTimeoutMs = 10_000;
/** Longer than clients keep a connection that they do not use, so that they are the ones to close it. */
const keepAliveMs = 60_000;
const expiryMs = 1_000;
const drainPollMs = 50;

/** Calls that begin something; whoever drains takes no more of them, nor packs that come with a request to prepare. */
const beginnings: ReadonlySet<CallName> = new Set<CallName>(['create', 'upload', 'read']);

/** Serves one store. Never without credentials: `loadClusterCredentials` sees to it, and this asserts it. */
export function createNodeServer(options: NodeServerOptions): NodeServer {
  return new HttpNodeServer(options);
}

class HttpNodeServer implements NodeServer {
  readonly #options: NodeServerOptions;
  readonly #limits: NodeServerLimits;
  readonly #context: NodeContext;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #signatures: SignatureCheck | undefined;
  readonly #expiry: NodeJS.Timeout;
  #running = 0;
  #draining: Promise<void> | undefined;

  constructor(options: NodeServerOptions) {
    const { credentials, clock, random, replica } = options;
    assert.ok(
      credentials.secret !== undefined || credentials.tls !== undefined,
      'a node API is never open',
    );
    this.#options = options;
    this.#limits = { ...defaultNodeServerLimits, ...options.limits };
    this.#context = {
      replica,
      sessions: new ReadSessions(clock, this.#limits.sessionLeaseMs),
      snapshots: new KnownSnapshots(maxKnownRefs),
      refuseWhenDraining: () => this.#refuseWhenDraining(),
      peers: options.peers,
    };
    if (credentials.secret !== undefined) {
      this.#signatures = new SignatureCheck(credentials.secret, () =>
        Buffer.from(random.bytes(16)).toString('hex'),
      );
    }
    this.#server = makeServer(credentials);
    this.#server.maxConnections = this.#limits.maxConnections;
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('request', (request, response) => void this.#answer(request, response));
    options.meter.gauge('read_sessions', {}, () => this.#context.sessions.count);
    this.#expiry = setInterval(() => this.#context.sessions.expire(), expiryMs);
    this.#expiry.unref();
  }

  get busy(): number {
    return this.#running + this.#context.sessions.count;
  }

  listen(host: string, port: number): Promise<{ readonly host: string; readonly port: number }> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        const bound = this.#server.address();
        assert.ok(bound !== null && typeof bound === 'object', 'a TCP server has an address');
        resolve({ host: bound.address, port: bound.port });
      });
    });
  }

  drain(graceMs: number): Promise<void> {
    this.#draining ??= this.#drain(graceMs);
    return this.#draining;
  }

  async #drain(graceMs: number): Promise<void> {
    const { clock } = this.#options;
    const deadlineMs = clock.monotonicMs() + graceMs;
    while (this.busy > 0 && clock.monotonicMs() < deadlineMs) await clock.sleep(drainPollMs);
    clearInterval(this.#expiry);
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
      // Those whose handshake is not over are none of its connections yet.
      for (const socket of this.#sockets) socket.destroy();
    });
    this.#context.sessions.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '';
    const match = callPath.exec(path);
    const client = String(request.headers['quorate-client'] ?? '');
    if (request.method !== 'POST' || match === null || !clientPattern.test(client)) {
      refuse(response, 404, new QuorateError('unimplemented', 'there is no such call'));
      return;
    }
    const verdict = this.#signatures?.check(request.headers.authorization, { client, path });
    if (verdict?.good === false) {
      refuse(response, 401, new QuorateError('unauthenticated', 'members of the cluster only'), {
        'Quorate-Boot': this.#signatures?.boot ?? '',
      });
      return;
    }
    const [, storeId = '', repositoryId = '', name = 'attend'] = match;
    if (storeId !== this.#context.replica.storeId) {
      const message = 'the node at this address keeps another store';
      refuse(response, 421, new QuorateError('unavailable', message));
      return;
    }
    const secret = this.#options.credentials.secret;
    const headers: Record<string, string> = { 'Content-Type': 'application/x-quorate-frames' };
    if (verdict !== undefined && secret !== undefined) {
      headers['Quorate-Proof'] = answerProof(secret, verdict.mac);
    }
    const { silenceMs } = this.#limits;
    const call = new ServerCall({ request, response, repositoryId, client, headers, silenceMs });
    await this.#run(call, name, verdict?.argumentsDigest);
  }

  async #run(call: ServerCall, name: string, digest: string | undefined): Promise<void> {
    this.#running += 1;
    try {
      const payload = await call.arguments();
      if (digest !== undefined && digest !== digestOf(payload)) {
        throw new QuorateError(
          'unauthenticated',
          'the arguments are not the ones that were signed',
        );
      }
      this.#context.sessions.seen(call.client);
      if (name === 'attend') call.finish(this.#attend(call, payload));
      else if (isCallName(name)) call.finish(await this.#counted(call, name, payload));
      else throw new QuorateError('unimplemented', `this node knows no call ${name}`);
    } catch (error) {
      this.#log(call, name, error);
      call.fail(error);
    } finally {
      this.#running -= 1;
    }
  }

  async #counted(call: ServerCall, name: CallName, payload: Buffer): Promise<object | undefined> {
    let outcome = 'ok';
    try {
      return await this.#operate(call, name, payload);
    } catch (error) {
      outcome = call.signal.aborted ? 'cancelled' : asQuorateError(error).code;
      throw error;
    } finally {
      this.#options.meter.count('node_calls', { call: labelOf(name), outcome });
    }
  }

  #attend({ client }: ServerCall, payload: Buffer): object {
    this.#context.sessions.release(client, decodeMessage(attendArguments, payload).released);
    return { storeId: this.#context.replica.storeId, draining: this.#draining !== undefined };
  }

  async #operate(call: ServerCall, name: CallName, payload: Buffer): Promise<object | undefined> {
    if (beginnings.has(name)) this.#refuseWhenDraining();
    if (duplexCalls.has(name)) call.begin();
    return operations[name](this.#context, payload, call);
  }

  #refuseWhenDraining(): void {
    if (this.#draining === undefined) return;
    throw new QuorateError('unavailable', 'the storage node is shutting down');
  }

  #log(call: ServerCall, name: string, error: unknown): void {
    if (call.signal.aborted) return;
    const { code } = asQuorateError(error);
    const facts = { component: 'node-api', call: name, repo: call.repositoryId, err: error };
    if (code === 'internal') this.#options.logger.error(facts, 'a call failed');
    else this.#options.logger.debug(facts, 'a call failed');
  }
}

/** Refs of snapshots that are kept to send only what changed. */
const maxKnownRefs = 2_000_000;

function makeServer({ tls }: ClusterCredentials): Server {
  const options = {
    // A call may take as long as it works; silence is noticed by its reader.
    requestTimeout: 0,
    headersTimeout: headersTimeoutMs,
    keepAliveTimeout: keepAliveMs,
    connectionsCheckingInterval: 5_000,
    maxHeaderSize: headerBytes,
    noDelay: true,
  };
  if (tls === undefined) return createServer(options);
  const server = createHttpsServer({
    ...options,
    ...tls.current,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    handshakeTimeout: headersTimeoutMs,
  });
  const forget = tls.onChange((renewed) =>
    server.setSecureContext({ ...renewed, minVersion: 'TLSv1.3' }),
  );
  server.once('close', forget);
  return server;
}

/** Refuses before anything of the body is read, so the connection ends. */
function refuse(
  response: ServerResponse,
  status: number,
  error: QuorateError,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.on('error', () => undefined);
  const body = encodeError(error);
  response.writeHead(status, {
    ...headers,
    'Content-Type': 'application/json',
    'Content-Length': String(body.length),
    Connection: 'close',
  });
  response.end(body);
}

/** Values of labels are in lower case. */
function labelOf(name: CallName): string {
  return name.replaceAll(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`);
}
