/** What is asked of a disk. */
export type DiskAction = 'read' | 'write' | 'rename' | 'fsync';

/** What of a disk does not answer: all that is asked, all that changes it, or only what waits for the medium. */
export type HangKind = 'everything' | 'changes' | 'syncs';

/**
 * A disk that does not answer for a while: what is asked of it waits, and its process goes on. A controller that resets
 * itself, a network disk whose server is away.
 */
export class Hang {
  readonly kind: HangKind;
  readonly #waiting: (() => void)[] = [];

  constructor(kind: HangKind) {
    this.kind = kind;
  }

  holds(action: DiskAction): boolean {
    if (this.kind === 'everything') return true;
    return action === 'fsync' || (this.kind === 'changes' && action !== 'read');
  }

  /** What `run` answers, when the disk answers again; never, if it never does. */
  whenOver<T>(run: () => T | Promise<T>): Promise<T> {
    return new Promise<void>((resolve) => this.#waiting.push(resolve)).then(run);
  }

  /** Everything that waits goes on, in its order. */
  end(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
