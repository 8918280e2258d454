import type { Clock } from '../../backends/contract/environment.js';
import { flushPkt } from '../wire/pkt-line.js';
import { keepAlivePkt, writeSideBand } from '../wire/side-band.js';
import type { ClientOutput } from './client-output.js';
import type { GitServiceLimits } from './limits.js';

/**
 * What a pusher hears while the server works, and its report. Progress goes out on side-band 2 where that was
 * negotiated, and is dropped otherwise, or when the client does not keep up.
 */
export class PushChannel {
  readonly #output: ClientOutput;
  readonly #sideBand: boolean;
  readonly #clock: Clock;
  readonly #limits: GitServiceLimits;
  /** Wakes who breaks the silence. */
  readonly #wake = new AbortController();
  #closed = false;
  #keepingAlive: Promise<void> | undefined;

  constructor(
    output: ClientOutput,
    options: {
      readonly sideBand: boolean;
      readonly clock: Clock;
      readonly limits: GitServiceLimits;
    },
  ) {
    this.#output = output;
    this.#sideBand = options.sideBand;
    this.#clock = options.clock;
    this.#limits = options.limits;
  }

  /** Never throws, never waits. */
  readonly progress = (text: Uint8Array): void => {
    if (!this.#sideBand || this.#closed) return;
    this.#output.offer(writeSideBand(2, text), this.#limits.maxPendingProgressBytes);
  };

  /**
   * From here on silence is broken by empty packets. Not before the pack is in: over HTTP the answer would begin
   * while the request is still being sent, and an early failure could not become a status any more.
   */
  keepAlive(): void {
    if (this.#sideBand && !this.#closed) this.#keepingAlive ??= this.#breakSilence();
  }

  /** No progress after this. */
  async close(): Promise<void> {
    this.#closed = true;
    // A reason of our own: the usual one costs the making of an error.
    if (this.#keepingAlive !== undefined) this.#wake.abort('over');
    await this.#keepingAlive;
  }

  /** The report (`undefined` when none was negotiated) and the end of the side-bands. */
  async finish(report: string | undefined): Promise<void> {
    await this.close();
    if (!this.#sideBand) {
      if (report !== undefined) await this.#output.writeLast(Buffer.from(report));
      return;
    }
    const framed = report === undefined ? [] : [writeSideBand(1, Buffer.from(report))];
    await this.#output.writeLast(Buffer.concat([...framed, flushPkt]));
  }

  async #breakSilence(): Promise<void> {
    const { signal } = this.#wake;
    const { keepAliveMs, maxPendingProgressBytes } = this.#limits;
    let written = this.#output.writtenBytes;
    for (;;) {
      await this.#clock.sleep(keepAliveMs, signal);
      if (signal.aborted) return;
      if (this.#output.writtenBytes === written) {
        this.#output.offer(keepAlivePkt, maxPendingProgressBytes);
      }
      written = this.#output.writtenBytes;
    }
  }
}
