import type { MaintenanceProgress } from '../contract/backend.js';

/** Words of ours for what git calls its steps; the others are understood as they are (`counting`, `resolving`). */
const steps: Readonly<Record<string, string>> = { receiving: 'fetching', writing: 'storing' };

/**
 * Reads `Receiving objects:  12% (34/283)` out of what git writes with `--progress`, and reports the last of each
 * piece. Shown to people, decides nothing: a piece that is cut in the middle of a line loses that line.
 */
export function progressSteps(
  report: (progress: MaintenanceProgress) => void,
): (chunk: Uint8Array) => void {
  return (chunk) => {
    const text = Buffer.from(chunk).toString('latin1');
    const last = [...text.matchAll(/([A-Z][a-z]+) [a-z]+: +\d+% \((\d+)\/(\d+)\)/g)].at(-1);
    if (last === undefined) return;
    const [, word = '', done, total] = last;
    const name = word.toLowerCase();
    report({ step: steps[name] ?? name, done: Number(done), total: Number(total) });
  };
}
