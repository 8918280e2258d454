import { parentPort } from 'node:worker_threads';
import { errorCode } from '../repository-files.js';
import type { Answer, Order } from './messages.js';
import { takeStep } from './take-steps.js';

/** The thread's own program: takes the steps of one order after another. */

parentPort?.on('message', (order: Order) => parentPort?.postMessage(carryOut(order), []));

function carryOut({ id, steps }: Order): Answer {
  try {
    for (const step of steps) takeStep(step);
    return { id };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { id, failure: { code: errorCode(error), message } };
  }
}
