import type { Progress } from './api-client.js';

/** Without a terminal: how often a line of the same step is worth a place in a log. */
const lineIntervalMs = 5_000;

/** Shows how far long work is, on stderr. */
export interface ProgressDisplay {
  update(progress: Progress): void;
  stop(): void;
}

/** Bars when stderr is a terminal; else a line per step, and one every five seconds. */
export async function createProgressDisplay(stderr: NodeJS.WriteStream): Promise<ProgressDisplay> {
  return stderr.isTTY ? await createBars(stderr) : createLines(stderr);
}

async function createBars(stderr: NodeJS.WriteStream): Promise<ProgressDisplay> {
  const { default: progress } = await import('cli-progress');
  let bar: InstanceType<typeof progress.SingleBar> | undefined;
  let last: Progress | undefined;
  const begin = (now: Progress) => {
    // A total of 0 means that nobody knows yet: a count says more than an empty bar.
    const format =
      now.total > 0 ? '{step} {bar} {percentage}% | {value}/{total}' : '{step} {value}';
    const next = new progress.SingleBar(
      { stream: stderr, format, hideCursor: true, barsize: 30, noTTYOutput: false },
      progress.Presets.shades_classic,
    );
    next.start(now.total, now.done, { step: label(now) });
    return next;
  };
  return {
    update: (now) => {
      // Steps of one whole (the same total, further on) share a bar; a step that counts something else has its own.
      const goesOn = now.total === last?.total && (now.step === last.step || now.done > last.done);
      last = now;
      if (bar !== undefined && goesOn) {
        bar.update(now.done, { step: label(now) });
        return;
      }
      bar?.stop();
      bar = begin(now);
    },
    stop: () => bar?.stop(),
  };
}

function label({ step }: Progress): string {
  return step.padEnd(12);
}

function createLines(stderr: NodeJS.WriteStream): ProgressDisplay {
  let step = '';
  let saidMs = -Infinity;
  return {
    update: (now) => {
      const nowMs = performance.now();
      if (now.step === step && nowMs - saidMs < lineIntervalMs) return;
      step = now.step;
      saidMs = nowMs;
      stderr.write(
        now.total > 0 ? `${now.step}: ${now.done} of ${now.total}\n` : `${now.step}: ${now.done}\n`,
      );
    },
    stop: () => undefined,
  };
}
