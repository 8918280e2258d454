import type { KeyValue } from './coordinator.js';

/**
 * What a process has read from the coordinator before, for requests that only read while the coordinator cannot be
 * reached. Only what was read linearizably is remembered, and it is read again from time to time for as long as the
 * coordinator answers: so it is what held when that one was lost, or little older.
 */
export interface PastReads {
  /**
   * What the key held when it was last read. Throws `unavailable` when it was never read here, or so long ago that it
   * is not to be believed any more.
   */
  get(key: string): KeyValue | undefined;
  /**
   * `ask`s the coordinator. While it cannot be reached, `recall`s from what was read before; when that does not know
   * either, fails as `ask` does.
   */
  orPast<T>(ask: () => Promise<T>, recall: () => Promise<T>): Promise<T>;
  /** For how long the coordinator has not answered; undefined while it does. */
  readonly lostForMs: number | undefined;
}
