import assert from 'node:assert/strict';
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock, Logger, Meter, Random } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import { channelKeys, channelProtocol } from './channel-wire.js';
import type { ClusterCredentials } from './cluster-credentials.js';
import { KnownSnapshots } from './known-snapshots.js';
import {
  attendArguments,
  type CallName,
  decodeMessage,
  duplexCalls,
  isCallName,
  isSmallCallName,
} from './messages.js';
import { type NodeContext, operations, smallOperations } from './operations.js';
import { ReadSessions } from './read-sessions.js';
import { answerProof, digestOf, SignatureCheck } from './request-signature.js';
import { ServerCall, type SmallCall } from './server-call.js';
import { type ChannelCall, ServerChannel } from './server-channel.js';
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
  /** What is wrong with the node's disk, for who asks whether it lives. Absent: nobody looks. */
  readonly problem?: () => string | undefined;
}

/** The storage node's internal API. */
export interface NodeServer {
  /** Rejects when the address cannot be bound. Port 0 takes a free one. */
  listen(host: string, port: number): Promise<{ readonly host: string; readonly port: number }>;
  /** Calls and read sessions that are not over. */
  readonly busy: number;
  /** Monotonic time at which a member asked last whether it lives; undefined: none has. */
  readonly heardMs: number | undefined;
  /** Takes no new reads and uploads, waits for what runs, at most `graceMs`, then ends the rest. Idempotent. */
  drain(graceMs: number): Promise<void>;
}

/** `/v1/{store}/attend`, `/v1/{store}/{repository}/{call}` */
const callPath = /^\/v1\/([0-9a-f]{32})\/(?:attend|([0-9a-f]{32})\/([A-Za-z]{1,32}))$/;
const channelPath = /^\/v1\/[0-9a-f]{32}\/channel$/;
const storeOf = /^\/v1\/([0-9a-f]{32})\//;
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
  #heardMs: number | undefined;
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
    this.#server.on('upgrade', (request, socket, head) => this.#upgrade(request, { socket, head }));
    options.meter.gauge('read_sessions', {}, () => this.#context.sessions.count);
    this.#expiry = setInterval(() => this.#context.sessions.expire(), expiryMs);
    this.#expiry.unref();
  }

  get heardMs(): number | undefined {
    return this.#heardMs;
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
    const match = callPath.exec(request.url ?? '');
    const taken = this.#judge(request, request.method === 'POST' && match !== null);
    if ('refused' in taken) {
      refuse(response, taken, this.#refusalHeaders(taken));
      return;
    }
    const [, , repositoryId = '', name = 'attend'] = match ?? [];
    const { client, mac, argumentsDigest } = taken;
    const headers: Record<string, string> = { 'Content-Type': 'application/x-quorate-frames' };
    const proof = this.#proofOf(mac);
    if (proof !== undefined) headers['Quorate-Proof'] = proof;
    const { silenceMs } = this.#limits;
    const call = new ServerCall({ request, response, repositoryId, client, headers, silenceMs });
    await this.#run(call, name, async () => {
      const payload = await call.arguments();
      if (argumentsDigest !== undefined && argumentsDigest !== digestOf(payload)) {
        throw new QuorateError(
          'unauthenticated',
          'the arguments are not the ones that were signed',
        );
      }
      this.#context.sessions.seen(client);
      if (name === 'attend') return this.#attend(call, payload);
      if (!isCallName(name)) throw unknownCall(name);
      return this.#counted(call, name, () => this.#operate(call, name, payload));
    });
  }

  /** Whether a request is a member's, for this store. */
  #judge(request: IncomingMessage, known: boolean): Taken | Refused {
    const path = request.url ?? '';
    const client = String(request.headers['quorate-client'] ?? '');
    if (!known || !clientPattern.test(client)) {
      return { status: 404, refused: new QuorateError('unimplemented', 'there is no such call') };
    }
    const { authorization } = request.headers;
    const verdict = this.#signatures?.check(authorization, { client, path });
    if (verdict?.good === false) {
      const refused = new QuorateError('unauthenticated', 'members of the cluster only');
      return { status: 401, refused };
    }
    if (storeOf.exec(path)?.[1] !== this.#context.replica.storeId) {
      const message = 'the node at this address keeps another store';
      return { status: 421, refused: new QuorateError('unavailable', message) };
    }
    return { client, mac: verdict?.mac, argumentsDigest: verdict?.argumentsDigest };
  }

  #refusalHeaders({ status }: Refused): Readonly<Record<string, string>> {
    return status === 401 ? { 'Quorate-Boot': this.#signatures?.boot ?? '' } : {};
  }

  #proofOf(mac: string | undefined): string | undefined {
    const { secret } = this.#options.credentials;
    return secret === undefined || mac === undefined ? undefined : answerProof(secret, mac);
  }

  /** Makes a channel of a connection (`channel-wire.ts`). */
  #upgrade(
    request: IncomingMessage,
    { socket, head }: { readonly socket: Duplex; readonly head: Buffer },
  ): void {
    socket.on('error', () => undefined);
    const known = request.method === 'GET' && request.headers.upgrade === channelProtocol;
    const taken = this.#judge(request, known && channelPath.test(request.url ?? ''));
    // Of `node:http` and `node:https` it is always one.
    assert.ok(socket instanceof Socket);
    if ('refused' in taken) {
      // Whoever does not end its half would keep the connection: no timer of the server's looks at it any more.
      const refusal = plainRefusal(taken, this.#refusalHeaders(taken));
      socket.end(refusal, () => socket.destroy());
      return;
    }
    const proof = this.#proofOf(taken.mac);
    const headers = { Connection: 'Upgrade', Upgrade: channelProtocol };
    const proven = proof === undefined ? headers : { ...headers, 'Quorate-Proof': proof };
    socket.write(plainHead(101, proven));
    const { client } = taken;
    const channel = new ServerChannel({
      socket,
      head,
      keys: channelKeys(this.#options.credentials.secret, taken.mac),
      client,
      silenceMs: this.#limits.silenceMs,
      run: (call, args) => void this.#runOnChannel(call, args),
      ended: (err) => {
        const facts = { component: 'node-api', client, err };
        this.#options.logger.warn(facts, 'the channel of a member was ended');
      },
    });
    channel.start();
  }

  #runOnChannel(call: ChannelCall, args: Buffer): Promise<void> {
    const { name } = call;
    return this.#run(call, name, async () => {
      this.#context.sessions.seen(call.client);
      if (name === 'attend') return this.#attend(call, args);
      if (!isSmallCallName(name)) throw unknownCall(name);
      if (beginnings.has(name)) this.#refuseWhenDraining();
      return this.#counted(call, name, () => smallOperations[name](this.#context, args, call));
    });
  }

  async #run(
    call: SmallCall & Pick<ServerCall, 'finish' | 'fail'>,
    name: string,
    operate: () => Promise<object | undefined>,
  ): Promise<void> {
    this.#running += 1;
    try {
      call.finish(await operate());
    } catch (error) {
      this.#log(call, name, error);
      call.fail(error);
    } finally {
      this.#running -= 1;
    }
  }
  async #counted(
    call: SmallCall,
    name: CallName,
    operate: () => Promise<object | undefined>,
  ): Promise<object | undefined> {
    let outcome = 'ok';
    try {
      return await operate();
    } catch (error) {
      outcome = call.signal.aborted ? 'cancelled' : asQuorateError(error).code;
      throw error;
    } finally {
      this.#options.meter.count('node_calls', { call: labels.get(name) ?? name, outcome });
    }
  }

  #attend({ client }: SmallCall, payload: Buffer): object {
    this.#heardMs = this.#options.clock.monotonicMs();
    this.#context.sessions.release(client, decodeMessage(attendArguments, payload).released);
    const problem = this.#options.problem?.();
    return {
      storeId: this.#context.replica.storeId,
      draining: this.#draining !== undefined,
      nowMs: this.#options.clock.nowMs(),
      ...(problem === undefined ? {} : { problem }),
    };
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

  #log(call: SmallCall, name: string, error: unknown): void {
    if (call.signal.aborted) return;
    const { code } = asQuorateError(error);
    const facts = { component: 'node-api', call: name, repo: call.repositoryId, err: error };
    if (code === 'internal') this.#options.logger.error(facts, 'a call failed');
    // Whoever asked is told no more than that: which file it was stays here.
    else if (ownTrouble.has(code)) this.#options.logger.warn(facts, 'a call failed');
    else this.#options.logger.debug(facts, 'a call failed');
  }
}

/** Of this node's disk. */
const ownTrouble: ReadonlySet<string> = new Set(['storage-failure', 'data-corrupt']);

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

/** A member's request. What is made with the cluster's secret is there where it has one. */
interface Taken {
  readonly client: string;
  readonly mac: string | undefined;
  readonly argumentsDigest: string | undefined;
}

interface Refused {
  readonly status: number;
  readonly refused: QuorateError;
}

/** Refuses before anything of the body is read, so the connection ends. */
function refuse(response: ServerResponse, { status, refused }: Refused, headers: Headers): void {
  response.on('error', () => undefined);
  const body = encodeError(refused);
  response.writeHead(status, { ...headers, ...closing(body) });
  response.end(body);
}

/** The same to a connection that was to become a channel. */
function plainRefusal({ status, refused }: Refused, headers: Headers): string {
  const body = encodeError(refused);
  return `${plainHead(status, { ...headers, ...closing(body) })}${body.toString()}`;
}

function plainHead(status: number, headers: Headers): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n`;
}

type Headers = Readonly<Record<string, string>>;

function closing(body: Buffer): Headers {
  return {
    'Content-Type': 'application/json',
    'Content-Length': String(body.length),
    Connection: 'close',
  };
}

function unknownCall(name: string): QuorateError {
  return new QuorateError('unimplemented', `this node knows no call ${name}`);
}

/** Values of labels are in lower case. */
const labels: ReadonlyMap<string, string> = new Map(
  Object.keys(operations).map((name) => [
    name,
    name.replaceAll(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`),
  ]),
);
