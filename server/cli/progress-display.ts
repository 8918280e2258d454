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
  let step = '';
  const begin = ({ step, done, total }: Progress) => {
    // A total of 0 means that nobody knows yet: a count says more than an empty bar.
    const format = total > 0 ? '{step} {bar} {percentage}% | {value}/{total}' : '{step} {value}';
    const next = new progress.SingleBar(
      { stream: stderr, format, hideCursor: true, barsize: 30, noTTYOutput: false },
      progress.Presets.shades_classic,
    );
    next.start(total, done, { step: step.padEnd(20) });
    return next;
  };
  return {
    update: (now) => {
      if (bar === undefined || now.step !== step || (bar.getTotal() === 0 && now.total > 0)) {
        bar?.stop();
        bar = begin(now);
        step = now.step;
        return;
      }
      if (now.total !== bar.getTotal()) bar.setTotal(now.total);
      bar.update(now.done);
    },
    stop: () => bar?.stop(),
  };
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
