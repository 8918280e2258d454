// What `npm test` shows while it runs: on a terminal one line that changes, elsewhere a line for each finished file.
import path from 'node:path';

const eraseLine = '\r\x1b[2K';

export class TestProgress {
  #terminal;
  #columns;
  #files = new Set();
  #running = new Map();
  #done = 0;
  #failed = 0;
  #shown = false;

  /** `columns`: width of the terminal; undefined: there is none. */
  constructor(columns) {
    this.#terminal = columns !== undefined;
    this.#columns = columns ?? 0;
  }

  /** Takes an event of the test runner; returns what is to be written, or undefined. */
  take({ type, data }, nowMs) {
    if (!isFile(data)) return undefined;
    const file = sourceOf(data.name);
    if (type === 'test:enqueue') this.#files.add(file);
    if (type === 'test:dequeue') this.#running.set(file, nowMs);
    if (type === 'test:complete') return this.#finish(file, data.details?.passed !== false, nowMs);
    return type === 'test:dequeue' ? this.#line() : undefined;
  }

  /** Other output, with the line that changes out of its way. */
  around(text) {
    if (!this.#shown) return text;
    this.#shown = false;
    return `${eraseLine}${text}`;
  }

  #finish(file, passed, nowMs) {
    const seconds = ((nowMs - (this.#running.get(file) ?? nowMs)) / 1000).toFixed(1);
    this.#running.delete(file);
    this.#done += 1;
    if (!passed) this.#failed += 1;
    if (this.#terminal) return this.#line();
    return `${this.#count()} ${passed ? 'ok    ' : 'FAILED'} ${file} (${seconds} s)\n`;
  }

  #count() {
    const all = String(this.#files.size);
    return `[${String(this.#done).padStart(all.length)}/${all}]`;
  }

  /** Ends without a line feed, so that the next one takes its place. */
  #line() {
    if (!this.#terminal) return undefined;
    this.#shown = true;
    const failed = this.#failed === 0 ? '' : ` ${this.#failed} FAILED`;
    const text = `${this.#count()}${failed} ${[...this.#running.keys()].join(' ')}`;
    return `${eraseLine}${text.slice(0, Math.max(20, this.#columns - 1))}`;
  }
}

/** The runner reports each file as a test, which has the file's name. What has none is no test. */
function isFile({ name, file, nesting } = {}) {
  if (nesting !== 0 || typeof name !== 'string' || typeof file !== 'string') return false;
  return path.resolve(name) === path.resolve(file);
}

/** `dist/e2e/x.test.js` is told as what it was built from. */
function sourceOf(name) {
  const relative = path.relative(process.cwd(), path.resolve(name));
  const built = /^dist\/(.*)\.js$/.exec(relative)?.[1];
  return built === undefined ? relative : `${built}.ts`;
}
