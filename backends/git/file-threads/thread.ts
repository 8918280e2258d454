import { parentPort } from 'node:worker_threads';
import { errorCode } from '../repository-files.js';
import type { Answer, Order } from './messages.js';
import { takeStep } from './take-steps.js';

/** The thread's own program: takes the steps of one order after another. */

parentPort?.on('message', (order: Order) => parentPort?.postMessage(carryOut(order), []));

function carryOut({ id, steps }: Order): Answer {
  for (const [step, what] of steps.entries()) {
    try {
      takeStep(what);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      return { id, failure: { step, code: errorCode(error), message } };
    }
  }
  return { id };
}
