import { setTimeout as sleep } from 'node:timers/promises';

const stepMs = 10;

/**
 * Sleeps in steps, after each of which the process looks at what has come: one that stood still itself has not waited
 * for anybody. Keeps no process alive.
 */
export async function sleepInSteps(ms: number, signal?: AbortSignal): Promise<void> {
  const options = { ref: false, ...(signal === undefined ? {} : { signal }) };
  for (let leftMs = ms; leftMs > 0; leftMs -= stepMs) {
    if (signal?.aborted === true) return;
    await sleep(Math.min(stepMs, leftMs), undefined, options).catch(() => undefined);
  }
}
