import { Worker } from 'node:worker_threads';
import { QuorateError } from '../../backends/contract/errors.js';
import { isAnswer } from './message-exchange.js';

/** Looks for the expression of a rule in commit messages. */
export interface MessageCheck {
  /**
   * Index of the first message in which the expression is not found, or undefined. Rejects with `deadline-exceeded`
   * when that takes longer than a second, with `resource-exhausted` when too many are waiting, and with `unavailable`
   * when no thread can be started for it.
   */
  firstMismatch(source: string, messages: readonly string[]): Promise<number | undefined>;
}

/** An expression that does not run away looks through 500 messages of 64 KB in less. */
const timeoutMs = 1_000;
/** A thread starts in some 30 ms: only what never comes takes so long. */
const startMs = 30_000;
/** Pushes that wait for the thread. With a runaway expression each costs a second. */
const maxWaiting = 64;
/** A thread and its heap; an expression needs little. */
const maxHeapMb = 64;

interface Thread {
  readonly worker: Worker;
  /** Its first word. */
  readonly ready: Promise<unknown>;
}

/** One thread for all pushes, started when first needed and again after a question that took too long. */
export function createMessageCheck(): MessageCheck {
  let thread: Thread | undefined;
  let waiting = 0;
  let last: Promise<unknown> = Promise.resolve();

  const ask = async (source: string, messages: readonly string[]): Promise<number | undefined> => {
    thread ??= startThread();
    const { worker, ready } = thread;
    try {
      // Its start is no time of the expression's, and long on a machine that is busy.
      await ready;
      const answered = nextWord(worker, timeoutMs, tooLong);
      worker.postMessage({ source, messages }, []);
      const answer = await answered;
      if (!isAnswer(answer)) throw tooLong();
      return answer.mismatch === -1 ? undefined : answer.mismatch;
    } catch (error) {
      thread = undefined;
      void worker.terminate();
      throw error;
    }
  };

  return {
    firstMismatch(source, messages) {
      if (waiting >= maxWaiting) {
        throw new QuorateError('resource-exhausted', 'too many pushes wait for this check');
      }
      waiting += 1;
      const turn = last.then(() => ask(source, messages));
      last = turn
        .catch(() => undefined)
        .finally(() => {
          waiting -= 1;
        });
      return turn;
    },
  };
}

function startThread(): Thread {
  const worker = new Worker(new URL('./message-worker.js', import.meta.url), {
    resourceLimits: { maxOldGenerationSizeMb: maxHeapMb },
    env: {},
  });
  // One that fails after its question was given up has nobody else who listens.
  worker.on('error', () => undefined);
  // It is not to keep a server that stops.
  worker.unref();
  return { worker, ready: nextWord(worker, startMs, notStarted) };
}

/** What a thread says next. Rejects when it fails, or has said nothing in this time. */
function nextWord(worker: Worker, boundMs: number, failure: () => Error): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const fail = (): void => {
      settle();
      reject(failure());
    };
    const hear = (word: unknown): void => {
      settle();
      resolve(word);
    };
    // What has come while the main loop was busy is looked at first.
    const timer = setTimeout(() => setImmediate(() => setImmediate(fail)), boundMs);
    const settle = (): void => {
      clearTimeout(timer);
      worker.off('message', hear).off('error', fail);
    };
    worker.on('message', hear).on('error', fail);
  });
}

function tooLong(): QuorateError {
  return new QuorateError(
    'deadline-exceeded',
    'the regular expression takes too long on these messages; make it simpler',
  );
}

function notStarted(): QuorateError {
  return new QuorateError(
    'unavailable',
    'the thread that looks at commit messages did not start; push again',
  );
}
