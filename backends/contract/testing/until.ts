import { setImmediate, setTimeout as sleep } from 'node:timers/promises';

/** Far beyond what anything waited for takes on a busy machine: only what never comes gets there. */
const patienceMs = 180_000;
/** What is nearly there needs no pause. */
const promptTurns = 50;
const pauseMs = 10;

/** Resolves once `holds` does, which is asked again and again. Fails after three minutes. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  for (let turn = 0; !(await holds()); turn += 1) {
    if (performance.now() > deadlineMs) throw new Error(`waited in vain: ${what}`);
    await (turn < promptTurns ? setImmediate() : sleep(pauseMs));
  }
}

/** As the promise, which may take three minutes. */
export async function awaited<T>(what: string, promise: Promise<T>): Promise<T> {
  const over = new AbortController();
  const late = sleep(patienceMs, undefined, { signal: over.signal }).then(() => {
    throw new Error(`waited in vain: ${what}`);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    over.abort();
    late.catch(() => undefined);
  }
}
