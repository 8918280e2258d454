import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { stopProcess } from '../../backends/contract/testing/stopped.js';
import { mainScript } from '../server-process.js';
import { waitFor } from '../wait.js';

export interface MemberPlaces {
  readonly name: string;
  readonly dataDirectory: string;
  /** Further arguments of `quorate serve`. */
  readonly flags: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** A command that is handed the member's own, to run it on another host. Default none. */
  readonly enter?: readonly string[];
  /** What it writes into its data directory when it serves. */
  readonly readyFile: 'server.json' | 'node.json';
  readonly detached: boolean;
}

const shownLogCharacters = 4_000;

/** One `quorate serve` of a cluster, which can be killed, paused and started again on its data and its ports. */
export class MemberProcess {
  readonly places: MemberPlaces;
  #child: ChildProcess | undefined;
  #facts: Readonly<Record<string, unknown>> = {};

  constructor(places: MemberPlaces) {
    this.places = places;
  }

  get name(): string {
    return this.places.name;
  }

  get dataDirectory(): string {
    return this.places.dataDirectory;
  }

  get running(): boolean {
    const child = this.#child;
    return child?.pid !== undefined && child.exitCode === null && child.signalCode === null;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error(`${this.name} was not started`);
    return this.#child.pid;
  }

  /** What it writes, over all restarts, beside its data directory. */
  get logFile(): string {
    return `${this.dataDirectory}.log`;
  }

  get log(): string {
    return existsSync(this.logFile) ? readFileSync(this.logFile, 'utf8') : '';
  }

  /** A text that it told when it was ready: `httpUrl`, `opsUrl`, `address`, ... */
  fact(key: string): string {
    const value = this.#facts[key];
    if (typeof value === 'string' || typeof value === 'number') return String(value);
    throw new Error(`${this.name} did not tell its ${key}`);
  }

  /** What starts it: a program and its arguments. */
  get command(): readonly [string, ...string[]] {
    const { dataDirectory, flags, enter = [] } = this.places;
    const [program, ...rest] = [...enter, process.execPath];
    return [program, ...rest, mainScript, 'serve', '--data', dataDirectory, ...flags];
  }

  /** Calls when the process that runs now has ended, with its signal or exit status. */
  onEnd(told: (how: NodeJS.Signals | number | null) => void): void {
    this.#child?.once('exit', (status, signal) => told(signal ?? status));
  }

  start(): this {
    if (this.running) throw new Error(`${this.name} runs already`);
    const { env, detached } = this.places;
    const [program, ...args] = this.command;
    const log = openSync(this.logFile, 'a', 0o600);
    try {
      this.#child = spawn(program, args, {
        env: { ...env },
        stdio: ['ignore', log, log],
        detached,
      });
    } finally {
      closeSync(log);
    }
    return this;
  }

  /**
   * Resolves when it serves; rejects with its output when it ends instead. One that ends since etcd has answered nobody
   * for ten seconds, on a machine that is that busy, is started again, as whoever runs servers does.
   */
  async ready(): Promise<this> {
    const file = path.join(this.dataDirectory, this.places.readyFile);
    this.#facts = await waitFor(`${this.name} to serve`, async () => {
      if (!this.running) {
        const last = this.log.trimEnd().split('\n').at(-1) ?? '';
        if (!last.includes('(no answer in time)'))
          throw new Error(`${this.name} ended:\n${this.log.slice(-shownLogCharacters)}`);
        this.start();
      }
      const text = await readFile(file, 'utf8').catch(() => undefined);
      if (text === undefined) return undefined;
      const facts: Readonly<Record<string, unknown>> = JSON.parse(text);
      return facts['pid'] === this.pid ? facts : undefined;
    });
    return this;
  }

  /** SIGTERM, and waits until it has drained and gone. Resolves with its exit status. */
  async stop(): Promise<number | null> {
    this.#child?.kill('SIGTERM');
    // A paused process takes a signal only when it goes on.
    this.resume();
    await this.gone();
    return this.#child?.exitCode ?? null;
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (!this.running) return;
    this.#child?.kill(signal);
    await this.gone();
  }

  /** SIGSTOP: it keeps its connections and answers nothing. */
  async pause(): Promise<void> {
    if (this.#child !== undefined) await stopProcess(this.#child);
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  async gone(): Promise<void> {
    await waitFor(`${this.name} to end`, () => !this.running);
  }
}
