import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { stopProcess } from '../../../contract/testing/stopped.js';

/** Files for TLS between clients and members. Members ask clients for a certificate of this CA. */
export interface EtcdTls {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

export interface MemberPlace {
  readonly name: string;
  readonly host: string;
  readonly clientPort: number;
  readonly peerPort: number;
  /** Plain HTTP, whatever the client port speaks: `/health` and `/metrics`. */
  readonly healthPort: number;
  readonly dataDirectory: string;
  /** A command that is handed etcd's own, to run it elsewhere. Default none. */
  readonly enter?: readonly string[];
}

export interface MemberStart {
  /** `name=peer URL`, comma separated. */
  readonly initialCluster: string;
  readonly token: string;
  readonly heartbeatMs: number;
  readonly electionMs: number;
  readonly tls: EtcdTls | undefined;
  readonly detached: boolean;
  readonly extraArguments: readonly string[];
}

/** Bytes of output that are kept for messages. */
const maxLogBytes = 64 * 1024;

/** One etcd process, which can be killed, paused and started again on its data. */
export class EtcdMember {
  readonly place: MemberPlace;
  readonly #start: MemberStart;
  #child: ChildProcess | undefined;
  #log = '';

  constructor(place: MemberPlace, start: MemberStart) {
    this.place = place;
    this.#start = start;
  }

  get name(): string {
    return this.place.name;
  }

  /** `HOST:PORT` for clients. */
  get endpoint(): string {
    return `${this.place.host}:${this.place.clientPort}`;
  }

  get clientUrl(): string {
    return `${this.#start.tls === undefined ? 'http' : 'https'}://${this.endpoint}`;
  }

  get peerUrl(): string {
    return `http://${this.place.host}:${this.place.peerPort}`;
  }

  get pid(): number | undefined {
    return this.running ? this.#child?.pid : undefined;
  }

  get running(): boolean {
    const child = this.#child;
    // Without an id it could not be spawned at all.
    return child?.pid !== undefined && child.exitCode === null && child.signalCode === null;
  }

  /** What starts it: a program and its arguments. */
  get command(): readonly [string, ...string[]] {
    const { place } = this;
    const { initialCluster, token, heartbeatMs, electionMs, tls, extraArguments } = this.#start;
    const args = [
      ['--name', place.name],
      ['--data-dir', place.dataDirectory],
      ['--listen-client-urls', this.clientUrl],
      ['--advertise-client-urls', this.clientUrl],
      ['--listen-peer-urls', this.peerUrl],
      ['--initial-advertise-peer-urls', this.peerUrl],
      ['--listen-metrics-urls', `http://${place.host}:${place.healthPort}`],
      ['--initial-cluster', initialCluster],
      ['--initial-cluster-token', token],
      ['--heartbeat-interval', String(heartbeatMs)],
      ['--election-timeout', String(electionMs)],
      // The default from etcd 3.5 on: fewer elections without a winner.
      ['--pre-vote'],
      ['--logger', 'zap'],
      ['--log-level', 'error'],
      ...(tls === undefined ? [] : tlsArguments(tls)),
      extraArguments,
    ].flat();
    const [program = 'etcd', ...rest] = [...(place.enter ?? []), 'etcd', ...args];
    return [program, ...rest];
  }

  /** Calls when the process that runs now has ended, with its signal or exit status. */
  onEnd(told: (how: NodeJS.Signals | number | null) => void): void {
    this.#child?.once('exit', (status, signal) => told(signal ?? status));
  }

  /** The last of what it wrote. */
  get log(): string {
    return this.#log;
  }

  /** Starts the process; `health` says when it serves. */
  start(): void {
    if (this.running) throw new Error(`${this.name} runs already`);
    const { detached } = this.#start;
    const [program, ...args] = this.command;
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#log = (this.#log + text).slice(-maxLogBytes);
      });
    }
    child.on('error', (error) => {
      this.#log += `${error.message}: Debian's package etcd-server has it`;
    });
    // A test that crashes leaves no member behind.
    const killNow = (): void => {
      child.kill('SIGKILL');
    };
    process.once('exit', killNow);
    child.once('close', () => process.off('exit', killNow));
    this.#child = child;
  }

  /** Whether it serves, which takes a leader. */
  async healthy(): Promise<boolean> {
    const text = await this.#ask('health');
    return text !== undefined && /"health":\s*"true"/.test(text);
  }

  /** Whether it says that it leads. A paused or dead one does not answer. */
  async leads(): Promise<boolean> {
    const text = await this.#ask('metrics');
    return text !== undefined && /^etcd_server_is_leader 1$/m.test(text);
  }

  /** SIGKILL unless told otherwise; resolves when the process has gone. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.running) return;
    const gone = once(child, 'close');
    child.kill(signal);
    await gone;
  }

  /** SIGSTOP: it keeps its connections and answers nothing. */
  async pause(): Promise<void> {
    if (this.#child !== undefined) await stopProcess(this.#child);
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  async #ask(path: string): Promise<string | undefined> {
    if (!this.running) return undefined;
    const { host, healthPort } = this.place;
    try {
      const reply = await fetch(`http://${host}:${healthPort}/${path}`, {
        signal: AbortSignal.timeout(1_000),
        headers: { connection: 'close' },
      });
      return await reply.text();
    } catch {
      return undefined;
    }
  }
}

function tlsArguments(tls: EtcdTls): readonly (readonly string[])[] {
  return [
    ['--cert-file', tls.certFile],
    ['--key-file', tls.keyFile],
    ['--trusted-ca-file', tls.caFile],
    ['--client-cert-auth'],
  ];
}
