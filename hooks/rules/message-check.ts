import { Worker } from 'node:worker_threads';
import { QuorateError } from '../../backends/contract/errors.js';
import { isAnswer } from './message-exchange.js';

/** Looks for the expression of a rule in commit messages. */
export interface MessageCheck {
  /**
   * Index of the first message in which the expression is not found, or undefined. Rejects with `deadline-exceeded`
   * when that takes longer than a second, and with `resource-exhausted` when too many are waiting.
   */
  firstMismatch(source: string, messages: readonly string[]): Promise<number | undefined>;
}

/** An expression that does not run away looks through 500 messages of 64 KB in less. */
const timeoutMs = 1_000;
/** Pushes that wait for the thread. With a runaway expression each costs a second. */
const maxWaiting = 64;
/** A thread and its heap; an expression needs little. */
const maxHeapMb = 64;

/** One thread for all pushes, started when first needed and again after a question that took too long. */
export function createMessageCheck(): MessageCheck {
  let worker: Worker | undefined;
  let waiting = 0;
  let last: Promise<unknown> = Promise.resolve();

  const ask = (source: string, messages: readonly string[]): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      worker ??= startWorker();
      const asked = worker;
      const giveUp = (): void => {
        worker = undefined;
        settle();
        void asked.terminate();
        reject(tooLong());
      };
      const timer = setTimeout(giveUp, timeoutMs);
      const settle = (): void => {
        clearTimeout(timer);
        asked.off('message', answered).off('error', giveUp);
      };
      const answered = (answer: unknown): void => {
        settle();
        if (!isAnswer(answer)) giveUp();
        else resolve(answer.mismatch === -1 ? undefined : answer.mismatch);
      };
      asked.on('message', answered).on('error', giveUp);
      asked.postMessage({ source, messages }, []);
    });

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

function startWorker(): Worker {
  const worker = new Worker(new URL('./message-worker.js', import.meta.url), {
    resourceLimits: { maxOldGenerationSizeMb: maxHeapMb },
    env: {},
  });
  // One that fails after its question was given up has nobody else who listens.
  worker.on('error', () => undefined);
  // It is not to keep a server that stops.
  worker.unref();
  return worker;
}

function tooLong(): QuorateError {
  return new QuorateError(
    'deadline-exceeded',
    'the regular expression takes too long on these messages; make it simpler',
  );
}
