import type { FileStep } from '../file-steps.js';

export interface Order {
  readonly id: number;
  readonly steps: readonly FileStep[];
}

export interface Answer {
  readonly id: number;
  /** Of the step at which it ended, the `step`th. */
  readonly failure?: { readonly step: number; readonly code: string; readonly message: string };
}
