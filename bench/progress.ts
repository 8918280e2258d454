/** Tells on stderr what is being done. */
export interface Progress {
  show(message: string): void;
  end(): void;
}

/** Without a terminal: a line at most this often. */
const lineIntervalMs = 5_000;

/** One line that is written over on a terminal; elsewhere a line every five seconds. */
export function createProgress(stderr: NodeJS.WriteStream): Progress {
  let shown = false;
  let nextAt = 0;
  return {
    show: (message) => {
      if (stderr.isTTY) {
        stderr.write(`\r\u001B[K${message.slice(0, Math.max(20, stderr.columns - 1))}`);
        shown = true;
      } else if (performance.now() >= nextAt) {
        stderr.write(`${message}\n`);
        nextAt = performance.now() + lineIntervalMs;
      }
    },
    end: () => {
      if (shown) stderr.write('\r\u001B[K');
      shown = false;
    },
  };
}
