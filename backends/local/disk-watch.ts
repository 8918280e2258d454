import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock, Logger, Meter } from '../contract/environment.js';
import { cannotBeWritten, diskProblem, type DiskSpace, spaceOf } from './disk-space.js';

/** What is wrong with a disk. */
export interface DiskFinding {
  /** What, where, and what to do. */
  readonly problem: string;
  /** It answers nothing: what is on it cannot be read either. */
  readonly hangs: boolean;
}

export interface DiskWatchOptions {
  readonly directory: string;
  /** Whether a block may be written there, and synced: a disk that hangs may still say how full it is. */
  readonly writes: boolean;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: Meter;
}

const lookEveryMs = 5_000;

/**
 * A look that takes longer finds a disk that hangs. A busy disk may need some seconds to sync a block, and so may
 * threads that are all at work.
 */
const hangsAfterMs = 10_000;
/** Kept, and written anew by each look: making and removing a file would cost the file system more. */
const probeFile = 'disk-probe';
const probe = Buffer.from('quorate looks here whether the disk takes what is written\n');

/**
 * Looks whether a disk takes what is written. One look at a time, however many ask: each that hangs holds a thread of
 * this process.
 */
export class DiskWatch {
  readonly #options: DiskWatchOptions;
  #finding: DiskFinding | undefined;
  #space: DiskSpace | undefined;
  #looking: Promise<void> | undefined;
  #sinceMs = 0;

  constructor(options: DiskWatchOptions) {
    this.#options = options;
    const { meter } = options;
    meter.gauge('disk_trouble', { kind: 'hangs' }, () => (this.#finding?.hangs === true ? 1 : 0));
    meter.gauge('disk_trouble', { kind: 'takes-nothing' }, () => {
      return this.#finding?.hangs === false ? 1 : 0;
    });
  }

  /** What the last look found; undefined when all was well, or nobody has looked yet. */
  get finding(): DiskFinding | undefined {
    return this.#finding;
  }

  /** As the disk said last; undefined when it has not, or could not. */
  get space(): DiskSpace | undefined {
    return this.#space;
  }

  /** Looks every few seconds, and logs what changes. Never rejects; resolves soon after the signal, whatever the disk does. */
  async keepLooking(signal: AbortSignal): Promise<void> {
    const { clock, directory, logger } = this.#options;
    const about = { component: 'disk', directory };
    let told: string | undefined;
    while (!signal.aborted) {
      await this.look();
      const problem = this.#finding?.problem;
      if (problem !== told) {
        if (problem === undefined) logger.info(about, 'the disk takes what is written again');
        else logger.error(about, problem);
        told = problem;
      }
      await clock.sleep(lookEveryMs, signal);
    }
  }

  /**
   * Looks, or joins who looks, for `waitMs` at most: then it is what was found before. By default it waits until
   * something is found. Never rejects.
   */
  async look(waitMs = hangsAfterMs): Promise<DiskFinding | undefined> {
    const { clock } = this.#options;
    if (this.#looking === undefined) {
      this.#sinceMs = clock.monotonicMs();
      this.#looking = this.#lookOnce();
    }
    const leftMs = this.#sinceMs + hangsAfterMs - clock.monotonicMs();
    if (leftMs > 0) {
      const waited = new AbortController();
      const late = clock.sleep(Math.min(waitMs, leftMs), waited.signal);
      await Promise.race([this.#looking, late]);
      waited.abort();
    }
    const forMs = clock.monotonicMs() - this.#sinceMs;
    if (this.#looking !== undefined && forMs >= hangsAfterMs) this.#finding = this.#hanging();
    return this.#finding;
  }

  async #lookOnce(): Promise<void> {
    const { directory, writes } = this.#options;
    const found = await diskProblem(directory);
    // Before anything is written: a busy disk takes seconds for that, and whoever describes a node does not wait.
    this.#space = await spaceOf(directory).catch(() => undefined);
    const problem = found ?? (writes ? await writeProblem(directory) : undefined);
    this.#finding = problem === undefined ? undefined : { problem, hangs: false };
    this.#looking = undefined;
  }

  #hanging(): DiskFinding {
    const { directory } = this.#options;
    return {
      problem: `the disk of ${directory} hangs: nothing that was asked of it has come back for ${hangsAfterMs / 1000} s; see the kernel's log and what the disk is on, and stop this process if it stays so`,
      hangs: true,
    };
  }
}

/** Overwrites a block and waits until the disk has it. Never rejects. */
async function writeProblem(directory: string): Promise<string | undefined> {
  try {
    const file = await open(
      join(directory, probeFile),
      constants.O_WRONLY | constants.O_CREAT,
      0o600,
    );
    try {
      await file.write(probe, 0, probe.length, 0);
      await file.datasync();
    } finally {
      await file.close();
    }
    return undefined;
  } catch (error) {
    return cannotBeWritten(directory, error);
  }
}
