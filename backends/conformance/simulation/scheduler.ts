interface Event {
  readonly atMs: number;
  readonly order: number;
  run: (() => void) | undefined;
}

/** The bits of a time. */
const time = new Float64Array(1);
const halves = new Uint32Array(time.buffer);

/** Events that run in one turn of Node's loop. */
const eventsOfATurn = 64;

/** Kept from before the world replaced the global ones. */
const realSetImmediate = setImmediate;

/**
 * Virtual time: events in the order of their times, then of their making. Between two of them every promise that can
 * settle does, so that the order of everything follows from the order of the events. Nothing here waits for real time.
 */
export class Scheduler {
  /** A binary heap. */
  readonly #events: Event[] = [];
  #order = 0;
  #nowMs = 0;
  #steps = 0;
  #trace = 0x811c9dc5;

  /** Milliseconds since the world began. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Events that have run. */
  get steps(): number {
    return this.#steps;
  }

  /** A hash of the times of all events that ran: runs that are the same have the same. */
  get trace(): string {
    return (this.#trace >>> 0).toString(16).padStart(8, '0');
  }

  /** Returns a function that takes the event back. */
  after(delayMs: number, run: () => void): () => void {
    const event: Event = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, run };
    this.#push(event);
    return () => {
      event.run = undefined;
    };
  }

  /**
   * Runs events until `done`, or none is left, or `maxSteps` have run in this world. Resolves with whether it is done.
   */
  run(done: () => boolean, maxSteps = Infinity): Promise<boolean> {
    return new Promise((resolve, reject) => {
      let queued = 0;
      let over = false;
      const end = (settle: () => void): void => {
        over = true;
        settle();
      };
      const pump = (): void => {
        if (over) return;
        try {
          if (done()) return end(() => resolve(true));
          const event = this.#steps >= maxSteps ? undefined : this.#next();
          if (event === undefined) return end(() => resolve(done()));
          event.run?.();
          if (--queued === 0) queue();
        } catch (error) {
          end(() => reject(error));
        }
      };
      // What an event set free runs to its end before the next immediate does. A turn of Node's loop for each of them
      // would cost as much as a small event.
      const queue = (): void => {
        for (; queued < eventsOfATurn; queued++) realSetImmediate(pump);
      };
      queue();
    });
  }

  #mix(word: number): void {
    this.#trace = Math.imul(this.#trace ^ word, 0x01000193);
    this.#trace ^= this.#trace >>> 15;
  }

  #next(): Event | undefined {
    for (;;) {
      const event = this.#pop();
      if (event === undefined) return undefined;
      if (event.run === undefined) continue;
      this.#nowMs = Math.max(this.#nowMs, event.atMs);
      this.#steps++;
      this.#mix(event.order);
      time[0] = event.atMs;
      this.#mix(halves[0] ?? 0);
      this.#mix(halves[1] ?? 0);
      return event;
    }
  }

  #push(event: Event): void {
    const heap = this.#events;
    let index = heap.push(event) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || !isBefore(event, above)) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#events;
    const [first] = heap;
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      const right = heap[child + 1];
      let below = heap[child];
      if (below !== undefined && right !== undefined && isBefore(right, below)) {
        child++;
        below = right;
      }
      if (below === undefined || !isBefore(below, last)) break;
      heap[index] = below;
      index = child;
    }
    heap[index] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
