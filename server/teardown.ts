import type { Clock, Logger } from '../backends/contract/environment.js';

/**
 * A part that hangs while closing must not keep the rest open: each gets this long. None has more to do than to end
 * children and to close files; what takes its time (requests that run) was waited for before.
 */
const closeTimeoutMs = 10_000;

/** What was opened, closed in reverse order: at the end, or at once when the start fails half-way. */
export class Teardown {
  readonly #parts: { readonly name: string; readonly close: () => Promise<void> }[] = [];
  readonly #clock: Clock;
  readonly #logger: Logger;

  constructor(options: { clock: Clock; logger: Logger }) {
    this.#clock = options.clock;
    this.#logger = options.logger;
  }

  add(name: string, close: () => Promise<void>): void {
    this.#parts.push({ name, close });
  }

  /** Never rejects: what fails is logged. Resolves to true when every part closed cleanly. */
  async run(): Promise<boolean> {
    let clean = true;
    for (let part = this.#parts.pop(); part !== undefined; part = this.#parts.pop()) {
      const { name, close } = part;
      const done = new AbortController();
      const late = this.#clock.sleep(closeTimeoutMs, done.signal).then(() => 'late' as const);
      try {
        if ((await Promise.race([close(), late])) === 'late') {
          clean = false;
          this.#logger.error({ component: 'server', part: name }, 'a part did not close in time');
        }
      } catch (error) {
        clean = false;
        this.#logger.error(
          { component: 'server', part: name, err: error },
          'a part failed to close',
        );
      } finally {
        done.abort();
      }
    }
    return clean;
  }
}
