// What `npm test` shows while it runs: on a terminal one line that changes, elsewhere a line for each finished file and
// now and then one for a file that takes long.
import path from 'node:path';

const eraseLine = '\r\x1b[2K';
/** Few files take as long. What hangs is told often enough to be found in a log that was cut off. */
const tellEveryMs = 120_000;

export class TestProgress {
  #terminal;
  #columns;
  #files = new Set();
  /** By file: since when it runs, and when that was told last. */
  #running = new Map();
  /** The tests that run, the outer ones of a file first. */
  #tests = [];
  #hung = new Map();
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
    if (!isFile(data)) {
      this.#follow(type, data, nowMs);
      return undefined;
    }
    const file = sourceOf(data.name);
    if (type === 'test:enqueue') this.#files.add(file);
    if (type === 'test:dequeue') {
      this.#running.set(file, { sinceMs: nowMs, toldMs: nowMs });
      return this.#line();
    }
    return type === 'test:complete' ? this.#finish(file, data.details, nowMs) : undefined;
  }

  /** What runs for long, for a log. Asked now and then. */
  linger(nowMs) {
    if (this.#terminal) return '';
    let text = '';
    for (const [file, running] of this.#running) {
      if (nowMs - running.toldMs < tellEveryMs) continue;
      running.toldMs = nowMs;
      const runs = `${file} (${seconds(nowMs - running.sinceMs)} s)`;
      text += `${this.#count()} ...... ${runs}: ${this.#place(file, nowMs)}\n`;
    }
    return text;
  }

  /** Where a file was when its time was up; undefined if it was not. */
  hungAt(name) {
    return this.#hung.get(sourceOf(name));
  }

  /** Other output, with the line that changes out of its way. */
  around(text) {
    if (!this.#shown) return text;
    this.#shown = false;
    return `${eraseLine}${text}`;
  }

  #follow(type, { file, name, nesting } = {}, nowMs) {
    if (typeof file !== 'string') return;
    const isSame = (test) => test.file === file && test.name === name && test.nesting === nesting;
    if (type === 'test:dequeue') this.#tests.push({ file, name, nesting, sinceMs: nowMs });
    if (type !== 'test:complete') return;
    const ended = this.#tests.findIndex(isSame);
    if (ended >= 0) this.#tests.splice(ended, 1);
  }

  /**
   * Which tests of a file run, and for how long. Those that several files share are told by the file they are written
   * in: any of the files that run may be at them.
   */
  #place(file, nowMs) {
    const isElsewhere = (source) => source !== file && this.#running.has(source);
    const here = this.#tests.filter((test) => !isElsewhere(sourceOf(test.file)));
    if (here.length === 0) return 'before its first test, or after its last';
    return here.map(({ name, sinceMs }) => `"${name}" (${seconds(nowMs - sinceMs)} s)`).join(', ');
  }

  #finish(file, details, nowMs) {
    const running = this.#running.get(file) ?? { sinceMs: nowMs };
    const passed = details?.passed !== false;
    if (details?.error?.failureType === 'testTimeoutFailure') {
      this.#hung.set(file, this.#place(file, nowMs));
    }
    this.#running.delete(file);
    this.#tests = this.#tests.filter((test) => sourceOf(test.file) !== file);
    this.#done += 1;
    if (!passed) this.#failed += 1;
    if (this.#terminal) return this.#line();
    return `${this.#count()} ${passed ? 'ok    ' : 'FAILED'} ${file} (${seconds(nowMs - running.sinceMs)} s)\n`;
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

function seconds(ms) {
  return (ms / 1000).toFixed(1);
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
