import type { Scheduler } from './scheduler.js';

/**
 * While a world runs there is no time but its own. Code that is not handed a clock (a timer that guards a stuck git,
 * for example) gets the world's; code that reaches for chance is found out.
 */
let current: Scheduler | undefined;

export async function runInWorld<T>(scheduler: Scheduler, run: () => Promise<T>): Promise<T> {
  current = scheduler;
  try {
    return await run();
  } finally {
    current = undefined;
  }
}

class VirtualTimer {
  readonly cancel: () => void;

  constructor(cancel: () => void) {
    this.cancel = cancel;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }
}

/** For a process that does nothing but simulate. */
export function replaceGlobals(): void {
  const real = { setTimeout, clearTimeout, now: Date.now, random: Math.random };
  Object.assign(globalThis, {
    setTimeout: (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) =>
      current === undefined
        ? real.setTimeout(run, ms, ...args)
        : new VirtualTimer(current.after(ms, () => run(...args))),
    clearTimeout: (timer: unknown) => {
      if (timer instanceof VirtualTimer) timer.cancel();
      else Reflect.apply(real.clearTimeout, undefined, [timer]);
    },
    setInterval: stray('setInterval'),
  });
  Date.now = () => (current === undefined ? real.now() : 1_700_000_000_000 + current.nowMs);
  Math.random = () => (current === undefined ? real.random() : stray('Math.random')());
}

function stray(name: string): () => never {
  return () => {
    throw new Error(`the code under simulation calls ${name}`);
  };
}
