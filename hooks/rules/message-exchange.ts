/** What goes between the server's thread and the one that matches messages. */

export interface Question {
  readonly source: string;
  readonly messages: readonly string[];
}

export interface Answer {
  /** Index of the first message in which the expression is not found; -1: there is none. */
  readonly mismatch: number;
}

export function isQuestion(value: unknown): value is Question {
  return typeof value === 'object' && value !== null && 'source' in value && 'messages' in value;
}

export function isAnswer(value: unknown): value is Answer {
  return typeof value === 'object' && value !== null && 'mismatch' in value;
}
