/** Runs regular expressions of rules away from the server's thread: one may take for ever, and is ended then. */
import { parentPort } from 'node:worker_threads';
import { isQuestion, type Answer } from './message-exchange.js';

parentPort?.on('message', (question: unknown) => {
  if (!isQuestion(question)) return;
  const expression = new RegExp(question.source, 'u');
  const answer: Answer = {
    mismatch: question.messages.findIndex((message) => !expression.test(message)),
  };
  parentPort?.postMessage(answer, []);
});

// That it is there: what it is asked from now on is its own time.
parentPort?.postMessage('ready', []);
