import type { Readable } from 'node:stream';
import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { GitConversation, GitResult, GitRunner } from './git-runner.js';
import { Slots } from './spawner/slots.js';

/** What the answers of one conversation are read with. */
export interface Dialogue {
  write(bytes: Uint8Array | string): Promise<void>;
  /** The next line without its newline; undefined when git has ended. */
  readLine(): Promise<string | undefined>;
  /** How git ended; for an exchange that finds that it has. */
  ended(): Promise<Pick<GitResult, 'exitCode' | 'signal' | 'stderr'>>;
}

export interface ConversationPoolOptions {
  readonly git: GitRunner;
  readonly clock: Clock;
  /** git's arguments and configuration; GIT_DIR is set for each repository. */
  readonly args: readonly string[];
  readonly config?: Readonly<Record<string, string>>;
  /** As for the runner's `converse`. */
  readonly ownHead?: boolean;
  /** Processes kept (default: a quarter of the runner's conversations). An idle one has some 300 KB of its own. */
  readonly maxOpen?: number;
  /** Exchanges after which a process is replaced (default: none). */
  readonly maxExchanges?: number;
  /** A process that was not used for this long ends (default 30 s). */
  readonly idleMs?: number;
}

/** An exchange that takes longer than this is stuck; its process is killed. */
const exchangeTimeoutMs = 300_000;
/** Exchanges at once: more than any machine has cores for. */
const maxBusy = 64;
/** Waiting exchanges; far more than the pushes that run at once. */
const maxQueued = 1024;

interface Partner {
  readonly conversation: GitConversation;
  readonly dialogue: Dialogue;
  dead: boolean;
  exchanges: number;
  lastUsedMs: number;
}

interface Place {
  partner: Partner | undefined;
  /** One exchange at a time on one repository. */
  readonly turn: Slots;
}

/** Persistent git processes, one for each repository that was used lately. */
export class ConversationPool {
  readonly #options: ConversationPoolOptions;
  readonly #maxOpen: number;
  readonly #idleMs: number;
  readonly #busy: Slots;
  /** In the order of last use. */
  readonly #places = new Map<string, Place>();
  readonly #stop = new AbortController();
  #sweeping = false;
  /** Processes that are being started. */
  #starting = 0;

  constructor(options: ConversationPoolOptions) {
    this.#options = options;
    this.#maxOpen = options.maxOpen ?? Math.floor(options.git.conversations / 4);
    this.#idleMs = options.idleMs ?? 30_000;
    this.#busy = new Slots(Math.min(this.#maxOpen, maxBusy), maxQueued);
  }

  /** Processes that are open. */
  get open(): number {
    let open = 0;
    for (const { partner } of this.#places.values()) if (partner !== undefined) open += 1;
    return open;
  }

  /**
   * Runs one exchange with the repository's process, after those that came before; `env`, the same at every call for
   * one repository, goes to a process that has to be started. When `talk` rejects, the process
   * is ended, since what it would say next is unknown.
   */
  async exchange<T>(
    gitDir: string,
    talk: (dialogue: Dialogue) => Promise<T>,
    env: Readonly<Record<string, string>> = {},
  ): Promise<T> {
    const place = this.#place(gitDir);
    await place.turn.take();
    try {
      await this.#busy.take();
      try {
        return await this.#talk(gitDir, place, { talk, env });
      } finally {
        this.#busy.release();
      }
    } finally {
      place.turn.release();
      this.#forget(gitDir, place);
    }
  }

  /** Ends the repository's process, after the exchange that runs. For a repository that goes away. */
  async release(gitDir: string): Promise<void> {
    const place = this.#places.get(gitDir);
    if (place === undefined) return;
    await place.turn.take();
    const { partner } = place;
    place.partner = undefined;
    place.turn.release();
    this.#forget(gitDir, place);
    await endPartner(partner);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    const partners = [...this.#places.values()].map(({ partner }) => partner);
    this.#places.clear();
    await Promise.all(partners.map(endPartner));
  }

  async #talk<T>(
    gitDir: string,
    place: Place,
    {
      talk,
      env,
    }: {
      readonly talk: (dialogue: Dialogue) => Promise<T>;
      readonly env: Readonly<Record<string, string>>;
    },
  ): Promise<T> {
    const partner = await this.#partner(gitDir, place, env);
    const timer = setTimeout(() => partner.conversation.kill(), exchangeTimeoutMs);
    try {
      return await talk(partner.dialogue);
    } catch (error) {
      place.partner = undefined;
      partner.conversation.kill();
      // Whoever looks at the repository next is to find it at rest: a git that is being killed may still write.
      await partner.conversation.exited;
      throw error;
    } finally {
      clearTimeout(timer);
      partner.lastUsedMs = this.#options.clock.monotonicMs();
      partner.exchanges += 1;
    }
  }

  async #partner(
    gitDir: string,
    place: Place,
    env: Readonly<Record<string, string>>,
  ): Promise<Partner> {
    const { maxExchanges = Infinity } = this.#options;
    if (place.partner?.dead === false) {
      if (place.partner.exchanges < maxExchanges) return place.partner;
      const used = place.partner;
      place.partner = undefined;
      await endPartner(used);
    }
    place.partner = undefined;
    if (this.#stop.signal.aborted) throw new QuorateError('unavailable', 'the server is stopping');
    const evicted = this.#makeRoom();
    this.#starting += 1;
    let conversation: GitConversation;
    try {
      // Until it has exited it counts as a process like the others.
      await endPartner(evicted);
      const { git, args, config, ownHead = false } = this.#options;
      conversation = await git.converse({
        args,
        env: { ...env, GIT_DIR: gitDir },
        ownHead,
        ...(config === undefined ? {} : { config }),
      });
    } finally {
      this.#starting -= 1;
    }
    const partner: Partner = {
      conversation,
      dialogue: {
        write: (bytes) => conversation.write(bytes),
        readLine: lineReader(conversation.stdout),
        ended: () => conversation.exited,
      },
      dead: false,
      exchanges: 0,
      lastUsedMs: this.#options.clock.monotonicMs(),
    };
    conversation.stdout.once('close', () => (partner.dead = true));
    // What it wrote may still lie there, but it takes no more questions.
    void conversation.left.then(() => (partner.dead = true));
    place.partner = partner;
    void this.#sweep();
    return partner;
  }

  #forget(gitDir: string, place: Place): void {
    if (place.partner !== undefined || place.turn.taken > 0) return;
    if (this.#places.get(gitDir) === place) this.#places.delete(gitDir);
  }

  /** The place of a repository, moved to the end of the order of use. */
  #place(gitDir: string): Place {
    const place = this.#places.get(gitDir) ?? {
      partner: undefined,
      turn: new Slots(1, maxQueued),
    };
    this.#places.delete(gitDir);
    this.#places.set(gitDir, place);
    return place;
  }

  /**
   * Takes an idle process out of the pool when there is no room for another one; its end is the caller's to wait for.
   * At most `maxOpen` exchanges run, so when that many processes are open, one of them is idle.
   */
  #makeRoom(): Partner | undefined {
    if (this.open + this.#starting < this.#maxOpen) return undefined;
    for (const [gitDir, { turn, partner }] of this.#places) {
      if (turn.taken > 0 || partner === undefined) continue;
      this.#places.delete(gitDir);
      return partner;
    }
    return undefined;
  }

  #drop(gitDir: string, { partner }: Place): void {
    if (partner === undefined) return;
    this.#places.delete(gitDir);
    void endPartner(partner);
  }

  async #sweep(): Promise<void> {
    if (this.#sweeping) return;
    this.#sweeping = true;
    const { clock } = this.#options;
    while (this.open > 0 && !this.#stop.signal.aborted) {
      await clock.sleep(this.#idleMs, this.#stop.signal);
      const before = clock.monotonicMs() - this.#idleMs;
      for (const [gitDir, place] of this.#places) {
        if (place.turn.taken > 0 || (place.partner?.lastUsedMs ?? 0) > before) continue;
        this.#drop(gitDir, place);
      }
    }
    this.#sweeping = false;
  }
}

/** git ends by itself at the end of its input, and aborts what it had begun. */
async function endPartner(partner: Partner | undefined): Promise<void> {
  if (partner === undefined) return;
  partner.conversation.end();
  await partner.conversation.exited;
}

/**
 * Lines as they come. Answers are bounded by the questions, so they are taken in at once, also between exchanges:
 * that is how the end of an idle git is noticed.
 */
function lineReader(stdout: Readable): () => Promise<string | undefined> {
  let rest = '';
  let ended = false;
  let wake: (() => void) | undefined;
  stdout.on('data', (chunk: Buffer) => {
    rest += chunk.toString('latin1');
    wake?.();
  });
  stdout.once('close', () => {
    ended = true;
    wake?.();
  });
  return async () => {
    for (;;) {
      const end = rest.indexOf('\n');
      if (end >= 0) {
        const line = rest.slice(0, end);
        rest = rest.slice(end + 1);
        return line;
      }
      if (ended) return undefined;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  };
}
