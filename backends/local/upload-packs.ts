/**
 * Gits that serve one fetch after another. In protocol v2 a git that talks to a client by itself answers request after
 * request, each of which it takes for the first (gitprotocol-v2(5): "stateless"); to start one costs more than a small
 * fetch does. Nothing of a request stays in it but what it has read of commits, which only a client's shallow
 * boundary would make wrong: such requests have a git of their own.
 */
import { Readable } from 'node:stream';
import type { GitStream, UploadPackRun } from '../contract/backend.js';
import type { Clock } from '../contract/environment.js';
import type { GitConversation, GitRunner } from '../git/git-runner.js';
import { AnswerEnd } from './answer-end.js';

/** A view of refs that is held: gone after `release`. */
export interface HeldView {
  readonly directory: string;
  readonly release: () => void;
}

/** Gits that wait for their next request, of all repositories: some megabytes each. */
const maxIdle = 8;
/** They hold packs open that maintenance may have replaced. */
const idleMs = 10_000;
/** Each leaves some commits in its memory. */
const maxRequests = 64;
/** Requests of fetches that have no more than some thousand haves. */
const maxRequestBytes = 64 * 1024;

interface Server {
  readonly key: string;
  readonly conversation: GitConversation;
  /** It has said what it can do. */
  advertised: boolean;
  requests: number;
  dead: boolean;
}

export class UploadPacks {
  readonly #git: GitRunner;
  readonly #clock: Clock;
  /** The longest idle first. */
  readonly #idle = new Set<Server>();
  #closed = false;

  constructor({ git, clock }: { readonly git: GitRunner; readonly clock: Clock }) {
    this.#git = git;
    this.#clock = clock;
  }

  /** Whether a request is one of those that may follow another in one git. */
  static serves({ protocol, stateless, input }: UploadPackRun): boolean {
    if (protocol !== 2 || !stateless || !(input instanceof Uint8Array)) return false;
    if (input.length > maxRequestBytes) return false;
    const text = Buffer.from(input.buffer, input.byteOffset, input.byteLength).toString('latin1');
    // git answers a request without wants with nothing at all, which has no end.
    return text.includes('want ') && !/shallow|deepen|filter/.test(text);
  }

  /** Answers one request over a view, which it releases when it needs it no more. */
  async serve(
    view: HeldView,
    run: UploadPackRun & { readonly input: Uint8Array },
  ): Promise<GitStream> {
    const key = `${JSON.stringify(run.config)} ${view.directory}`;
    const waiting = this.#takeIdle(key);
    if (waiting !== undefined) view.release();
    const server = waiting ?? (await this.#start(key, view, run.config));
    // Whoever reads the answer finds out that git is gone.
    server.conversation.write(run.input).catch(() => undefined);
    return this.#answer(server, run.signal);
  }

  /** Ends those that wait. What runs is ended by its request. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#idle].map((server) => this.#end(server)));
  }

  async #start(key: string, view: HeldView, config: UploadPackRun['config']): Promise<Server> {
    let conversation: GitConversation;
    try {
      conversation = await this.#git.converse({
        args: ['upload-pack', '--strict', view.directory],
        env: { GIT_PROTOCOL: 'version=2' },
        config,
      });
    } catch (error) {
      view.release();
      throw error;
    }
    const server = { key, conversation, advertised: false, requests: 0, dead: false };
    void this.#watch(server, view);
    return server;
  }

  async #watch(server: Server, view: HeldView): Promise<void> {
    await server.conversation.left;
    server.dead = true;
    this.#idle.delete(server);
    await server.conversation.exited;
    view.release();
  }

  #takeIdle(key: string): Server | undefined {
    for (const server of this.#idle) {
      if (server.key !== key || server.dead) continue;
      this.#idle.delete(server);
      return server;
    }
    return undefined;
  }

  /** Takes a git that has answered. */
  #putBack(server: Server): void {
    server.requests += 1;
    if (this.#closed || server.requests >= maxRequests) {
      void this.#end(server);
      return;
    }
    this.#idle.add(server);
    const [oldest] = this.#idle;
    if (this.#idle.size > maxIdle && oldest !== undefined) void this.#end(oldest);
    void this.#endIdle(server);
  }

  /** When it was not asked again meanwhile. */
  async #endIdle(server: Server): Promise<void> {
    const { requests } = server;
    await this.#clock.sleep(idleMs);
    if (server.requests === requests && this.#idle.has(server)) await this.#end(server);
  }

  async #end(server: Server): Promise<void> {
    this.#idle.delete(server);
    server.conversation.end();
    await server.conversation.exited;
  }

  #answer(server: Server, signal: AbortSignal): GitStream {
    const { conversation } = server;
    const kill = (): void => conversation.kill();
    signal.addEventListener('abort', kill);
    if (signal.aborted) kill();
    let whole: ((end: Awaited<GitStream['exited']>) => void) | undefined;
    const answered = new Promise<Awaited<GitStream['exited']>>((resolve) => {
      whole = resolve;
    });
    const over = (complete: boolean): void => {
      signal.removeEventListener('abort', kill);
      if (!complete) {
        kill();
        return;
      }
      whole?.({ exitCode: 0, signal: null, stderr: '' });
      this.#putBack(server);
    };
    return {
      stdout: Readable.from(readAnswer(server, over), { objectMode: false }),
      exited: Promise.race([answered, conversation.exited]),
      kill,
    };
  }
}

/** What git says up to the end of its answer. `over` is told whether that came; git may have died, or the reader left. */
async function* readAnswer(
  server: Server,
  over: (complete: boolean) => void,
): AsyncGenerator<Buffer, void, undefined> {
  const { stdout } = server.conversation;
  let complete = false;
  try {
    if (!server.advertised) {
      const advertisement = new AnswerEnd();
      while (!advertisement.reached) {
        const chunk = await nextChunk(stdout);
        if (chunk === undefined) return;
        advertisement.see(chunk);
        if (advertisement.lost) return;
      }
      // It says no more before it is asked, and it was asked only now that it is read: what is behind it is the answer.
      server.advertised = true;
      if (advertisement.rest.length > 0) stdout.unshift(advertisement.rest);
    }
    const end = new AnswerEnd();
    while (!end.reached) {
      const chunk = await nextChunk(stdout);
      if (chunk === undefined) return;
      end.see(chunk);
      if (end.lost) return;
      complete = end.reached && end.rest.length === 0;
      yield chunk;
    }
  } finally {
    over(complete);
  }
}

async function nextChunk(stdout: Readable): Promise<Buffer | undefined> {
  for (;;) {
    const chunk: unknown = stdout.read();
    if (Buffer.isBuffer(chunk)) return chunk;
    if (stdout.readableEnded || stdout.destroyed) return undefined;
    await new Promise<void>((resolve) => {
      const changed = (): void => {
        stdout.off('readable', changed).off('end', changed).off('close', changed);
        stdout.off('error', changed);
        resolve();
      };
      stdout.on('readable', changed).on('end', changed).on('close', changed);
      stdout.on('error', changed);
    });
  }
}
